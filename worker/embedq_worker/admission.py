"""Which waiting jobs a worker takes in hand: enough to keep the model busy, no more than fits in memory."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# Work in hand beyond what the model does in this time only keeps other workers from it.
AHEAD_SECONDS: Final = 2.0

# Fewer than two chunks in hand would leave the model idle while one is looked up or committed.
LEAST_ITEMS: Final = 4096

# And more than three transactions of the store keep nothing busy: they only take memory, vectors and all.
MOST_ITEMS: Final = 98_304


@dataclass(frozen=True, slots=True)
class JobSize:
    """What a job weighs."""

    bytes: int
    items: int


# Of a job whose size is unknown: a full chunk.
UNKNOWN: Final = JobSize(4 * 1024 * 1024, 2048)


def parse_size(value: bytes | None) -> JobSize:
    """The size as the queue's ledger has it; UNKNOWN for what is no size."""
    size, _, items = (value or b"").partition(b",")
    return JobSize(int(size), int(items)) if size.isdigit() and items.isdigit() else UNKNOWN


def admit(
    waiting: Iterable[tuple[str, JobSize]],
    in_hand: Iterable[JobSize],
    *,
    max_bytes: int,
    items_per_second: float,
) -> list[str]:
    """The jobs to take now, in the order of `waiting`.

    An idle worker takes one whatever it weighs. The order is kept: a large job is not overtaken for ever.
    """
    size, items = _total(in_hand)
    max_items = _most_items(items_per_second)
    taken: list[str] = []
    for job, weight in waiting:
        if (size or taken) and (size + weight.bytes > max_bytes or items + weight.items > max_items):
            break
        taken.append(job)
        size += weight.bytes
        items += weight.items
    return taken


def full(in_hand: Iterable[JobSize], *, max_bytes: int, items_per_second: float) -> bool:
    """Whether `admit` would take nothing, whatever waits."""
    size, items = _total(in_hand)
    return size > 0 and (size >= max_bytes or items >= _most_items(items_per_second))


def _total(sizes: Iterable[JobSize]) -> tuple[int, int]:
    sizes = list(sizes)
    return sum(job.bytes for job in sizes), sum(job.items for job in sizes)


def _most_items(items_per_second: float) -> int:
    return min(max(LEAST_ITEMS, int(items_per_second * AHEAD_SECONDS)), MOST_ITEMS)
