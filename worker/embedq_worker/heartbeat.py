"""A worker's signs of life: what it says of itself every few seconds, until it says goodbye."""

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, cast

import redis.exceptions

from embedq_jobs import Queue

HEARTBEAT_SECONDS: Final = 5.0
TIDY_SECONDS: Final = 600.0
GOODBYE_SECONDS: Final = 2.0


class Heartbeat:
    """Enters the `report` of a worker under its `name`, and tidies up now and then what the dead have left."""

    def __init__(self, queue: Queue, name: str, report: Callable[[], Mapping[str, object]]) -> None:
        self._queue = queue
        self._name = name
        self._report = report

    async def beat_forever(self) -> None:
        """Report again and again. A Redis that is away is no reason to stop."""
        tidied = -math.inf
        while True:
            with contextlib.suppress(Exception):
                report = json.dumps(self._report())
                workers = self._queue.names.workers
                await cast("Awaitable[int]", self._queue.redis.hset(workers, self._name, report))
                if time.monotonic() - tidied >= TIDY_SECONDS:
                    await self._queue.tidy()
                    tidied = time.monotonic()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def say_goodbye(self) -> None:
        """Take the report back, if Redis is there to hear it."""
        with contextlib.suppress(redis.exceptions.RedisError, OSError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await cast("Awaitable[int]", self._queue.redis.hdel(self._queue.names.workers, self._name))
