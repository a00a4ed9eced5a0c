"""How often a worker has died with a chunk: what tells a chunk that kills from one that was handed back."""

import contextlib
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Final, cast

from arq.connections import ArqRedis

from embedq_core.errors import QueueError
from embedq_jobs.errors import translated
from embedq_jobs.names import Names

# As long as a run is listed after its end.
KEEP_SECONDS: Final = 30 * 24 * 3600

_BEGIN: Final = """
local begun = redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
redis.call('EXPIRE', KEYS[1], ARGV[2])
return begun - 1
"""

# One that was taken over from a worker that only stalled ends twice; what is done has no count any more.
_END: Final = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
local left = redis.call('HINCRBY', KEYS[1], ARGV[1], -1)
if left <= 0 then redis.call('HDEL', KEYS[1], ARGV[1]) end
return left
"""


class Starts:
    """Attempts at chunks that have begun and not ended: arq's own count is of pick-ups, however they ended."""

    def __init__(self, redis: ArqRedis, names: Names, where: str) -> None:
        self._redis = redis
        self._names = names
        self._where = where
        self._begin = redis.register_script(_BEGIN)
        self._end = redis.register_script(_END)

    @asynccontextmanager
    async def counted(self, run: str, chunk: int) -> AsyncIterator[int]:
        """Count an attempt while the block runs, and give the number of those that never ended: a worker died
        with each. However the block ends, the attempt has ended. Raises RedisUnreachable.
        """
        keys = [self._names.starts(run)]
        with translated(self._where):
            lost = int(await self._begin(keys=keys, args=[chunk, KEEP_SECONDS]))
        try:
            yield lost
        finally:
            # One that can't be taken back counts as lost: that costs a detour, and loses nothing.
            with contextlib.suppress(QueueError), translated(self._where):
                await self._end(keys=keys, args=[chunk])

    async def forget(self, run: str, chunk: int) -> None:
        """Drop the count of a chunk that is done. Raises RedisUnreachable."""
        with translated(self._where):
            await cast("Awaitable[int]", self._redis.hdel(self._names.starts(run), str(chunk)))
