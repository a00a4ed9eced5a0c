"""What is said when a submission, or the run that it made, is at its end; and with which exit code."""

import json
import sys
import time
from typing import TYPE_CHECKING

from embedq_core.counts import Counts
from embedq_core.settings import Settings
from embedq_core.text import plural, shown
from embedq_jobs import RunSummary, progress_of
from embedq_producer.terminal import duration, percent

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
        print(json.dumps(submitted_object(submission) | _pruned(pruned)))
    else:
        print(run.id)
        print(f"queued {_accepted(submission)} for {shown(run.collection)} ({run.model_id})", file=sys.stderr)
    print_remarks(submission, interrupted=interrupted)
    _print_pruned(pruned)
    if submission.problem is not None:
        print(f"embedq: {submission.problem}", file=sys.stderr)


def submitted_object(submission: "Submission") -> dict[str, object]:
    """For JSON."""
    run = submission.run
    figures = {name: getattr(submission, name) for name in ("items", "chunks", "duplicates", "skipped")}
    return {"run": run.id, "collection": run.collection, "model": run.model_id, **figures}


def print_remarks(submission: "Submission", *, interrupted: bool) -> None:
    """Say on stderr why not all was queued, where somebody ended it."""
    if interrupted:
        print("interrupted: what was queued stays queued", file=sys.stderr)
    if submission.cancelled:
        print(f"the run was cancelled: see 'embedq runs show {submission.run.id}'", file=sys.stderr)


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
    submission: "Submission | None" = None,
    *,
    as_json: bool,
    pruned: "Pruned | None" = None,
) -> None:
    """Print what became of a run: two lines, or JSON; and on stderr what was not as it should be.

    `submission` is what this process itself has sent of it, if it has: then rows that were skipped are told above.
    """
    if as_json:
        print(json.dumps(summary_object(summary) | _pruned(pruned)))
    else:
        rate = summary.counts.done / summary.seconds if summary.seconds > 0 else 0.0
        print(
            f"{shown(summary.run.collection)}: {plural(summary.counts.done, 'item')} in {duration(summary.seconds)}"
            f" ({rate:,.0f}/s): {run_outcome(summary)}"
        )
        state = "" if summary.state == "complete" else f" ({summary.state})"
        print(f"run {summary.run.id}{state}, {model_calls(summary)}, in {settings.database}")
    if summary.duplicates:
        print(f"{plural(summary.duplicates, 'duplicate id')}: the last one of each won", file=sys.stderr)
    if summary.skipped:
        above = "" if submission is None else ": see above"
        print(f"{plural(summary.skipped, 'row')} skipped{above}", file=sys.stderr)
    if summary.cancelled is not None:
        taken_out = plural(summary.counts.cancelled, "item was", "items were")
        print(
            f"the run was cancelled: {taken_out} taken out of the queue; submit the source again for the rest",
            file=sys.stderr,
        )
    if summary.counts.failed:
        print(
            f"{plural(summary.counts.failed, 'item')} could not be embedded: "
            f"see 'embedq dead list --run {summary.run.id}'",
            file=sys.stderr,
        )
    _print_pruned(pruned)
    if submission is not None and submission.problem is not None:
        print(f"embedq: {submission.problem}", file=sys.stderr)


def model_calls(summary: RunSummary) -> str:
    """'40 model calls (batches 99% full)'."""
    calls = summary.counts.calls
    if not calls:
        return "no model call"
    fill = progress_of(summary, time.time()).batch_fill
    # Of one call, that says how few there were to embed.
    full = "" if fill is None or calls == 1 else f" (batches {percent(fill)} full)"
    return f"{plural(calls, 'model call')}{full}"


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
            ("cancelled", "cancelled"),
        )
        if getattr(counts, name)
    ]
    if counts.updated:
        words.append(f"{counts.updated:,} of them updated")
    if counts.removed:
        words.append(f"{counts.removed:,} removed")
    return ", ".join(words)


def summary_object(summary: RunSummary) -> dict[str, object]:
    """A run as an object for JSON. Times are in seconds since the epoch, `seconds` is how long it took.

    Null is what nobody can tell; `share` and `batch_fill` are in [0, 1]: see `embedq_jobs.Progress`.
    """
    run, counts = summary.run, summary.counts
    progress = progress_of(summary, time.time())
    return {
        "run": run.id,
        "collection": run.collection,
        "model": run.model_id,
        "source": run.source,
        "priority": run.priority.value,
        "state": summary.state,
        "started": run.started,
        "began": summary.began,
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
        "cancelled": counts.cancelled,
        "calls": counts.calls,
        "inputs": counts.inputs,
        "batch_size": run.batch_size,
        "batch_fill": _rounded(progress.batch_fill, 4),
        "share": _rounded(progress.share, 4),
        "items_per_second": round(progress.items_per_second, 3),
        "seconds_left": _rounded(progress.seconds_left, 1),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def submission_exit_code(submission: "Submission", *, interrupted: bool) -> int:
    """0 queued, 1 cancelled, the corpus was not read to its end or no row of it could be read, 130 interrupted."""
    if interrupted:
        return EXIT_INTERRUPTED
    nothing = submission.items == 0 and submission.skipped > 0
    return EXIT_DEAD if nothing or submission.problem is not None or submission.cancelled else EXIT_DONE


def summary_exit_code(summary: RunSummary, submission: "Submission", *, interrupted: bool) -> int:
    """0 done, 1 some items dead, cancelled, or the corpus not read to its end, 130 interrupted."""
    if (summary.counts.failed or summary.cancelled is not None) and not interrupted:
        return EXIT_DEAD
    return submission_exit_code(submission, interrupted=interrupted)
