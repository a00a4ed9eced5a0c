"""What is said when a submission, or the run that it made, is at its end; and with which exit code."""

import json
import sys
from typing import TYPE_CHECKING

from embedq_core.counts import Counts
from embedq_core.settings import Settings
from embedq_core.text import plural, shown
from embedq_jobs import RunSummary
from embedq_producer.terminal import duration

if TYPE_CHECKING:
    from embedq_producer.pruning import Pruned
    from embedq_producer.submission import Submission

EXIT_DONE, EXIT_DEAD, EXIT_INTERRUPTED = 0, 1, 130


def print_submitted(
    submission: "Submission", *, as_json: bool, interrupted: bool, pruned: "Pruned | None" = None
) -> None:
    """Print the id of the run on stdout, and what was queued and pruned on stderr."""
    run = submission.run
    if as_json:
        figures = {name: getattr(submission, name) for name in ("items", "chunks", "duplicates", "skipped")}
        print(
            json.dumps(
                {"run": run.id, "collection": run.collection, "model": run.model_id, **figures, **_pruned(pruned)}
            )
        )
    else:
        print(run.id)
        print(f"queued {_accepted(submission)} for {shown(run.collection)} ({run.model_id})", file=sys.stderr)
    if interrupted:
        print("interrupted: what was queued stays queued", file=sys.stderr)
    _print_pruned(pruned)
    if submission.problem is not None:
        print(f"embedq: {submission.problem}", file=sys.stderr)


def _accepted(submission: "Submission") -> str:
    words = plural(submission.items, "item")
    if submission.duplicates:
        words += f", {plural(submission.duplicates, 'duplicate id')} (the last one wins)"
    if submission.skipped:
        words += f", {plural(submission.skipped, 'row')} skipped"
    return words


def print_summary(
    summary: RunSummary,
    settings: Settings,
    submission: "Submission",
    *,
    as_json: bool,
    pruned: "Pruned | None" = None,
) -> None:
    """Print what became of a run: one line, or JSON; and where dead letters are, if there are any."""
    if as_json:
        print(json.dumps(summary_object(summary) | _pruned(pruned)))
    else:
        rate = summary.counts.done / summary.seconds if summary.seconds > 0 else 0
        print(
            f"{shown(summary.run.collection)}: {plural(summary.counts.done, 'item')} in {duration(summary.seconds)}"
            f" ({rate:,.0f}/s): {run_outcome(summary)}"
        )
        calls = plural(summary.counts.calls, "model call") if summary.counts.calls else "no model call"
        print(f"run {summary.run.id}, {calls}, in {settings.database}")
    if submission.duplicates:
        print(f"{plural(submission.duplicates, 'duplicate id')}: the last one of each won", file=sys.stderr)
    if submission.skipped:
        print(f"{plural(submission.skipped, 'row')} skipped: see above", file=sys.stderr)
    if summary.counts.failed:
        print(
            f"{plural(summary.counts.failed, 'item')} could not be embedded: "
            f"see 'embedq dead list --run {summary.run.id}'",
            file=sys.stderr,
        )
    _print_pruned(pruned)
    if submission.problem is not None:
        print(f"embedq: {submission.problem}", file=sys.stderr)


def _pruned(pruned: "Pruned | None") -> dict[str, object]:
    return {} if pruned is None else pruned.as_object()


def _print_pruned(pruned: "Pruned | None") -> None:
    for line in [] if pruned is None else pruned.lines():
        print(line, file=sys.stderr)


def pruned_exit_code(code: int, pruned: "Pruned | None") -> int:
    """`code`; 1 in the place of 0 where something was to be pruned and could not be."""
    return EXIT_DEAD if code == EXIT_DONE and pruned is not None and pruned.refused is not None else code


def run_outcome(summary: RunSummary) -> str:
    """What became of the items of a run so far."""
    if words := outcome_words(summary.counts):
        return words
    if summary.state == "complete":
        return "nothing to do"
    return "nothing yet" if summary.items else "nothing was queued"


def outcome_words(counts: Counts) -> str:
    """'3 embedded, 2 unchanged, 1 of them updated'; empty where there were no items."""
    words = [
        f"{getattr(counts, name):,} {word}"
        for name, word in (
            ("embedded", "embedded"),
            ("reused", "reused"),
            ("unchanged", "unchanged"),
            ("failed", "dead"),
        )
        if getattr(counts, name)
    ]
    if counts.updated:
        words.append(f"{counts.updated:,} of them updated")
    if counts.removed:
        words.append(f"{counts.removed:,} removed")
    return ", ".join(words)


def summary_object(summary: RunSummary) -> dict[str, object]:
    """A run as an object for JSON. Times are in seconds since the epoch, `seconds` is how long it took."""
    run, counts = summary.run, summary.counts
    return {
        "run": run.id,
        "collection": run.collection,
        "model": run.model_id,
        "source": run.source,
        "state": summary.state,
        "started": run.started,
        "finished": summary.finished,
        "seconds": round(summary.seconds, 3),
        "items": summary.items,
        "done": counts.done,
        "chunks": summary.chunks,
        "chunks_done": summary.chunks_done,
        "skipped": summary.skipped,
        "duplicates": summary.duplicates,
        "embedded": counts.embedded,
        "reused": counts.reused,
        "unchanged": counts.unchanged,
        "updated": counts.updated,
        "removed": counts.removed,
        "dead": counts.failed,
        "calls": counts.calls,
        "inputs": counts.inputs,
    }


def submission_exit_code(submission: "Submission", *, interrupted: bool) -> int:
    """0 queued, 1 the corpus was not read to its end or no row of it could be read, 130 interrupted."""
    if interrupted:
        return EXIT_INTERRUPTED
    nothing = submission.items == 0 and submission.skipped > 0
    return EXIT_DEAD if nothing or submission.problem is not None else EXIT_DONE


def summary_exit_code(summary: RunSummary, submission: "Submission", *, interrupted: bool) -> int:
    """0 done, 1 some items dead or the corpus not read to its end, 130 interrupted."""
    if summary.counts.failed and not interrupted:
        return EXIT_DEAD
    return submission_exit_code(submission, interrupted=interrupted)
