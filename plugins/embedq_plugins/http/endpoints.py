"""Several endpoints of one model: who gets the next request, and who is left out for a while."""

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0


@dataclass(slots=True)
class _State:
    """What is known of an endpoint. `failures` are those since its last success."""

    in_flight: int = 0
    served: int = 0
    failures: int = 0
    out_until: float = 0.0


class Endpoints:
    """The endpoints of a model, by URL. Threads share it; `clock` gives seconds."""

    def __init__(self, urls: Collection[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._states = {url: _State() for url in urls}
        self._clock = clock
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._states)

    @contextmanager
    def chosen(self, tried: Collection[str]) -> Iterator[str | None]:
        """An endpoint for a request that those in `tried` have failed, for the time of the block; None for none.

        It is the one with the fewest requests in flight. One that failed is left out for a while; then a single
        request tries it. A request that has been nowhere yet goes somewhere in any case.
        """
        with self._lock:
            url = self._best(tried)
            if url is not None:
                self._states[url].in_flight += 1
        try:
            yield url
        finally:
            if url is not None:
                with self._lock:
                    self._states[url].in_flight -= 1

    def succeeded(self, url: str) -> None:
        """Say that an endpoint has answered."""
        with self._lock:
            state = self._states[url]
            state.failures, state.out_until = 0, 0.0
            state.served += 1

    def failed(self, url: str, seconds: float | None = None) -> None:
        """Leave an endpoint out: for `seconds`, or for a second, and twice as long with each failure in a row."""
        with self._lock:
            state = self._states[url]
            state.failures += 1
            pause = min(FIRST_PAUSE_SECONDS * 2 ** min(state.failures - 1, 10), LONGEST_PAUSE_SECONDS)
            state.out_until = self._clock() + (pause if seconds is None else seconds)

    def _best(self, tried: Collection[str]) -> str | None:
        now = self._clock()
        open_to = [url for url, state in self._states.items() if url not in tried and _takes_more(state, now)]
        if open_to:
            return min(open_to, key=lambda url: (self._states[url].in_flight, self._states[url].served))
        return None if tried else min(self._states, key=lambda url: self._states[url].out_until)


def _takes_more(state: _State, now: float) -> bool:
    if not state.failures:
        return True
    return state.out_until <= now and not state.in_flight
