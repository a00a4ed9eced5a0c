"""Which waiting jobs a worker takes in hand: enough to keep the model busy, no more than fits in memory.

High jobs come first. But each priority has a share that the other can't take: a high job is not kept waiting by a
backfill that fills the worker, nor do high jobs that keep coming bring the backfill to a stand.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from embedq_core.priority import SHARE

# Work in hand beyond what the model does in this time only keeps other workers from it.
AHEAD_SECONDS: Final = 2.0

# Fewer than two chunks in hand would leave the model idle while one is looked up or committed.
LEAST_ITEMS: Final = 4096

# And more than three transactions of the store keep nothing busy: they only take memory, vectors and all.
MOST_ITEMS: Final = 98_304


# Many, since jobs may be of one item each.
MOST_JOBS: Final = 512


@dataclass(frozen=True, slots=True)
class JobSize:
    """What a job weighs, and whether it goes ahead of others."""

    bytes: int
    items: int
    high: bool = False


# Of a job whose size is unknown: a full chunk.
UNKNOWN: Final = JobSize(4 * 1024 * 1024, 2048)


def parse_size(value: bytes | None) -> JobSize:
    """The size as the queue's ledger has it; UNKNOWN for what is no size."""
    size, _, items = (value or b"").partition(b",")
    return JobSize(int(size), int(items)) if size.isdigit() and items.isdigit() else UNKNOWN


def admit(
    waiting: Sequence[tuple[str, JobSize]],
    in_hand: Iterable[JobSize],
    *,
    max_bytes: int,
    items_per_second: float,
) -> list[str]:
    """The jobs to take now: the high ones, then the others, each in the order of `waiting`.

    Of each priority a worker that has none in hand takes one whatever it weighs. Within a priority the order is kept:
    a large job is not overtaken for ever.
    """
    most = _most(max_bytes, items_per_second)
    sizes = list(in_hand)
    everything = _total(sizes)
    taken: list[str] = []
    for high in (True, False):
        own = _total(size for size in sizes if size.high == high)
        for job, weight in waiting:
            if weight.high != high:
                continue
            more, own_more = everything.plus(weight), own.plus(weight)
            if own.bytes and not (more.within(most) or own_more.within(most.part(SHARE))):
                break
            taken.append(job)
            everything, own = more, own_more
    return taken


def full(in_hand: Iterable[JobSize], *, high: bool, max_bytes: int, items_per_second: float) -> bool:
    """Whether `admit` would take nothing of this priority, whatever waits."""
    most = _most(max_bytes, items_per_second)
    sizes = list(in_hand)
    own = _total(size for size in sizes if size.high == high)
    return own.bytes > 0 and not _total(sizes).below(most) and not own.below(most.part(SHARE))


class _Load(NamedTuple):
    """What some jobs weigh together, or may weigh."""

    bytes: float
    items: float
    jobs: float

    def plus(self, job: JobSize) -> "_Load":
        return _Load(self.bytes + job.bytes, self.items + job.items, self.jobs + 1)

    def part(self, share: float) -> "_Load":
        return _Load(self.bytes * share, self.items * share, self.jobs * share)

    def within(self, most: "_Load") -> bool:
        return self.bytes <= most.bytes and self.items <= most.items and self.jobs <= most.jobs

    def below(self, most: "_Load") -> bool:
        return self.bytes < most.bytes and self.items < most.items and self.jobs < most.jobs


def _total(jobs: Iterable[JobSize]) -> _Load:
    sizes = list(jobs)
    return _Load(sum(job.bytes for job in sizes), sum(job.items for job in sizes), len(sizes))


def _most(max_bytes: int, items_per_second: float) -> _Load:
    items = min(max(LEAST_ITEMS, int(items_per_second * AHEAD_SECONDS)), MOST_ITEMS)
    return _Load(max_bytes, items, MOST_JOBS)
