"""Leases: a worker says every few seconds that it still has its jobs in hand. One that dies stops saying so,
and its jobs run again elsewhere as soon as the leases are over.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import redis.exceptions
from arq.connections import ArqRedis

from embedq_jobs.names import lease_key

LEASE_SECONDS: Final = 15
RENEWALS: Final = 3

_log = logging.getLogger("embedq.worker")


class Leases:
    """The leases of one process, renewed together, some times in the `seconds` that each is good for."""

    def __init__(self, redis_pool: ArqRedis, seconds: float = LEASE_SECONDS) -> None:
        self.seconds = seconds
        self._redis = redis_pool
        self._held: set[str] = set()

    @contextmanager
    def held(self, job: str) -> Iterator[None]:
        """Keep the lease of `job` while the block runs. arq has set it, and takes it away afterwards."""
        self._held.add(job)
        try:
            yield
        finally:
            self._held.discard(job)

    async def renew_forever(self) -> None:
        """Renew all leases every few seconds. A Redis that is away is no reason to stop."""
        pause = self.seconds / RENEWALS
        while True:
            await asyncio.sleep(pause)
            # A reply that is late on one connection may come at once on another.
            with contextlib.suppress(redis.exceptions.RedisError, OSError):
                async with asyncio.timeout(pause):
                    await self.renew()

    async def renew(self) -> None:
        """Renew the leases that are held now."""
        if not self._held:
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            for job in self._held:
                # SET and not EXPIRE: a Redis that came back without its last second has lost the key itself.
                pipe.psetex(lease_key(job), int(self.seconds * 1000), b"1")
            await pipe.execute()
