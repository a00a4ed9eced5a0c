"""What can be seen of a Redis and of the queues in it, as plain facts: what they mean is decided elsewhere."""

import time
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import redis.exceptions

from embedq_jobs.drains import worker_name
from embedq_jobs.errors import translated
from embedq_jobs.names import lease_key, parse_job_id, payload_key
from embedq_jobs.queue import Queue
from embedq_jobs.scores import due_ms

# Jobs of each queue that are looked at closely.
SAMPLE_JOBS: Final = 1000

_TOTALS: Final = ("bytes", "items")

# In one step, so that what is queued or done between is in both or in neither; and not with MULTI, which a Redis whose
# memory is full refuses.
_LOOK: Final = "return {redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), redis.call('HGETALL', KEYS[2])}"


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """How a Redis is set up; None for what it does not tell this user.

    Memory is in bytes, a `maxmemory` of 0 is no limit. `clock_ahead` is how many seconds its clock is ahead of ours.
    """

    version: str | None
    replica: bool | None
    append_only: bool | None
    append_fsync: str | None
    append_error: bool | None
    policy: str | None
    used_memory: int | None
    maxmemory: int | None
    clock_ahead: float | None


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """What is in the queue of a model.

    Of the first `sampled` jobs: `lost` names the runs of those whose payload is gone, `least_ttl` is the least time,
    in seconds, until a payload expires, `unexpiring` counts payloads that never do, `leased` counts jobs that a
    worker has in hand, or had until a moment ago, and `stuck` names the keys of leases that don't end.
    `oldest_due` is since how many seconds the first job that nobody has in hand could be run; None if there is none.
    The ledger's totals are `bytes` and `items`; those of its entries `entry_bytes` and `entry_items`; `ghosts` counts
    entries for jobs that are not in the queue.
    """

    model_id: str
    jobs: int
    sampled: int
    lost: tuple[str, ...]
    least_ttl: float | None
    unexpiring: int
    leased: int
    stuck: tuple[str, ...]
    oldest_due: float | None
    load_key: str
    bytes: int
    items: int
    entry_bytes: int
    entry_items: int
    ghosts: int


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """A worker that was heard of lately, the models that it serves, and what is wrong with some of them."""

    name: str
    models: tuple[str, ...]
    troubles: tuple[tuple[str, str], ...] = ()
    database: str | None = None
    """Which it writes to; one of an earlier version doesn't say."""


async def server_facts(queue: Queue) -> ServerFacts:
    """How the queue's Redis is set up. Raises RedisUnreachable."""
    with translated(queue.where):
        info = await _info(queue)
        return ServerFacts(
            version=_text(info.get("valkey_version") or info.get("redis_version")),
            replica=None if "role" not in info else info["role"] != "master",
            append_only=None if "aof_enabled" not in info else bool(info["aof_enabled"]),
            append_fsync=await _setting(queue, "appendfsync"),
            append_error=None if "aof_last_write_status" not in info else info["aof_last_write_status"] != "ok",
            policy=_text(info.get("maxmemory_policy")),
            used_memory=info.get("used_memory"),
            maxmemory=info.get("maxmemory"),
            clock_ahead=await _clock_ahead(queue),
        )


async def _info(queue: Queue) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for section in ("server", "replication", "persistence", "memory"):
        try:
            found |= await queue.redis.info(section)
        except redis.exceptions.NoPermissionError:
            break
    return found


def _text(value: object) -> str | None:
    return None if value is None else str(value)


async def _setting(queue: Queue, name: str) -> str | None:
    try:
        return _text((await queue.redis.config_get(name)).get(name))
    except redis.exceptions.ResponseError:  # hosted servers know no CONFIG, others don't permit it
        return None


async def _clock_ahead(queue: Queue) -> float | None:
    before = time.time()
    try:
        seconds, microseconds = await cast("Awaitable[tuple[int, int]]", queue.redis.time())
    except redis.exceptions.NoPermissionError:
        return None
    # It was read at some moment between.
    return seconds + microseconds / 1e6 - (before + time.time()) / 2


async def worker_facts(queue: Queue) -> list[WorkerFacts]:
    """Workers that were heard of in the last 15 seconds. Raises RedisUnreachable."""
    reports = await queue.live_workers()
    found = [
        WorkerFacts(
            worker_name(report),
            tuple(report["models"]),
            # One of an earlier version doesn't say.
            tuple(report.get("troubles", {}).items()),
            report.get("database"),
        )
        for report in reports
    ]
    return sorted(found, key=lambda worker: worker.name)


async def queue_facts(queue: Queue, model_id: str) -> QueueFacts:
    """What is in the queue of a model. Raises RedisUnreachable."""
    names = queue.names
    with translated(queue.where):
        due, load = await _look(queue, model_id)
        sample = list(due)[:SAMPLE_JOBS]
        payloads = await _ttls(queue, [payload_key(job) for job in sample])
        leases = await _ttls(queue, [lease_key(job) for job in sample])
        missing = [job for job, ttl in zip(sample, payloads, strict=True) if ttl == _GONE]
        # A job that was done meanwhile has left the queue with its payload.
        lost = [job for job in missing if await queue.redis.zscore(names.queue(model_id), job) is not None]
    entries = {name: _entry(value) for name, value in load.items() if name not in _TOTALS}
    late = [time.time() - due[job] for job, ttl in zip(sample, leases, strict=True) if ttl == _GONE]
    return QueueFacts(
        model_id=model_id,
        jobs=len(due),
        sampled=len(sample),
        lost=tuple(dict.fromkeys(parse_job_id(job)[0] for job in lost)),
        least_ttl=min((ttl / 1000 for ttl in payloads if ttl >= 0), default=None),
        unexpiring=payloads.count(_FOR_EVER),
        leased=sum(ttl != _GONE for ttl in leases),
        stuck=tuple(lease_key(job) for job, ttl in zip(sample, leases, strict=True) if _ends_not(ttl)),
        oldest_due=max((seconds for seconds in late if seconds >= 0), default=None),
        load_key=names.load(model_id),
        bytes=int(load.get("bytes", 0)),
        items=int(load.get("items", 0)),
        entry_bytes=sum(size for size, _ in entries.values()),
        entry_items=sum(items for _, items in entries.values()),
        ghosts=len(entries.keys() - due.keys()),
    )


# What PTTL answers for a key that is not there, and for one that has no time to live.
_GONE: Final = -2
_FOR_EVER: Final = -1

# No lease is given for longer.
_LONGEST_LEASE_MS: Final = 600_000


def _ends_not(lease_ttl: int) -> bool:
    return lease_ttl == _FOR_EVER or lease_ttl > _LONGEST_LEASE_MS


async def _ttls(queue: Queue, keys: Sequence[str]) -> list[int]:
    async with queue.redis.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.pttl(key)
        return cast("list[int]", await pipe.execute())


async def _look(queue: Queue, model_id: str) -> tuple[dict[str, float], dict[str, str]]:
    """When each job of a queue is due, in seconds since the epoch, and what its ledger says."""
    keys = [queue.names.queue(model_id), queue.names.load(model_id)]
    jobs, load = await queue.redis.register_script(_LOOK)(keys=keys)
    due = {job.decode(): due_ms(float(score)) / 1000 for job, score in _pairs(jobs)}
    return due, {name.decode(): value.decode() for name, value in _pairs(load)}


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _entry(value: str) -> tuple[int, int]:
    """Bytes and items of an entry of the ledger; zeros for one that is none of ours."""
    size, _, items = value.partition(",")
    return (int(size), int(items)) if size.isdigit() and items.isdigit() else (0, 0)
