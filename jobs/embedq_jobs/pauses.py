"""Pauses: everything, a model or a collection, of which workers take nothing in hand until it is resumed.

A paused collection shares its model's queue with others. So that its jobs don't stand in their way, workers that meet
them set them aside: their score is raised beyond any time, and lowered again when the collection is resumed. What is
lowered is what was raised, so order and age stay what they were.

A collection that is paused takes along what is embedded anew beside it, under a name that embedq keeps for itself.
"""

import json
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast

from arq.connections import ArqRedis

from embedq_core.collection_names import base_name
from embedq_jobs.errors import translated
from embedq_jobs.names import Names, lease_key, parse_job_id

Kind: TypeAlias = Literal["all", "model", "collection"]

# Added to the score of a job that is set aside. With milliseconds since the epoch it makes a whole number that a
# score, which is a double, still holds exactly.
ASIDE: Final = 2**52
# Scores from here on are those of jobs that are set aside.
ASIDE_FROM: Final = 2**51

AT_ONCE: Final = 500

# No pause has such a name.
_NONE: Final = ("", "")

# The pause is looked at again, in the same step: one that was lifted meanwhile would leave the jobs aside.
_SET_ASIDE: Final = """
local queue, paused = unpack(KEYS, 1, 2)
local aside, from = unpack(ARGV, 1, 2)
for index = 3, #KEYS do
    local job, field = unpack(ARGV, 2 * index - 3, 2 * index - 2)
    local score = redis.call('ZSCORE', queue, job)
    if score and tonumber(score) < tonumber(from) and redis.call('EXISTS', KEYS[index]) == 0
            and redis.call('HEXISTS', paused, field) == 1 then
        redis.call('ZINCRBY', queue, aside, job)
    end
end
"""

