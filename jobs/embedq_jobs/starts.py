"""How often a worker has died with a chunk: what tells a chunk that kills from one that was handed back."""

import contextlib
import secrets
import time
from collections.abc import Awaitable, Sequence
from typing import Final, NamedTuple, cast

from arq.connections import ArqRedis

from embedq_core.errors import QueueError
from embedq_jobs.errors import translated
from embedq_jobs.names import Names, lease_key, parse_job_id
from embedq_jobs.scores import HIGH_AHEAD_MS

# As long as a run is listed after its end.
KEEP_SECONDS: Final = 30 * 24 * 3600

# The lease and the count in one step. Were the count first, workers that are after the same job at the same moment
# would take each other for dead; and one that dies between the two would not be counted, were it last. Who holds the
# lease already has sent this twice.
_BEGIN: Final = """
local queue = KEYS[1]
local token, lease_ms, now_ms, ahead, began, keep = unpack(ARGV, 1, 6)
local answers = {}
for index = 1, (#KEYS - 1) / 3 do
    local lease, starts, run = unpack(KEYS, 3 * index - 1, 3 * index + 1)
    local job, chunk = unpack(ARGV, 2 * index + 5, 2 * index + 6)
    local score, holder = redis.call('ZSCORE', queue, job), redis.call('GET', lease)
    local due = score and tonumber(score)
    if due and due < 0 then due = due + ahead end
    local outcome, losses = 'TAKEN', 0
    if holder == token then
        outcome, losses = 'BEGUN', tonumber(redis.call('HGET', starts, chunk) or 1) - 1
    elseif holder or not due or due > tonumber(now_ms) then
        -- Another worker was quicker: it has it in hand, has done it, or has put it off.
    elseif redis.call('HEXISTS', run, 'cancelled') == 1 then
        outcome = 'CANCELLED'
    else
        redis.call('SET', lease, token, 'PX', lease_ms)
        outcome, losses = 'BEGUN', redis.call('HINCRBY', starts, chunk, 1) - 1
        redis.call('EXPIRE', starts, keep)
        -- From here on, the ledger of runs reckons its speed. Of a job that is none of ours there is no run.
        if redis.call('EXISTS', run) == 1 then redis.call('HSETNX', run, 'began', began) end
    end
    answers[index] = {outcome, score or '', losses}
end
return answers
"""

# One that was taken over from a worker that only stalled ends twice; what is done has no count any more.
_END: Final = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
local left = redis.call('HINCRBY', KEYS[1], ARGV[1], -1)
if left <= 0 then redis.call('HDEL', KEYS[1], ARGV[1]) end
return left
"""


class Start(NamedTuple):
    """An attempt that has begun: the `score` that the job has in its queue, and the number of earlier attempts that
    never ended, since a worker died with it.
    """

    score: int
    losses: int


class Begun(NamedTuple):
    """The attempts that have begun, and those of the jobs whose run was cancelled."""

    started: dict[str, Start]
    cancelled: list[str]


class Starts:
    """Attempts at chunks that have begun and not ended: arq's own count is of pick-ups, however they ended."""

    def __init__(self, redis: ArqRedis, names: Names, where: str) -> None:
        self._redis = redis
        self._names = names
        self._where = where
        self._begin = redis.register_script(_BEGIN)
        self._end = redis.register_script(_END)

    async def begin(self, model_id: str, jobs: Sequence[str], lease_seconds: float) -> Begun:
        """Take the leases of those of `jobs` that are due and that nobody has in hand, and count an attempt at each, in
        one step. Raises RedisUnreachable.
        """
        if not jobs:
            return Begun({}, [])
        now, keys, words = time.time(), [self._names.queue(model_id)], list[str | int]()
        for job in jobs:
            run, chunk = parse_job_id(job)
            keys += [lease_key(job), self._names.starts(run), self._names.run(run)]
            words += [job, chunk]
        lease_ms, now_ms = int(lease_seconds * 1000), int(now * 1000)
        with translated(self._where):
            answers = await self._begin(
                keys=keys,
                args=[secrets.token_hex(8), lease_ms, now_ms, HIGH_AHEAD_MS, now, KEEP_SECONDS, *words],
            )
        begun = Begun({}, [])
        for job, (outcome, score, losses) in zip(jobs, answers, strict=True):
            if outcome == b"BEGUN":
                begun.started[job] = Start(int(float(score)), int(losses))
            elif outcome == b"CANCELLED":
                begun.cancelled.append(job)
        return begun

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
