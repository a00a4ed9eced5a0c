"""Reading the ledger of runs for the commands that show it."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from embedq.inspecting import moment, size
from embedq.tables import Table, print_fitting
from embedq_core.priority import Priority
from embedq_core.settings import load_settings
from embedq_jobs import RunSummary, open_queue, progress_of, queue_exists
from embedq_producer.summary import run_outcome
from embedq_producer.terminal import duration, percent, short_duration, speed


def latest_runs(
    number: int, database: Path | None, *, collection: str | None = None, state: str | None = None
) -> list[RunSummary]:
    """The latest runs, newest first; only those of a collection, or in a state, where one is named."""

    async def read() -> list[RunSummary]:
        settings = load_settings(database=database)
        if not queue_exists(settings):
            return []
        async with open_queue(settings) as queue:
            return await queue.runs.latest(number, collection=collection, state=state)

    return asyncio.run(read())


def one_run(run: str, database: Path | None) -> RunSummary:
    """A run as it stands. Raises RunMissing."""

    async def read() -> RunSummary:
        async with open_queue(load_settings(database=database)) as queue:
            return await queue.runs.summary(run)

    return asyncio.run(read())


def print_runs(summaries: Sequence[RunSummary]) -> None:
    """Print runs as a table: state, collection, progress, speed, outcomes."""
    table = runs_table(summaries, time.time())
    print_fitting(table)


def runs_table(summaries: Sequence[RunSummary], now: float) -> Table:
    """Runs as a table, what matters most first: a narrow terminal leaves out what comes last.

    `left` is the time until the end of one that goes on, `took` the time that the others had.
    """
    return Table(
        ["run", "state", "collection", "done", "left", "outcome", "items", "speed", "calls", "full", "took", "started"],
        [_row(summary, now) for summary in summaries],
        right=frozenset({3, 4, 6, 7, 8, 9, 10}),
        # Cut shorter, an outcome says nothing.
        least={5: 16},
    )


def _row(summary: RunSummary, now: float) -> list[str]:
    progress = progress_of(summary, now)
    ended = summary.settled
    return [
        summary.run.id,
        summary.state,
        summary.run.collection,
        "-" if progress.share is None else percent(progress.share),
        "-" if progress.seconds_left is None else short_duration(progress.seconds_left),
        run_outcome(summary),
        f"{summary.items:,}",
        speed(progress.items_per_second) if summary.counts.done else "-",
        f"{summary.counts.calls:,}",
        "-" if progress.batch_fill is None else percent(progress.batch_fill),
        short_duration(summary.seconds) if ended else "-",
        moment(summary.run.started),
    ]


def run_fields(summary: RunSummary) -> list[tuple[str, str]]:
    """A run for people to read."""
    run, counts = summary.run, summary.counts
    progress = progress_of(summary, time.time())
    share = f" ({percent(progress.share)})" if progress.share is not None and not counts.cancelled else ""
    fields = [
        ("run", run.id),
        ("state", summary.state),
        ("collection", run.collection),
        ("model", run.model_id),
        ("source", run.source),
        ("started", moment(run.started)),
        *([("priority", run.priority.value)] if run.priority is Priority.HIGH else []),
        ("duration", duration(summary.seconds)),
        ("items", f"{counts.done:,} of {summary.items:,} done{share}, {size(summary.bytes)}"),
    ]
    if not (summary.closed or summary.interrupted):
        fields.append(("", "more is still being sent"))
    if counts.done:
        fields.append(("speed", f"{speed(progress.items_per_second)} since a worker took it in hand"))
    if progress.seconds_left is not None:
        fields.append(("time left", duration(progress.seconds_left)))
    fields += [
        ("outcome", run_outcome(summary)),
        ("model calls", f"{counts.calls:,} for {counts.inputs:,} inputs"),
    ]
    if progress.batch_fill is not None:
        fields.append(("batches", f"{percent(progress.batch_fill)} full, of {run.batch_size:,}"))
    if summary.skipped:
        fields.append(("rows skipped", f"{summary.skipped:,}"))
    if summary.duplicates:
        fields.append(("duplicate ids", f"{summary.duplicates:,} (the last of each won)"))
    if counts.failed:
        fields.append(("dead letters", f"see 'embedq dead list --run {run.id}'"))
    return fields