_RELEASE: Final = """
local queue, paused = unpack(KEYS)
local aside, from = unpack(ARGV, 1, 2)
local released = 0
for index = 3, #ARGV, 3 do
    local job, field, base = unpack(ARGV, index, index + 2)
    local score = redis.call('ZSCORE', queue, job)
    if score and tonumber(score) >= tonumber(from) and redis.call('HEXISTS', paused, field) == 0
            and redis.call('HEXISTS', paused, base) == 0 then
        redis.call('ZINCRBY', queue, -aside, job)
        released = released + 1
    end
end
return released
"""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a pause is about: all (`name` is empty then), the model or the collection of that name."""

    kind: Kind = "all"
    name: str = ""

    @property
    def field(self) -> str:
        """Its name in Redis."""
        return f"{self.kind}:{self.name}" if self.name else self.kind

    @classmethod
    def of(cls, field: str) -> "Scope":
        """The scope with that name in Redis."""
        kind, _, name = field.partition(":")
        return cls(cast("Kind", kind), name)


@dataclass(frozen=True, slots=True)
class Pause:
    """What is paused, since when (seconds since the epoch), and why, as far as it was said."""

    scope: Scope
    since: float
    reason: str = ""


def parse_pauses(fields: Mapping[bytes, bytes]) -> list[Pause]:
    """The pauses as Redis has them, the oldest first."""
    found = [(Scope.of(field.decode()), json.loads(value)) for field, value in fields.items()]
    return sorted(
        (Pause(scope, float(value["since"]), value["reason"]) for scope, value in found), key=lambda pause: pause.since
    )


def _scopes(collection: str) -> list[Scope]:
    """What holds back work for a collection, the widest first: what is embedded anew stands beside another."""
    base = base_name(collection)
    return [Scope("collection", name) for name in (base, collection) if name is not None]


def holding(pauses: Iterable[Pause], model_id: str, collection: str | None = None) -> Pause | None:
    """Which of `pauses` keeps work for a model, or for a collection with that model, from being taken; None for none.

    The widest is named: to lift a narrower one would change nothing.
    """
    by_scope = {pause.scope: pause for pause in pauses}
    scopes = [Scope(), Scope("model", model_id)]
    if collection is not None:
        scopes += _scopes(collection)
    return next((by_scope[scope] for scope in scopes if scope in by_scope), None)


class Pausing:
    """Keeps the pauses, and sets jobs aside."""

    def __init__(self, redis: ArqRedis, names: Names, where: str) -> None:
        self._redis = redis
        self._names = names
        self._where = where
        self._set_aside = redis.register_script(_SET_ASIDE)
        self._release = redis.register_script(_RELEASE)
        # For each model, since their lanes ask at the same time: the collections of the runs that it was asked of last.
        self._collections: dict[str, dict[str, str | None]] = {}

    async def pauses(self) -> list[Pause]:
        """What is paused now, the oldest first. Raises RedisUnreachable."""
        with translated(self._where):
            return parse_pauses(await cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(self._names.paused)))

    async def pause(self, scope: Scope, reason: str | None = None, now: float | None = None) -> bool:
        """Pause; False where it was paused: since when stays, and the reason, unless another is given.

        Raises RedisUnreachable.
        """
        before = next((pause for pause in await self.pauses() if pause.scope == scope), None)
        if before is not None:
            now, reason = before.since, before.reason if reason is None else reason
        value = json.dumps({"since": time.time() if now is None else now, "reason": reason or ""})
        with translated(self._where):
            await cast("Awaitable[int]", self._redis.hset(self._names.paused, scope.field, value))
        return before is None

    async def resume(self, scopes: Sequence[Scope], model_ids: Iterable[str]) -> list[Scope]:
        """Lift pauses, and make due what was set aside in the queues of these models. Which of them there were.

        Raises RedisUnreachable.
        """
        with translated(self._where):
            async with self._redis.pipeline(transaction=True) as pipe:
                for scope in scopes:
                    pipe.hdel(self._names.paused, scope.field)
                there = await pipe.execute()
        for model_id in model_ids:
            await self.release(model_id)
        return [scope for scope, was_there in zip(scopes, there, strict=True) if was_there]

    async def release(self, model_id: str) -> int:
        """Make due what is set aside in a queue and paused no longer; how many jobs that is.

        What lifts a pause does it, and tidying, since what lifts a pause may be killed before it has. Raises
        RedisUnreachable.
        """
        queue, kept, released = self._names.queue(model_id), 0, 0
        while True:
            with translated(self._where):
                found = await self._redis.zrangebyscore(queue, ASIDE_FROM, "+inf", start=kept, num=AT_ONCE)
                if not found:
                    return released
                jobs = [job.decode() for job in found]
                fields = await self._fields(model_id, jobs)
                args = [word for job in jobs for word in (job, *fields.get(job, _NONE))]
                some = await self._release(keys=[queue, self._names.paused], args=[ASIDE, ASIDE_FROM, *args])
            kept, released = kept + len(found) - some, released + some

    async def set_aside(self, model_id: str, jobs: Sequence[str], pauses: Sequence[Pause]) -> set[str]:
        """Those of `jobs`, which wait for a model, that are paused. Of a paused collection they are set aside: so they
        are not met again. Raises what Redis raises.
        """
        if holding(pauses, model_id) is not None:
            return set(jobs)
        collections = {pause.scope.field for pause in pauses if pause.scope.kind == "collection"}
        if not collections:
            return set()
        known = (await self._fields(model_id, jobs)).items()
        fields = {job: field for job, both in known for field in both if field in collections}
        if fields:
            await self._set_aside(
                keys=[self._names.queue(model_id), self._names.paused, *map(lease_key, fields)],
                args=[ASIDE, ASIDE_FROM, *(word for pair in fields.items() for word in pair)],
            )
        return set(fields)

    async def _fields(self, model_id: str, jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
        """How the pauses are named that may be about each job's collection, of those whose run is known: a run keeps
        its collection. The second is that of the collection beside it, else as the first.
        """
        runs = {job: parse_job_id(job)[0] for job in jobs}
        before = self._collections.get(model_id, {})
        known = {run: before[run] for run in runs.values() if run in before}
        unknown = [run for run in dict.fromkeys(runs.values()) if run not in known]
        if unknown:
            async with self._redis.pipeline(transaction=False) as pipe:
                for run in unknown:
                    pipe.hget(self._names.run(run), "collection")
                found = await pipe.execute()
            known |= {run: None if name is None else name.decode() for run, name in zip(unknown, found, strict=True)}
        self._collections[model_id] = known
        named = {job: known[run] for job, run in runs.items()}
        return {job: _both(name) for job, name in named.items() if name is not None}


def _both(collection: str) -> tuple[str, str]:
    scopes = _scopes(collection)
    return scopes[-1].field, scopes[0].field
