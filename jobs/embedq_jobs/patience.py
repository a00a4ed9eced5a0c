"""Waiting for a Redis that is away or full, for those who can: it says so once, asks again, gives up in the end."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from embedq_core.errors import RedisFull, RedisUnreachable

FIRST_PAUSE_SECONDS: Final = 0.1
# Ctrl-C is noticed between two attempts.
LONGEST_PAUSE_SECONDS: Final = 2.0

_T = TypeVar("_T")


class Patience:
    """How long to wait for a Redis that went away or is full, at most `seconds` for each time, and whom to tell.

    What is asked may be asked twice: an answer that got lost is no proof that nothing was done. `stop` ends the
    waiting. `outages` counts how often Redis was away; one that is full has lost nothing.
    """

    def __init__(
        self,
        seconds: float,
        say: Callable[[str], None],
        stop: Callable[[], bool] = lambda: False,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.outages = 0
        self._seconds = seconds
        self._say = say
        self._stop = stop
        self._clock = clock
        self._sleep = sleep
        self._waiting_since: float | None = None
        self._away = False

    async def insist(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """What `ask` returns, asked again until Redis answers.

        Raises RedisUnreachable or RedisFull when patience is at its end.
        """
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                answer = await ask()
            except (RedisUnreachable, RedisFull) as error:
                if self._waiting_since is None:
                    self._waiting_since = self._clock()
                    if self._seconds > 0 and not self._stop():
                        what = "room" if isinstance(error, RedisFull) else "it to come back"
                        self._say(f"{error}; waiting for {what}, {self._seconds:g} s at most")
                if isinstance(error, RedisUnreachable) and not self._away:
                    self._away = True
                    self.outages += 1
                if self._stop() or self._clock() - self._waiting_since >= self._seconds:
                    raise
                await self._sleep(pause * (0.5 + random.random() / 2))  # noqa: S311 - no secret
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            else:
                if self._waiting_since is not None:
                    self._say("Redis is back: going on" if self._away else "Redis has room again: going on")
                    self._waiting_since, self._away = None, False
                return answer
