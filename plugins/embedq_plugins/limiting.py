"""The limits of a model, kept within one process: where there is no queue, or it can't be reached."""

import threading
import time
from collections.abc import Callable

from embedq_core.errors import ModelUnavailable
from embedq_core.limits import Limits, Pace


class LocalLimiter:
    """Keeps `limits` for the threads of this process. `clock` gives seconds; `sleep` waits, and returns True where
    nobody waits for the call any more.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], bool | None] = time.sleep,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._pace = Pace()

    def wait(self, tokens: int) -> None:
        """As `embedq_core.limits.Limiter.wait`."""
        booked = None
        while True:
            with self._lock:
                self._pace, booking = self._pace.book(self._limits.seconds(tokens), booked, self._clock())
            if booking.wait <= 0:
                return
            if self._sleep(booking.wait):
                raise ModelUnavailable("the worker is stopping")
            booked = booking.generation

    def correct(self, estimated: int, actual: int) -> None:
        """As `embedq_core.limits.Limiter.correct`."""
        with self._lock:
            self._pace = self._pace.shifted(self._limits.seconds(actual) - self._limits.seconds(estimated))

    def hold(self, seconds: float) -> None:
        """As `embedq_core.limits.Limiter.hold`."""
        with self._lock:
            self._pace = self._pace.hold(seconds, self._clock())
