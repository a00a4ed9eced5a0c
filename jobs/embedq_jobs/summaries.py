"""What is known of a run: one submission, and what has come of it so far. No I/O."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from embedq_core.counts import Counts
from embedq_core.priority import Priority

# A producer says at least this often that it is alive; later its run counts as interrupted.
BEAT_SECONDS: Final = 60

# The field of a run that says when it was cancelled.
CANCELLED: Final = "cancelled"


@dataclass(frozen=True, slots=True)
class Run:
    """A submission: what was sent where, and when (seconds since the epoch).

    `batch_size` is that of the model as the producer knew it; None where it takes any number, or nobody has said.
    """

    id: str
    collection: str
    model_id: str
    source: str
    started: float
    priority: Priority = Priority.NORMAL
    batch_size: int | None = None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run and what has come of it so far.

    `items` were accepted, `skipped` rows could not be read, `duplicates` are rows that a later row with the
    same id replaced. `closed` says that nothing more will come: the whole source was sent, or the run was cancelled,
    at the time `cancelled`. `chunks_done` counts the chunks that were cancelled, too. `began` is when a worker first
    took some of it in hand, as far as that was noted.
    """

    run: Run
    items: int
    bytes: int
    chunks: int
    chunks_done: int
    skipped: int
    duplicates: int
    closed: bool
    outcome: str
    beat: float
    finished: float | None
    counts: Counts
    began: float | None = None
    cancelled: float | None = None

    @property
    def complete(self) -> bool:
        """Everything that was accepted is stored or dead, and nothing more will come."""
        return self.closed and self.chunks_done >= self.chunks and self.cancelled is None

    @property
    def interrupted(self) -> bool:
        """The producer ended, or was ended, before it had sent all."""
        return self.outcome == "interrupted" or (not self.closed and time.time() - self.beat > BEAT_SECONDS)

    @property
    def state(self) -> str:
        """'queued', 'in_progress', 'complete', 'interrupted' or 'cancelled'."""
        if self.cancelled is not None:
            return "cancelled"
        if self.interrupted:
            return "interrupted"
        if self.complete:
            return "complete"
        # Of a large chunk, items are done long before it is.
        return "in_progress" if self.chunks_done or self.counts.done else "queued"

    @property
    def settled(self) -> bool:
        """Nothing more will change by itself: complete, or interrupted or cancelled with nothing left in the queue."""
        ended = self.closed or self.interrupted or self.cancelled is not None
        return ended and self.chunks_done >= self.chunks

    @property
    def seconds(self) -> float:
        """How long the run took, or has taken so far."""
        return (self.finished or time.time()) - self.run.started


def summary_of(run: str, fields: Mapping[str, str], parts: list[bytes], partial: list[bytes]) -> RunSummary:
    """A run, from the fields of its entry, the counts of its chunks that are done, and those of the ones in hand."""
    begun = [value.partition(b":")[2] for value in partial]
    counts = Counts.total(msgspec.json.decode(part, type=Counts) for part in (*parts, *begun))
    # A run of an earlier version says nothing of it.
    priority = Priority.HIGH if fields.get("priority") == Priority.HIGH else Priority.NORMAL
    return RunSummary(
        run=Run(
            run,
            fields["collection"],
            fields["model"],
            fields["source"],
            float(fields["started"]),
            priority,
            int(fields["batch_size"]) if "batch_size" in fields else None,
        ),
        items=int(fields.get("items", 0)),
        bytes=int(fields.get("bytes", 0)),
        chunks=int(fields.get("chunks", 0)),
        chunks_done=len(parts),
        skipped=int(fields.get("skipped", 0)),
        duplicates=int(fields.get("duplicates", 0)),
        closed="closed" in fields,
        outcome=fields.get("outcome", ""),
        beat=float(fields.get("beat", 0)),
        finished=float(fields["finished"]) if "finished" in fields else None,
        cancelled=float(fields[CANCELLED]) if CANCELLED in fields else None,
        counts=counts,
        began=float(fields["began"]) if "began" in fields else None,
    )
