"""Reading the ledger of runs for the commands that show it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from embedq.inspecting import moment, size
from embedq.tables import print_table
from embedq_core.settings import load_settings
from embedq_jobs import RunSummary, open_queue, queue_exists
from embedq_producer.summary import run_outcome
from embedq_producer.terminal import duration


def latest_runs(number: int, database: Path | None) -> list[RunSummary]:
    """The latest runs, newest first."""

    async def read() -> list[RunSummary]:
        settings = load_settings(database=database)
        if not queue_exists(settings):
            return []
        async with open_queue(settings) as queue:
            return await queue.runs.latest(number)

    return asyncio.run(read())


def one_run(run: str, database: Path | None) -> RunSummary:
    """A run as it stands. Raises RunMissing."""

    async def read() -> RunSummary:
        async with open_queue(load_settings(database=database)) as queue:
            return await queue.runs.summary(run)

    return asyncio.run(read())


def print_runs(summaries: Sequence[RunSummary]) -> None:
    """Print runs as a table: state, collection, progress, outcomes."""
    print_table(
        ["run", "state", "collection", "done", "started", "outcome"],
        [
            [
                summary.run.id,
                summary.state,
                summary.run.collection,
                f"{summary.counts.done:,}/{summary.items:,}",
                moment(summary.run.started),
                run_outcome(summary),
            ]
            for summary in summaries
        ],
        right={3},
    )


def run_fields(summary: RunSummary) -> list[tuple[str, str]]:
    """A run for people to read."""
    run, counts = summary.run, summary.counts
    rate = counts.done / summary.seconds if summary.seconds > 0 else 0.0
    fields = [
        ("run", run.id),
        ("state", summary.state),
        ("collection", run.collection),
        ("model", run.model_id),
        ("source", run.source),
        ("started", moment(run.started)),
        ("duration", duration(summary.seconds)),
        ("items", f"{counts.done:,} of {summary.items:,} done ({size(summary.bytes)}, {rate:,.0f}/s)"),
        ("outcome", run_outcome(summary)),
        ("model calls", f"{counts.calls:,} for {counts.inputs:,} inputs"),
    ]
    if not summary.settled and rate:
        fields.append(("time left", duration((summary.items - counts.ended) / rate)))
    if summary.skipped:
        fields.append(("rows skipped", f"{summary.skipped:,}"))
    if summary.duplicates:
        fields.append(("duplicate ids", f"{summary.duplicates:,} (the last of each won)"))
    return fields
