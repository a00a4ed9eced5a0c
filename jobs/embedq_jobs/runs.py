"""Runs: one submission each, and how far it has come. Progress is kept by chunk, so that a chunk that ran
twice is counted once.
"""

import contextlib
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec
from arq.connections import ArqRedis

from embedq_core.counts import Counts
from embedq_core.errors import RunMissing
from embedq_core.text import suggestion
from embedq_jobs.errors import translated
from embedq_jobs.names import Names, job_id

# Finished runs are listed for this long.
KEEP_SECONDS: Final = 30 * 24 * 3600

# Items done are counted in spans of this length, kept for a while, for the rate that `status` shows.
RATE_SECONDS: Final = 10
RATE_KEEP_SECONDS: Final = 3600

# A producer says at least this often that it is alive; later its run counts as interrupted.
BEAT_SECONDS: Final = 60

# One that has been silent for so long will not come back: it would have lost patience with Redis long ago.
ABANDONED_SECONDS: Final = 24 * 3600

TIDY_AT_ONCE: Final = 500

_FINISH: Final = """
local total = redis.call('HGET', run, 'closed')
if total and tonumber(total) <= redis.call('HLEN', chunks) and redis.call('HSETNX', run, 'finished', now) == 1 then
    redis.call('EXPIRE', run, keep)
    redis.call('EXPIRE', chunks, keep)
end
return 1
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

# HDEL comes first: when its memory is full, Redis refuses a script whose first write needs more of it, and only
# chunks that end make room.
_RECORD: Final = (
    _COUNT
    + """
local chunks, load, run, done, partial = unpack(KEYS)
local number, counts, job, items, now, keep, rate_keep = unpack(ARGV)
local size = redis.call('HGET', load, job)
if size then
    local bytes, queued = string.match(size, '^(%d+),(%d+)$')
    if bytes then
        redis.call('HDEL', load, job)
        redis.call('HINCRBY', load, 'bytes', -bytes)
        redis.call('HINCRBY', load, 'items', -queued)
    end
end
if redis.call('HSET', chunks, number, counts) == 1 then
    count(partial, number, items, done, rate_keep)
    redis.call('HDEL', partial, number)
end
"""
    + _FINISH
)

_CLOSE: Final = (
    """
local chunks, run = unpack(KEYS)
local total, now, keep, skipped, duplicates, outcome = unpack(ARGV)
redis.call('HSET', run, 'closed', total, 'skipped', skipped, 'duplicates', duplicates, 'outcome', outcome)
"""
    + _FINISH
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


@dataclass(frozen=True, slots=True)
class Run:
    """A submission: what was sent where, and when (seconds since the epoch)."""

    id: str
    collection: str
    model_id: str
    source: str
    started: float


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run and what has come of it so far.

    `items` were accepted, `skipped` rows could not be read, `duplicates` are rows that a later row with the
    same id replaced. `closed` says that the whole source was sent.
    """

    run: Run
    items: int
    bytes: int
    chunks: int
    chunks_done: int
    skipped: int
    duplicates: int
    closed: bool
    outcome: str
    beat: float
    finished: float | None
    counts: Counts

    @property
    def complete(self) -> bool:
        """Everything that was accepted is stored or dead, and nothing more will come."""
        return self.closed and self.chunks_done >= self.chunks

    @property
    def interrupted(self) -> bool:
        """The producer ended, or was ended, before it had sent all."""
        return self.outcome == "interrupted" or (not self.closed and time.time() - self.beat > BEAT_SECONDS)

    @property
    def state(self) -> str:
        """'queued', 'in_progress', 'complete' or 'interrupted'."""
        if self.interrupted:
            return "interrupted"
        if self.complete:
            return "complete"
        return "in_progress" if self.chunks_done else "queued"

    @property
    def settled(self) -> bool:
        """Nothing more will change by itself: complete, or interrupted with nothing left in the queue."""
        return self.complete or (self.interrupted and self.chunks_done >= self.chunks)

    @property
    def seconds(self) -> float:
        """How long the run took, or has taken so far."""
        return (self.finished or time.time()) - self.run.started


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
            "beat": time.time(),
        }
        with translated(self._where):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(self._names.run(run.id), mapping=dict(entry))
                pipe.zadd(self._names.runs, {run.id: run.started})
                await pipe.execute()

    async def beat(self, run: str) -> None:
        """Say that the producer of a run is alive, though it sends nothing just now."""
        with translated(self._where):
            await cast("Awaitable[int]", self._redis.hset(self._names.run(run), "beat", str(time.time())))

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
        return _summary(run, {key.decode(): value.decode() for key, value in fields.items()}, parts, partial)

    async def latest(self, count: int) -> list[RunSummary]:
        """The latest runs, newest first."""
        summaries: list[RunSummary] = []
        for run in await self._ids():
            if len(summaries) == count:
                break
            with contextlib.suppress(RunMissing):  # its time was up
                summaries.append(await self.summary(run))
        return summaries

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


def _summary(run: str, fields: Mapping[str, str], parts: list[bytes], partial: list[bytes]) -> RunSummary:
    begun = [value.partition(b":")[2] for value in partial]
    counts = Counts.total(msgspec.json.decode(part, type=Counts) for part in (*parts, *begun))
    return RunSummary(
        run=Run(run, fields["collection"], fields["model"], fields["source"], float(fields["started"])),
        items=int(fields.get("items", 0)),
        bytes=int(fields.get("bytes", 0)),
        chunks=int(fields.get("chunks", 0)),
        chunks_done=len(parts),
        skipped=int(fields.get("skipped", 0)),
        duplicates=int(fields.get("duplicates", 0)),
        closed="closed" in fields,
        outcome=fields.get("outcome", ""),
        beat=float(fields.get("beat", 0)),
        finished=float(fields["finished"]) if "finished" in fields else None,
        counts=counts,
    )
