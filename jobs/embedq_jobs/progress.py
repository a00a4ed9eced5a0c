"""What follows from the ledger of runs: how far a run has come, how fast, how long it will take. No I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from embedq_jobs.summaries import RunSummary


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands at one moment; None for what nobody can tell.

    `share`, in [0, 1], is of what has been queued so far. `items_per_second` is the mean since a worker first took some
    of the run in hand, until now or its end. `seconds_left` is told when all has been queued. `batch_fill`, in [0, 1],
    says how full the calls of the model were; where runs shared a batch, it counts for the one that came first.
    """

    share: float | None
    items_per_second: float
    seconds_left: float | None
    batch_fill: float | None


def progress_of(summary: RunSummary, now: float) -> Progress:
    """Where a run stands at `now`, in seconds since the epoch."""
    done = summary.counts.done
    since = summary.run.started if summary.began is None else summary.began
    working = (summary.finished or now) - since
    rate = done / working if done and working > 0 else 0.0
    known = summary.closed or summary.interrupted
    left = None
    if known and rate and not summary.settled:
        left = max(summary.items - summary.counts.ended, 0) / rate
    return Progress(
        share=summary.counts.ended / summary.items if summary.items else None,
        items_per_second=rate,
        seconds_left=left,
        batch_fill=_fill(summary),
    )


def _fill(summary: RunSummary) -> float | None:
    size, calls = summary.run.batch_size, summary.counts.calls
    return min(summary.counts.inputs / (calls * size), 1.0) if size and calls else None


@dataclass(frozen=True, slots=True)
class Measured:
    """How fast a model was: `inputs` contents, in `runs` runs, took it `seconds`."""

    inputs: int
    runs: int
    seconds: float

    @property
    def inputs_per_second(self) -> float:
        """Contents a second."""
        return self.inputs / self.seconds


def measured(summaries: Iterable[RunSummary]) -> Measured | None:
    """How fast runs of one model were, from when a worker took them in hand to their end; None where none tells.

    Only those that are finished count, and of which half or more went to the model: the others tell how fast the store
    is. Time in which several ran counts once.
    """
    telling = [
        (summary.began, summary.finished, summary.counts.inputs)
        for summary in summaries
        if summary.began is not None
        and summary.finished is not None
        and summary.counts.inputs
        and summary.counts.inputs * 2 >= summary.counts.done
    ]
    seconds = _covered([(began, finished) for began, finished, _ in telling])
    return Measured(sum(inputs for *_, inputs in telling), len(telling), seconds) if seconds > 0 else None


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """The length of the union of `spans`."""
    total, until = 0.0, float("-inf")
    for began, ended in sorted(spans):
        total += max(ended - max(began, until), 0.0)
        until = max(until, ended)
    return total
