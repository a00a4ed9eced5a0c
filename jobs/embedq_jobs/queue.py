"""The queue: chunks on their way to workers, one arq queue for each model."""

import hashlib
import json
import time
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Any, Final, cast

import redis.exceptions
from arq.connections import ArqRedis
from arq.jobs import serialize_job

from embedq_jobs.cancelling import Cancelling
from embedq_jobs.claims import SharedClaims
from embedq_jobs.codec import EMBED_CHUNK, Chunk, dump_job, encode_chunk
from embedq_jobs.drains import Drains
from embedq_jobs.errors import translated
from embedq_jobs.forwarding import Forwarding
from embedq_jobs.limits import SharedPace
from embedq_jobs.loads import PUT_ON
from embedq_jobs.names import Names, job_id, lease_key, payload_key
from embedq_jobs.pauses import ASIDE, ASIDE_FROM, Pause, Pausing
from embedq_jobs.rates import RATE_SECONDS, Rates
from embedq_jobs.runs import Runs
from embedq_jobs.scores import HIGH_AHEAD_MS, due_ms, high_score
from embedq_jobs.starts import Starts

# arq drops a job whose payload has expired: ten years is for ever.
EXPIRES_MS: Final = 10 * 365 * 24 * 3600 * 1000

# The report of a worker that was killed stays for so long; `status` shows it for less.
WORKER_FRESH_SECONDS: Final = 15.0
WORKER_GONE_SECONDS: Final = 600

_HEAD_JOBS: Final = 4096

# A payload is stored before its queue entry, in the same request, and lives for so long if the entry never comes.
STRAY_MS: Final = 10 * 60 * 1000

# Queue entry and ledger in one step, and the payload that stands there already becomes theirs: a producer that dies
# leaves all three, or a payload that goes by itself; and a chunk that waits, runs or is done is never queued a second
# time. (The payload comes apart from the script, which would copy it three times. arq's own enqueue_job answers None
# alike for a duplicate and for a connection lost before EXEC, takes three round trips, and knows no ledger.)
# PEXPIRE comes before what needs memory: a Redis that had room for the payload refuses none of the rest.
_ENQUEUE: Final = (
    PUT_ON
    + """
local payload, queue, load, chunks, models, run = unpack(KEYS)
local job, expires, due, size, items, number, model, now, ahead = unpack(ARGV)
local outcome = 'QUEUED'
if redis.call('ZSCORE', queue, job) then
    redis.call('PEXPIRE', payload, expires)
    outcome = 'KNOWN'
elseif redis.call('HEXISTS', chunks, number) == 1 then
    redis.call('DEL', payload)
    outcome = 'KNOWN'
elseif redis.call('HEXISTS', run, 'moved:' .. number) == 1 then
    -- Handed on to the queue of another model, which its producer need not know: see embedq_jobs.forwarding.
    redis.call('PEXPIRE', payload, expires)
    outcome = 'KNOWN'
elseif redis.call('HEXISTS', run, 'cancelled') == 1 then
    redis.call('DEL', payload)
    outcome = 'CANCELLED'
elseif redis.call('PEXPIRE', payload, expires) == 0 then
    outcome = 'GONE'
else
    -- The run says how urgent it is: so are its chunks, whoever puts them.
    local high = redis.call('HGET', run, 'priority') == 'high'
    redis.call('ZADD', queue, high and due - ahead or due, job)
    put_on(load, job, size, items)
    redis.call('SADD', models, model)
    redis.call('HINCRBY', run, 'chunks', 1)
    redis.call('HINCRBY', run, 'items', items)
    redis.call('HINCRBY', run, 'bytes', size)
    redis.call('HSET', run, 'beat', now)
    -- A producer that was taken for dead may have been asleep.
    redis.call('PERSIST', run)
    redis.call('PERSIST', chunks)
end
return {outcome, redis.call('HGET', load, 'bytes')}
"""
)


