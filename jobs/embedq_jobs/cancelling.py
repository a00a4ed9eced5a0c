"""Cancelling a run: what of it waits is taken out of the queue, and nothing of it is queued again. What a worker has
in hand is left to it: it is being paid for.
"""

import re
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from enum import IntEnum
from itertools import groupby
from typing import Final, NamedTuple, cast

from arq.connections import ArqRedis

from embedq_jobs.errors import translated
from embedq_jobs.forwarding import MOVED_FIELD
from embedq_jobs.loads import TAKE_OFF
from embedq_jobs.names import Names, lease_key, parse_job_id, payload_key, tries_key
from embedq_jobs.runs import FINISH, KEEP_SECONDS

# Jobs that one script takes out: a millisecond or two, for which nobody else is served.
AT_ONCE: Final = 200
# Entries of a queue's ledger that one request looks through.
LOOK_AT: Final = 1000

# From here on `Queue.place` takes nothing of the run: so what it holds now is all that it will ever hold.
# PERSIST comes first: a Redis whose memory is full refuses a script whose first write needs more of it, and who
# cancels may do so to make room.
_MARK: Final = (
    """
local chunks, run = unpack(KEYS)
local now, keep = unpack(ARGV)
local started, finished, cancelled = unpack(redis.call('HMGET', run, 'started', 'finished', 'cancelled'))
if cancelled then return 2 end
if finished or not started then return 0 end
redis.call('PERSIST', run)
redis.call('HSET', run, 'cancelled', now)
if redis.call('HSETNX', run, 'closed', redis.call('HGET', run, 'chunks') or 0) == 1 then
    redis.call('HSET', run, 'outcome', 'cancelled')
end
"""
    + FINISH
    + "return 1"
)

# What of a chunk was done before counts as it was done: it is in the database. Of a chunk that has ended, only what is
# left is cleared away: a worker that stalled for longer than its lease may still hand it back.
# Workers of earlier versions watch the lease while they pick a job up: it is touched, so that this fails, and they find
# no payload gone.
_REMOVE: Final = (
    TAKE_OFF
    + """
local queue, load, chunks, run, partial, starts = unpack(KEYS, 1, 6)
local now, keep = unpack(ARGV, 1, 2)
local removed, cancelled = 0, 0
for index = 3, #ARGV do
    local job = ARGV[index]
    local number = string.match(job, '%d+$')
    local payload, lease, tries = unpack(KEYS, 3 * index - 2, 3 * index)
    if redis.call('EXISTS', lease) == 0 then
        redis.call('ZREM', queue, job)
        local items = take_off(load, job)
        if redis.call('HEXISTS', chunks, number) == 0 then
            local counts, done = {}, 0
            local before = redis.call('HGET', partial, number)
            if before then
                done = tonumber(string.match(before, '^%d+'))
                counts = cjson.decode(string.match(before, ':(.*)$'))
            end
            counts.cancelled = math.max((items or 0) - done, 0)
            redis.call('HSET', chunks, number, cjson.encode(counts))
            removed = removed + 1
            cancelled = cancelled + counts.cancelled
        end
        redis.call('HDEL', partial, number)
        redis.call('HDEL', starts, number)
        redis.call('SET', lease, '0', 'PX', 1)
        redis.call('DEL', lease, payload, tries)
    end
end
"""
    + FINISH
    + "return {removed, cancelled}"
)


class Marked(IntEnum):
    """What became of a run that was to be cancelled, as the script answers."""

    over = 0
    """It was complete: it stays so."""
    now = 1
    before = 2
    """Somebody had cancelled it."""


class Removed(NamedTuple):
    """How many chunks were taken out of the queue, and how many of their items had not been worked off."""

    chunks: int
    items: int


class Cancelling:
    """Cancels runs, each job in one step against whoever picks it up."""

    def __init__(self, redis: ArqRedis, names: Names, where: str) -> None:
        self._redis = redis
        self._names = names
        self._where = where
        self._mark = redis.register_script(_MARK)
        self._remove = redis.register_script(_REMOVE)

    async def cancel(self, run: str, model_id: str) -> tuple[Marked, Removed]:
        """Cancel a run, whose chunks are in the queue of a model; doing so again is no harm, and takes out what was
        handed back since. A run that is complete stays as it is. Raises RedisUnreachable.
        """
        with translated(self._where):
            keys = [self._names.chunks(run), self._names.run(run)]
            marked = Marked(await self._mark(keys=keys, args=[time.time(), KEEP_SECONDS]))
        if marked is Marked.over:
            return marked, Removed(0, 0)
        removed = Removed(0, 0)
        for each in [model_id, *await self._handed_on_to(run)]:
            async for jobs in self._jobs(run, each):
                more = await self.remove(each, jobs)
                removed = Removed(removed.chunks + more.chunks, removed.items + more.items)
        return marked, removed

    async def remove(self, model_id: str, jobs: Sequence[str]) -> Removed:
        """Take those of `jobs`, of runs that are cancelled, out of a queue that nobody has in hand, and enter that in
        the ledger. Raises RedisUnreachable.
        """
        names, removed, items = self._names, 0, 0
        for run, some in _by_run(jobs):
            keys = [
                names.queue(model_id),
                names.load(model_id),
                names.chunks(run),
                names.run(run),
                names.partial(run),
                names.starts(run),
            ]
            for job in some:
                keys += [payload_key(job), lease_key(job), tries_key(job)]
            with translated(self._where):
                gone, cancelled = await self._remove(keys=keys, args=[time.time(), KEEP_SECONDS, *some])
            removed, items = removed + gone, items + cancelled
        return Removed(removed, items)

    async def _handed_on_to(self, run: str) -> list[str]:
        """The models to whose queues chunks of a run were handed on, since their collection has got them."""
        with translated(self._where):
            fields = await cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(self._names.run(run)))
        prefix = MOVED_FIELD.encode()
        return sorted({value.decode() for field, value in fields.items() if field.startswith(prefix)})

    async def _jobs(self, run: str, model_id: str) -> AsyncIterator[list[str]]:
        """The jobs of a run that are not done, some at a time: each of them is in the ledger of its queue."""
        pattern, cursor = re.sub(r"([*?\[\]\\^])", r"\\\1", run) + ":*", 0
        while True:
            with translated(self._where):
                cursor, found = await self._redis.hscan(
                    self._names.load(model_id), cursor, match=pattern, count=LOOK_AT
                )
            yield [job.decode() for job in found]
            if not cursor:
                return


def _by_run(jobs: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The jobs of each run, no more at a time than one script takes; ids that are none of ours are left out."""

    def run_of(job: str) -> str:
        return parse_job_id(job)[0]

    ours = (job for job in jobs if parse_job_id(job)[1] >= 0)
    for run, group in groupby(sorted(ours, key=run_of), key=run_of):
        some = list(group)
        for start in range(0, len(some), AT_ONCE):
            yield run, some[start : start + AT_ONCE]
