"""The ledger of runs: one submission each, and how far it has come. Progress is kept by chunk, so that a chunk that
ran twice is counted once.
"""

import contextlib
import time
from collections.abc import Awaitable, Mapping
from typing import Any, Final, cast

import msgspec
from arq.connections import ArqRedis

from embedq_core.counts import Counts
from embedq_core.errors import RunMissing
from embedq_core.text import suggestion
from embedq_jobs.errors import translated
from embedq_jobs.loads import TAKE_OFF
from embedq_jobs.names import Names, job_id
from embedq_jobs.notes import note_run
from embedq_jobs.rates import RATE_KEEP_SECONDS, RATE_SECONDS
from embedq_jobs.summaries import CANCELLED, Run, RunSummary, summary_of

# Finished runs are listed for this long.
KEEP_SECONDS: Final = 30 * 24 * 3600

# One that has been silent for so long will not come back: it would have lost patience with Redis long ago.
ABANDONED_SECONDS: Final = 24 * 3600

TIDY_AT_ONCE: Final = 500

# Runs that are looked at in one request when some are looked for, and how many that go on are shown at most.
_LOOK_AT_ONCE: Final = 200
_MOST_GOING_ON: Final = 20

FINISH: Final = """
local total = redis.call('HGET', run, 'closed')
if total and tonumber(total) <= redis.call('HLEN', chunks) and redis.call('HSETNX', run, 'finished', now) == 1 then
    redis.call('EXPIRE', run, keep)
    redis.call('EXPIRE', chunks, keep)
end
"""

# Items of a chunk that is not yet done count towards the speed as they come, and once.
_COUNT: Final = """
local function count(partial, number, items, done, rate_keep)
    local before = redis.call('HGET', partial, number)
    local new = items - (before and tonumber(string.match(before, '^%d+')) or 0)
    if new > 0 then
        redis.call('INCRBY', done, new)
        redis.call('EXPIRE', done, rate_keep)
    end
end
"""

_PROGRESS: Final = (
    _COUNT
    + """
local chunks, partial, done = unpack(KEYS)
local number, counts, items, keep, rate_keep = unpack(ARGV)
if redis.call('HEXISTS', chunks, number) == 1 then return 0 end
count(partial, number, items, done, rate_keep)
redis.call('HSET', partial, number, items .. ':' .. counts)
redis.call('EXPIRE', partial, keep)
return 1
"""
)

# What takes off comes first: when its memory is full, Redis refuses a script whose first write needs more of it, and
# only chunks that end make room.
_RECORD: Final = (
    TAKE_OFF
    + _COUNT
    + """
local chunks, load, run, done, partial = unpack(KEYS)
local number, counts, job, items, now, keep, rate_keep = unpack(ARGV)
take_off(load, job)
if redis.call('HSET', chunks, number, counts) == 1 then
    count(partial, number, items, done, rate_keep)
    redis.call('HDEL', partial, number)
end
-- What belongs to no run is ended by none.
if redis.call('EXISTS', run) == 0 then redis.call('EXPIRE', chunks, keep) end
"""
    + FINISH
)

# One that was cancelled is closed with what Redis has of it: its producer may have sent what Redis has lost, and is not
# to send again.
_CLOSE: Final = (
    """
local chunks, run = unpack(KEYS)
local total, now, keep, skipped, duplicates, outcome = unpack(ARGV)
redis.call('HSET', run, 'skipped', skipped, 'duplicates', duplicates)
if redis.call('HEXISTS', run, 'cancelled') == 0 then
    redis.call('HSET', run, 'closed', total, 'outcome', outcome)
end
"""
    + FINISH
)


# Of a run whose producer died, once all its chunks are done, the keys go as those of a finished run do.
_ABANDON: Final = """
local chunks, run = unpack(KEYS)
local before, keep = unpack(ARGV)
local closed, beat, queued = unpack(redis.call('HMGET', run, 'closed', 'beat', 'chunks'))
if closed or redis.call('TTL', run) ~= -1 or tonumber(beat or 0) >= tonumber(before) then return 0 end
if redis.call('HLEN', chunks) < tonumber(queued or 0) then return 0 end
redis.call('EXPIRE', run, keep)
redis.call('EXPIRE', chunks, keep)
return 1
"""


