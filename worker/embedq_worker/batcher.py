"""Grouping contents of many chunks into batches of exactly the model's size. State and decisions, no I/O."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# A tail shorter than a batch waits this long for company after the last arrival …
LINGER_SECONDS = 0.025
# … and never longer than this in all.
MAX_LINGER_SECONDS = 0.1
# While chunks are on their way that may bring more, it waits longer: on a busy machine they come slowly.
COMING_LINGER_SECONDS = 0.5
MAX_COMING_LINGER_SECONDS = 1.0


@dataclass(eq=False, slots=True)
class Request:
    """Contents that one chunk wants embedded. `taken` of them are in batches already."""

    contents: Sequence[str | bytes]
    taken: int = 0


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
        self._requests: deque[Request] = deque()
        self._waiting = 0
        self._first_arrival = 0.0
        self._last_arrival = 0.0
        self.coming = False
        """Whether more is known to be on its way."""

    def __len__(self) -> int:
        """How many contents wait."""
        return self._waiting

    def add(self, request: Request, now: float) -> None:
        """Take in a request that arrives at `now`; one that wants nothing is forgotten."""
        if request.taken == len(request.contents):
            return
        if not self._waiting:
            self._first_arrival = now
        self._last_arrival = now
        self._requests.append(request)
        self._waiting += len(request.contents) - request.taken

    def deadline(self) -> float | None:
        """When a tail is to be sent off short; None while nothing waits."""
        if not self._waiting:
            return None
        linger, most = (
            (COMING_LINGER_SECONDS, MAX_COMING_LINGER_SECONDS) if self.coming else (LINGER_SECONDS, MAX_LINGER_SECONDS)
        )
        return min(self._last_arrival + linger, self._first_arrival + most)

    def next_batch(self, now: float) -> list[Slice]:
        """A full batch; or the tail, if it has waited long enough; or nothing, an empty list."""
        if not self._waiting:
            return []
        whole = len(self._requests[0].contents) - self._requests[0].taken
        count = whole if self._batch_size is None else min(self._batch_size, self._waiting)
        fitting = count if self._most is None else self._fitting(count)
        # What is cut off by its weight is as full as can be.
        if self._batch_size is not None and fitting == count < self._batch_size:
            deadline = self.deadline()
            if deadline is None or now < deadline:
                return []
        return self._take(fitting, now)

    def remove(self, request: Request) -> None:
        """Forget what waits of `request`: nobody wants it any more."""
        if request in self._requests:
            self._requests.remove(request)
            self._waiting -= len(request.contents) - request.taken

    def clear(self) -> list[Request]:
        """Forget what waits, and return it."""
        requests = list(self._requests)
        self._requests.clear()
        self._waiting = 0
        return requests

    def _fitting(self, count: int) -> int:
        """How many of the first `count` contents make a batch by their weight: at least one."""
        assert self._weigh is not None  # noqa: S101 - for the type checker
        assert self._most is not None  # noqa: S101
        left, fitting = self._most, 0
        for request in self._requests:
            for place in range(request.taken, min(len(request.contents), request.taken + count - fitting)):
                left -= self._weigh(request.contents[place])
                if left < 0 and fitting:
                    return fitting
                fitting += 1
            if fitting == count:
                break
        return fitting

    def _take(self, count: int, now: float) -> list[Slice]:
        self._waiting -= count
        self._first_arrival = now
        batch = []
        while count:
            request = self._requests[0]
            stop = min(request.taken + count, len(request.contents))
            batch.append(Slice(request, request.taken, stop))
            count -= stop - request.taken
            request.taken = stop
            if stop == len(request.contents):
                self._requests.popleft()
        return batch
