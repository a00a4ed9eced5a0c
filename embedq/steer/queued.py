"""What the queue still holds for a collection, as its ledger of runs tells."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from embedq_jobs import Queue

# Runs are listed for thirty days.
_RUNS: Final = 100_000


@dataclass(frozen=True, slots=True)
class QueuedFor:
    """Runs that are not done, by id, the latest first, and how many of their items are not."""

    runs: list[str]
    items: int


async def queued_for(queue: "Queue", collection: str) -> QueuedFor:
    """What is queued for `collection`. Raises QueueError."""
    open_runs = [summary for summary in await queue.runs.latest(_RUNS, collection=collection) if not summary.settled]
    items = sum(max(summary.items - summary.counts.ended, 0) for summary in open_runs)
    return QueuedFor([summary.run.id for summary in open_runs], items)
