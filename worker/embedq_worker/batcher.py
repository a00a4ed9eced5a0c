"""Grouping contents of many chunks into batches of exactly the model's size. State and decisions, no I/O."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

# A tail shorter than a batch waits this long for company after the last arrival …
LINGER_SECONDS = 0.025
# … and never longer than this in all.
MAX_LINGER_SECONDS = 0.1
# While chunks are on their way that may bring more, it waits longer: on a busy machine they come slowly.
COMING_LINGER_SECONDS = 0.5
MAX_COMING_LINGER_SECONDS = 1.0

# While others wait, so many high contents go first for each one of theirs.
HIGH_FOR_ONE = 3


@dataclass(eq=False, slots=True)
class Request:
    """Contents that one chunk wants embedded. `taken` of them are in batches already; `high` go ahead of others."""

    contents: Sequence[str | bytes]
    taken: int = 0
    high: bool = False

    @property
    def waiting(self) -> int:
        """How many of them are in no batch yet."""
        return len(self.contents) - self.taken


class Slice(NamedTuple):
    """The part of a request that stands in one batch: contents `start` to `stop`."""

    request: Request
    start: int
    stop: int

    @property
    def contents(self) -> Sequence[str | bytes]:
        """The contents themselves."""
        return self.request.contents[self.start : self.stop]


class Batcher:
    """Requests in the order of their arrival, cut into batches across their borders.

    High requests come first, and others fill a batch that they leave short. But while both wait, one content in four is
    of the others: for every three that pass them they are owed one, and a batch is theirs as soon as they are owed it.

    With `batch_size` None, the contents of one request make one batch. Where `weigh` and `most` are given, no batch
    weighs more, but where one content does. Times are seconds of any one clock, passed in by the caller.
    """

    def __init__(
        self,
        batch_size: int | None,
        weigh: Callable[[str | bytes], int] | None = None,
        most: int | None = None,
    ) -> None:
        self._batch_size = batch_size
        self._weigh = weigh
        self._most = most
        self._high: deque[Request] = deque()
        self._others: deque[Request] = deque()
        self._waiting_high = 0
        self._waiting_others = 0
        self._owed = 0.0
        self._first_arrival = 0.0
        self._last_arrival = 0.0
        self.coming = False
        """Whether more is known to be on its way."""

    def __len__(self) -> int:
        """How many contents wait."""
        return self._waiting_high + self._waiting_others

    def add(self, request: Request, now: float) -> None:
        """Take in a request that arrives at `now`; one that wants nothing is forgotten."""
        if request.taken == len(request.contents):
            return
        if not len(self):
            self._first_arrival = now
        self._last_arrival = now
        (self._high if request.high else self._others).append(request)
        self._count(request, request.waiting)

    def deadline(self) -> float | None:
        """When a tail is to be sent off short; None while nothing waits."""
        if not len(self):
            return None
        linger, most = (
            (COMING_LINGER_SECONDS, MAX_COMING_LINGER_SECONDS) if self.coming else (LINGER_SECONDS, MAX_LINGER_SECONDS)
        )
        return min(self._last_arrival + linger, self._first_arrival + most)

    def next_batch(self, now: float) -> list[Slice]:
        """A full batch; or the tail, if it has waited long enough; or nothing, an empty list."""
        if not len(self):
            return []
        ordered = self._ordered()
        count = ordered[0][0].waiting if self._batch_size is None else min(self._batch_size, len(self))
        fitting = count if self._most is None else self._fitting(count, ordered)
        # What is cut off by its weight is as full as can be.
        if self._batch_size is not None and fitting == count < self._batch_size:
            deadline = self.deadline()
            if deadline is None or now < deadline:
                return []
        return self._take(fitting, ordered, now)

    def remove(self, request: Request) -> None:
        """Forget what waits of `request`: nobody wants it any more."""
        requests = self._high if request.high else self._others
        if request in requests:
            requests.remove(request)
            self._count(request, -request.waiting)

    def clear(self) -> list[Request]:
        """Forget what waits, and return it."""
        requests = [*self._high, *self._others]
        for some in (self._high, self._others):
            some.clear()
        self._waiting_high = self._waiting_others = 0
        return requests

    def _count(self, request: Request, contents: int) -> None:
        if request.high:
            self._waiting_high += contents
        else:
            self._waiting_others += contents

    def _ordered(self) -> list[deque[Request]]:
        """Those whose turn it is, and then those that may fill the batch; none of them empty."""
        if not (self._high and self._others):
            return [self._high or self._others]
        first = self._others[0].waiting
        theirs = first if self._batch_size is None else min(self._batch_size, self._waiting_others)
        return [self._others, self._high] if self._owed >= theirs else [self._high, self._others]

    def _fitting(self, count: int, ordered: list[deque[Request]]) -> int:
        """How many of the first `count` contents make a batch by their weight: at least one."""
        assert self._weigh is not None  # noqa: S101 - for the type checker
        assert self._most is not None  # noqa: S101
        left, fitting = self._most, 0
        for request in chain(*ordered):
            for place in range(request.taken, min(len(request.contents), request.taken + count - fitting)):
                left -= self._weigh(request.contents[place])
                if left < 0 and fitting:
                    return fitting
                fitting += 1
            if fitting == count:
                break
        return fitting

    def _take(self, count: int, ordered: list[deque[Request]], now: float) -> list[Slice]:
        self._first_arrival = now
        batch = []
        for requests in ordered:
            while count and requests:
                request = requests[0]
                stop = min(request.taken + count, len(request.contents))
                batch.append(Slice(request, request.taken, stop))
                count -= stop - request.taken
                self._count(request, request.taken - stop)
                request.taken = stop
                if stop == len(request.contents):
                    requests.popleft()
        self._reckon(batch)
        return batch

    def _reckon(self, batch: list[Slice]) -> None:
        """What the others are owed after a batch: nothing where none of them wait."""
        high = sum(piece.stop - piece.start for piece in batch if piece.request.high)
        others = sum(piece.stop - piece.start for piece in batch) - high
        self._owed = max(self._owed + high / HIGH_FOR_ONE - others, 0.0) if self._waiting_others else 0.0
