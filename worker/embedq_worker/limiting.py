"""The limits of a model, kept together with all other workers, for the threads that call it."""

import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from embedq_core.errors import ModelUnavailable, QueueError
from embedq_core.limits import Limited, Limiter, Limits
from embedq_jobs.limits import SharedPace
from embedq_plugins.limiting import LocalLimiter
from embedq_worker.telemetry import NOBODY, ModelTelemetry

# A Redis that takes longer is away, for this purpose.
_PATIENCE_SECONDS: Final = 5.0

_Result = TypeVar("_Result")


class SharedLimiter:
    """A `Limiter` that asks Redis, through the event loop that has the connection.

    While Redis does not answer, this process keeps the limits by itself: what it has in hand is worth the risk of a
    few calls too many, and there is no more until Redis is back.
    """

    def __init__(self, limits: Limits, pace: SharedPace, telemetry: ModelTelemetry = NOBODY) -> None:
        self._limits = limits
        self._pace = pace
        self._telemetry = telemetry
        self._loop = asyncio.get_running_loop()
        self._closed = threading.Event()
        self._alone = LocalLimiter(limits, sleep=self._sleep)

    def wait(self, tokens: int) -> None:
        """As `embedq_core.limits.Limiter.wait`."""
        booked = None
        while not self._closed.is_set():
            try:
                booking = self._asked(self._pace.book(self._limits.seconds(tokens), booked))
            except (QueueError, TimeoutError):
                self._alone.wait(tokens)
                return
            if booking.wait <= 0:
                return
            booked = booking.generation
            self._sleep(booking.wait)
        raise ModelUnavailable("the worker is stopping")

    def correct(self, estimated: int, actual: int) -> None:
        """As `embedq_core.limits.Limiter.correct`."""
        seconds = self._limits.seconds(actual) - self._limits.seconds(estimated)
        if seconds:
            self._try(self._pace.shift(seconds))

    def hold(self, seconds: float) -> None:
        """As `embedq_core.limits.Limiter.hold`."""
        self._alone.hold(seconds)
        self._try(self._pace.hold(seconds))

    def close(self) -> None:
        """Let nobody wait any more."""
        self._closed.set()

    def _sleep(self, seconds: float) -> bool:
        """Wait; True where nobody waits any more."""
        began = time.monotonic()
        closed = self._closed.wait(seconds)
        self._telemetry.waited(time.monotonic() - began)
        return closed

    def _try(self, work: Coroutine[Any, Any, object]) -> None:
        try:
            self._asked(work)
        except (QueueError, TimeoutError):
            return  # it was a matter of a moment

    def _asked(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        if self._loop.is_closed():
            # A call that did not end within the grace.
            work.close()
            raise ModelUnavailable("the worker has stopped")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(_PATIENCE_SECONDS)
        except TimeoutError:
            future.cancel()
            raise


class Shared:
    """The models of a worker whose limits it shares with others, each with the limiter that it had before."""

    def __init__(self) -> None:
        self._shared: list[tuple[Limited, Limiter, SharedLimiter]] = []

    def share(self, model: object, pace: SharedPace, telemetry: ModelTelemetry = NOBODY) -> None:
        """Keep the limits of `model`, if it keeps to any, with all others that have the same Redis."""
        if isinstance(model, Limited) and isinstance(model.limits, Limits):
            limiter = SharedLimiter(model.limits, pace, telemetry)
            self._shared.append((model, model.limiter, limiter))
            model.limiter = limiter

    def close(self) -> None:
        """Let nobody wait any more, and the models be as they were."""
        for model, before, limiter in self._shared:
            limiter.close()
            model.limiter = before
        self._shared.clear()
