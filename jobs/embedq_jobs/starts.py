"""How often a worker has died with a chunk: what tells a chunk that kills from one that was handed back."""

import contextlib
import time
from collections.abc import Awaitable, Sequence
from typing import Final, NamedTuple, cast

from arq.connections import ArqRedis

from embedq_core.errors import QueueError
from embedq_jobs.errors import translated
from embedq_jobs.names import Names, parse_job_id
from embedq_jobs.summaries import CANCELLED

# As long as a run is listed after its end.
KEEP_SECONDS: Final = 30 * 24 * 3600

# One that was taken over from a worker that only stalled ends twice; what is done has no count any more.
_END: Final = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
local left = redis.call('HINCRBY', KEYS[1], ARGV[1], -1)
if left <= 0 then redis.call('HDEL', KEYS[1], ARGV[1]) end
return left
"""


class Begun(NamedTuple):
    """For each job the number of earlier attempts that never ended: a worker died with it; and those of the jobs whose
    run was cancelled.
    """

    losses: list[int]
    cancelled: list[str]


class Starts:
    """Attempts at chunks that have begun and not ended: arq's own count is of pick-ups, however they ended."""

    def __init__(self, redis: ArqRedis, names: Names, where: str) -> None:
        self._redis = redis
        self._names = names
        self._where = where
        self._end = redis.register_script(_END)

    async def begin(self, jobs: Sequence[str]) -> Begun:
        """Count an attempt at each of `jobs`, in one request. Raises RedisUnreachable."""
        runs = list(dict.fromkeys(parse_job_id(job)[0] for job in jobs))
        with translated(self._where):
            async with self._redis.pipeline(transaction=False) as pipe:
                for run, chunk in map(parse_job_id, jobs):
                    pipe.hincrby(self._names.starts(run), str(chunk), 1)
                for run in runs:
                    pipe.hexists(self._names.run(run), CANCELLED)
                for run in runs:
                    pipe.expire(self._names.starts(run), KEEP_SECONDS)
                    # From here on, the ledger of runs reckons its speed.
                    pipe.hsetnx(self._names.run(run), "began", str(time.time()))
                begun = await pipe.execute()
        cancelled = {run for run, is_so in zip(runs, begun[len(jobs) :], strict=False) if is_so}
        return Begun(
            [int(count) - 1 for count in begun[: len(jobs)]],
            [job for job in jobs if parse_job_id(job)[0] in cancelled],
        )

    async def end(self, job: str) -> None:
        """Say that an attempt has ended, however it did. Where that can't be said it counts as lost: that costs a
        detour, and loses nothing.
        """
        run, chunk = parse_job_id(job)
        with contextlib.suppress(QueueError), translated(self._where):
            await self._end(keys=[self._names.starts(run)], args=[chunk])

    async def forget(self, job: str) -> None:
        """Drop the count of a job that is done. Raises RedisUnreachable."""
        run, chunk = parse_job_id(job)
        with translated(self._where):
            await cast("Awaitable[int]", self._redis.hdel(self._names.starts(run), str(chunk)))