_ENQUEUE_SHA: Final = hashlib.sha1(_ENQUEUE.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of a chunk of so many `bytes` that was put: whether it is `new` to the queue, and the bytes of all
    chunks of its model that now wait or run. With `cancelled` it was not taken, since its run was cancelled.
    """

    new: bool
    bytes: int
    bytes_queued: int
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """What waits or runs in the queue of a model. `oldest` is the time since which the first job is due.

    `paused` jobs are set aside, since their collection is paused; they keep their age. Those of a model that is paused
    as a whole are queued like others: `Queue.pauses` tells. `high` of all `jobs` are those of high runs, wherever else
    they are counted.
    """

    model_id: str
    jobs: int
    in_progress: int
    deferred: int
    bytes: int
    items: int
    oldest: float | None
    paused: int = 0
    high: int = 0

    @property
    def queued(self) -> int:
        """Jobs that are due and that no worker has in hand."""
        return max(self.jobs - self.in_progress - self.deferred - self.paused, 0)


class Queue:
    """Chunks and runs in one Redis, under one prefix."""

    def __init__(self, redis: ArqRedis, prefix: str, where: str) -> None:
        self.redis = redis
        self.names = Names(prefix)
        self.where = where
        self.runs = Runs(redis, self.names, where)
        self.starts = Starts(redis, self.names, where)
        self.cancelling = Cancelling(redis, self.names, where)
        self.pausing = Pausing(redis, self.names, where)
        self.drains = Drains(redis, self.names, where)
        self.forwarding = Forwarding(redis, self.names, where, EXPIRES_MS)

    async def put(self, chunk: Chunk) -> bool:
        """Queue a chunk. False if it is queued or done already, or its run was cancelled: then nothing changes.

        When this returns, Redis has the chunk. Raises RedisUnreachable.
        """
        return (await self.place(chunk)).new

    async def place(self, chunk: Chunk) -> Placed:
        """What `put` does, and the load that the queue of the model has then."""
        names, job = self.names, job_id(chunk.run, chunk.number)
        now_ms = int(time.time() * 1000)
        envelope = serialize_job(EMBED_CHUNK, (encode_chunk(chunk),), {}, None, now_ms, serializer=dump_job)
        keys = [
            payload_key(job),
            names.queue(chunk.model_id),
            names.load(chunk.model_id),
            names.chunks(chunk.run),
            names.models,
            names.run(chunk.run),
        ]
        arguments: list[str | float] = [
            job,
            EXPIRES_MS,
            now_ms,
            len(envelope),
            len(chunk.items),
            chunk.number,
            chunk.model_id,
            time.time(),
            HIGH_AHEAD_MS,
        ]
        with translated(self.where):
            while True:
                stored, placed = await self._store_and_enqueue(envelope, keys, arguments)
                if isinstance(placed, redis.exceptions.NoScriptError):
                    await self.redis.script_load(_ENQUEUE)
                    continue
                for answer in (stored, placed):
                    if isinstance(answer, Exception):
                        raise answer
                outcome, size = placed
                # Gone only where another one has ended the chunk between the two commands: it is asked anew.
                if outcome != b"GONE":
                    return Placed(outcome == b"QUEUED", len(envelope), int(size or 0), outcome == b"CANCELLED")

    async def _store_and_enqueue(self, envelope: bytes, keys: list[str], arguments: list[str | float]) -> list[Any]:
        """One request, two answers. The errors are among them: raised by redis-py, they would hold the payload."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.set(keys[0], envelope, px=STRAY_MS, nx=True)
            pipe.evalsha(_ENQUEUE_SHA, len(keys), *keys, *map(str, arguments))
            return await pipe.execute(raise_on_error=False)

    async def announce(self, model_id: str) -> None:
        """Let workers make ready for a model that chunks will come for: they look for new ones only now and then."""
        with translated(self.where):
            await cast("Awaitable[int]", self.redis.sadd(self.names.models, model_id))

    async def bytes_queued(self, model_id: str) -> int:
        """Bytes of the chunks of a model that are queued or in hand."""
        with translated(self.where):
            value = await cast("Awaitable[Any]", self.redis.hget(self.names.load(model_id), "bytes"))
        return int(value or 0)

    async def length(self, model_id: str) -> int:
        """Jobs of a model that are queued, deferred or in hand."""
        with translated(self.where):
            return int(await self.redis.zcard(self.names.queue(model_id)))

    async def lengths(self, model_ids: Iterable[str]) -> dict[str, int]:
        """The length of each model's queue, all at one moment: a job that is handed on stands in one of them."""
        models = list(model_ids)
        if not models:
            return {}
        with translated(self.where):
            async with self.redis.pipeline(transaction=True) as pipe:
                for model_id in models:
                    pipe.zcard(self.names.queue(model_id))
                return dict(zip(models, await pipe.execute(), strict=True))

    async def model_ids(self) -> list[str]:
        """The models that have a queue."""
        with translated(self.where):
            members = await cast("Awaitable[Iterable[bytes]]", self.redis.smembers(self.names.models))
        return sorted(member.decode() for member in members)

    async def loads(self) -> list[QueueLoad]:
        """The load of every model's queue."""
        return [await self._load(model_id) for model_id in await self.model_ids()]

    async def _load(self, model_id: str) -> QueueLoad:
        queue, now_ms = self.names.queue(model_id), int(time.time() * 1000)
        with translated(self.where):
            async with self.redis.pipeline(transaction=True) as pipe:
                pipe.zcard(queue)
                pipe.zcount(queue, f"({now_ms}", f"({ASIDE_FROM}")
                pipe.zcount(queue, f"({high_score(now_ms)}", "(0")
                # Jobs in hand keep their place, so they are among the first of their priority.
                pipe.zrangebyscore(queue, "-inf", "(0", 0, _HEAD_JOBS, withscores=True)
                pipe.zrangebyscore(queue, 0, f"({ASIDE_FROM}", 0, _HEAD_JOBS, withscores=True)
                # Those that are set aside: high ones, then the others.
                pipe.zcount(queue, ASIDE_FROM, "+inf")
                pipe.zrangebyscore(queue, ASIDE_FROM, f"({ASIDE}", 0, 1, withscores=True)
                pipe.zrangebyscore(queue, ASIDE, "+inf", 0, 1, withscores=True)
                pipe.zcount(queue, "-inf", "(0")
                pipe.zcount(queue, ASIDE_FROM, f"({ASIDE}")
                pipe.hmget(self.names.load(model_id), ["bytes", "items"])
                (
                    jobs,
                    deferred,
                    deferred_high,
                    high,
                    normal,
                    paused,
                    aside_high,
                    aside,
                    high_jobs,
                    high_paused,
                    (size, items),
                ) = await pipe.execute()
            head = [*high, *normal]
            leases = [lease_key(job.decode()) for job, _ in head]
            in_progress = int(await self.redis.exists(*leases)) if leases else 0
        firsts = [due_ms(score) for _, score in (*high[:1], *normal[:1])]
        firsts += [due_ms(score - ASIDE) for _, score in (*aside_high, *aside)]
        oldest = min((due / 1000 for due in firsts if due <= now_ms), default=None)
        deferred += deferred_high
        return QueueLoad(
            model_id,
            jobs,
            in_progress,
            deferred,
            int(size or 0),
            int(items or 0),
            oldest,
            paused,
            high_jobs + high_paused,
        )

    async def to_do(self, model_id: str) -> int:
        """Jobs of a model that are not set aside."""
        with translated(self.where):
            return int(await self.redis.zcount(self.names.queue(model_id), "-inf", f"({ASIDE_FROM}"))

    async def pauses(self) -> list[Pause]:
        """What is paused, the oldest pause first."""
        return await self.pausing.pauses()

    async def rates(self, over_seconds: int = 600) -> Rates:
        """How many items were done in each ten seconds of the last `over_seconds`, the running ones left out."""
        now = int(time.time()) // RATE_SECONDS
        spans = max(over_seconds // RATE_SECONDS, 1)
        with translated(self.where):
            values = await self.redis.mget([self.names.done(now - back) for back in range(spans, 0, -1)])
        return Rates([int(value or 0) for value in values])

    async def worker_reports(self) -> list[bytes]:
        """What workers say of themselves, as JSON: host, pid, models, since, seen, in_hand, done, troubles, serving.

        Workers that were killed are among them for a while.
        """
        with translated(self.where):
            return await cast("Awaitable[list[bytes]]", self.redis.hvals(self.names.workers))

    async def live_workers(self) -> list[dict[str, Any]]:
        """What the workers say of themselves that were heard of in the last 15 seconds; they report every 5."""
        since = time.time() - WORKER_FRESH_SECONDS
        return [json.loads(report) for report in await self.worker_reports() if _seen(report) > since]

    async def tidy(self, now: float | None = None) -> None:
        """Let go of what the dead have left: reports of workers that were killed, and runs that nobody will close.

        A worker that is alive after all reports again within seconds.
        """
        before = (time.time() if now is None else now) - WORKER_GONE_SECONDS
        with translated(self.where):
            reports = await cast("Awaitable[dict[bytes, bytes]]", self.redis.hgetall(self.names.workers))
            gone = [worker for worker, report in reports.items() if _seen(report) < before]
            if gone:
                await cast("Awaitable[int]", self.redis.hdel(self.names.workers, *[name.decode() for name in gone]))
        await self.runs.tidy(now)
        # Who lifted a pause may have been killed in the middle of it.
        for model_id in await self.model_ids():
            await self.pausing.release(model_id)

    def pace(self, model_id: str) -> SharedPace:
        """Where all workers stand with the limits of a model."""
        return SharedPace(self.redis, self.names, self.where, model_id)

    def claims(self, worker: str, seconds: float) -> SharedClaims:
        """What the process `worker` claims, for others to see."""
        return SharedClaims(self.redis, self.names, self.where, worker, seconds)

    # --- which model a collection has, for producers that can't see the database

    async def collection_model(self, collection: str) -> str | None:
        """The model that a collection is known to have, or None."""
        with translated(self.where):
            value = await cast("Awaitable[bytes | None]", self.redis.hget(self.names.collections, collection))
        return value.decode() if value is not None else None

    async def collection_names(self) -> list[str]:
        """The collections that something was queued for."""
        with translated(self.where):
            found = await cast("Awaitable[dict[bytes, bytes]]", self.redis.hgetall(self.names.collections))
        return sorted(name.decode() for name in found)

    async def set_collection_model(self, collection: str, model_id: str) -> None:
        """Remember the model of a collection."""
        with translated(self.where):
            await cast("Awaitable[int]", self.redis.hset(self.names.collections, collection, model_id))

    async def forget_collection(self, collection: str) -> None:
        """Forget the model of a collection that was deleted."""
        with translated(self.where):
            await cast("Awaitable[int]", self.redis.hdel(self.names.collections, collection))


def _seen(report: bytes) -> float:
    """When a worker said what is in its report; long ago where it can't be read."""
    try:
        return float(json.loads(report)["seen"])
    except (ValueError, TypeError, KeyError):
        return 0.0