class Runs:
    """The ledger of runs."""

    def __init__(self, redis: ArqRedis, names: Names, where: str) -> None:
        self._redis = redis
        self._names = names
        self._where = where
        self._record = redis.register_script(_RECORD)
        self._progress = redis.register_script(_PROGRESS)
        self._close = redis.register_script(_CLOSE)
        self._abandon = redis.register_script(_ABANDON)

    async def open(self, run: Run) -> None:
        """Enter a run that begins."""
        entry: Mapping[Any, Any] = {
            "collection": run.collection,
            "model": run.model_id,
            "source": run.source,
            "started": run.started,
            "priority": run.priority.value,
            "beat": time.time(),
        }
        if run.batch_size is not None:
            entry = {**entry, "batch_size": run.batch_size}
        with translated(self._where):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(self._names.run(run.id), mapping=dict(entry))
                pipe.zadd(self._names.runs, {run.id: run.started})
                await pipe.execute()
        note_run(run.id)

    async def beat(self, run: str) -> bool:
        """Say that the producer of a run is alive, though it sends nothing just now. False where it need not go on:
        the run was cancelled.
        """
        with translated(self._where):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(self._names.run(run), "beat", str(time.time()))
                pipe.hexists(self._names.run(run), CANCELLED)
                _, cancelled = await pipe.execute()
        return not cancelled

    async def close(self, run: str, chunks: int, *, skipped: int, duplicates: int, interrupted: bool = False) -> None:
        """Say that all `chunks` of a run are queued and that no more will come."""
        outcome = "interrupted" if interrupted else "sent"
        with translated(self._where):
            await self._close(
                keys=[self._names.chunks(run), self._names.run(run)],
                args=[chunks, time.time(), KEEP_SECONDS, skipped, duplicates, outcome],
            )

    async def record(self, run: str, chunk: int, model_id: str, counts: Counts) -> None:
        """Enter what a chunk came to, and take it off the load of its queue. Doing so twice is doing it once."""
        names, now = self._names, time.time()
        with translated(self._where):
            await self._record(
                keys=[
                    names.chunks(run),
                    names.load(model_id),
                    names.run(run),
                    names.done(int(now) // RATE_SECONDS),
                    names.partial(run),
                ],
                args=[
                    chunk,
                    msgspec.json.encode(counts),
                    job_id(run, chunk),
                    counts.done,
                    now,
                    KEEP_SECONDS,
                    RATE_KEEP_SECONDS,
                ],
            )

    async def progress(self, run: str, chunk: int, counts: Counts) -> None:
        """Say how far a chunk has come that is not yet done."""
        names = self._names
        with translated(self._where):
            await self._progress(
                keys=[
                    names.chunks(run),
                    names.partial(run),
                    names.done(int(time.time()) // RATE_SECONDS),
                ],
                args=[chunk, msgspec.json.encode(counts), counts.done, KEEP_SECONDS, RATE_KEEP_SECONDS],
            )

    async def queued(self, run: str) -> int:
        """How many chunks of a run were queued, done or not."""
        with translated(self._where):
            value = await cast("Awaitable[bytes | None]", self._redis.hget(self._names.run(run), "chunks"))
        return int(value or 0)

    async def outstanding(self, run: str) -> int:
        """How many chunks of a run were queued and are not done; none where the run is not known (any more)."""
        with translated(self._where):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hget(self._names.run(run), "chunks")
                pipe.hlen(self._names.chunks(run))
                queued, done = await pipe.execute()
        return max(int(queued or 0) - int(done), 0)

    async def done(self, run: str, chunks: list[int]) -> bool:
        """Whether all these chunks are done."""
        with translated(self._where):
            values = await cast(
                "Awaitable[list[bytes | None]]",
                self._redis.hmget(self._names.chunks(run), [str(number) for number in chunks]),
            )
        return all(value is not None for value in values)

    async def summary(self, run: str) -> RunSummary:
        """A run as it stands now. Raises RunMissing, with close ids."""
        with translated(self._where):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hgetall(self._names.run(run))
                pipe.hvals(self._names.chunks(run))
                pipe.hvals(self._names.partial(run))
                fields, parts, partial = await pipe.execute()
        if b"started" not in fields:
            raise RunMissing(
                f"there is no run {run!r}.{suggestion(run, await self._ids())} 'embedq runs' lists the latest"
            )
        return summary_of(run, {key.decode(): value.decode() for key, value in fields.items()}, parts, partial)

    async def latest(
        self, count: int, *, collection: str | None = None, model_id: str | None = None, state: str | None = None
    ) -> list[RunSummary]:
        """The latest runs, newest first; only those of a collection, of a model, or in a state, where one is named."""
        wanted = {"collection": collection, "model": model_id}
        summaries: list[RunSummary] = []
        ids = await self._ids()
        for start in range(0, len(ids), _LOOK_AT_ONCE):
            some = ids[start : start + _LOOK_AT_ONCE]
            for run, fields in zip(some, await self._fields(some, list(wanted)), strict=True):
                if len(summaries) == count:
                    return summaries
                if any(value not in (None, found) for value, found in zip(wanted.values(), fields, strict=True)):
                    continue
                with contextlib.suppress(RunMissing):  # its time was up
                    summary = await self.summary(run)
                    if state in (None, summary.state):
                        summaries.append(summary)
        return summaries

    async def overview(self, count: int, known: Mapping[str, RunSummary] | None = None) -> list[RunSummary]:
        """Runs that are not settled, of the latest two hundred, then the latest that are: `count` in all, or more of
        the former. Newest first.

        Those of `known` that are finished are not read again: who looks every second has them from the last time.
        """
        ids = (await self._ids())[:_LOOK_AT_ONCE]
        going_on, settled = list[RunSummary](), list[RunSummary]()
        for run, (finished,) in zip(ids, await self._fields(ids, ["finished"]), strict=True):
            if len(going_on) == _MOST_GOING_ON or (finished is not None and len(going_on) + len(settled) >= count):
                continue
            summary = None if known is None or finished is None else known.get(run)
            if summary is None or summary.finished is None:
                try:
                    summary = await self.summary(run)
                except RunMissing:  # its time was up
                    continue
            (settled if summary.settled else going_on).append(summary)
        return going_on + settled[: max(count - len(going_on), 0)]

    async def _fields(self, runs: list[str], names: list[str]) -> list[list[str | None]]:
        """Some fields of each of `runs`, in one request."""
        if not runs:
            return []
        with translated(self._where):
            async with self._redis.pipeline(transaction=False) as pipe:
                for run in runs:
                    pipe.hmget(self._names.run(run), names)
                found = await pipe.execute()
        return [[None if value is None else value.decode() for value in values] for values in found]

    async def tidy(self, now: float | None = None) -> None:
        """Let go of what nobody will finish: runs whose producers died and whose chunks are done get the time
        that finished runs have, and runs whose time is up are listed no more.
        """
        before = (time.time() if now is None else now) - ABANDONED_SECONDS
        ids = await self._ids()
        for start in range(0, len(ids), TIDY_AT_ONCE):
            some = ids[start : start + TIDY_AT_ONCE]
            with translated(self._where):
                async with self._redis.pipeline(transaction=False) as pipe:
                    for run in some:
                        pipe.hmget(self._names.run(run), ["started", "closed", "beat"])
                    found = await pipe.execute()
                for run, (started, closed, beat) in zip(some, found, strict=True):
                    if started is None:
                        await self._redis.zrem(self._names.runs, run)
                    elif closed is None and float(beat or 0) < before:
                        keys = [self._names.chunks(run), self._names.run(run)]
                        await self._abandon(keys=keys, args=[before, KEEP_SECONDS])

    async def _ids(self) -> list[str]:
        with translated(self._where):
            members = await self._redis.zrange(self._names.runs, 0, -1, desc=True)
        return [member.decode() for member in members]
