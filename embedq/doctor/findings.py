"""What facts about an installation mean: a pure function from what was seen to findings, each with its mend."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from embedq.doctor.database_findings import database_findings
from embedq.doctor.finding import Finding, Verdict
from embedq.doctor.queue_findings import queue_findings
from embedq.doctor.schedule_findings import reembedding_findings, schedule_findings
from embedq.doctor.server_findings import server_findings
from embedq.inspecting import moment
from embedq_core.text import plural
from embedq_jobs import Pause, holding
from embedq_jobs.health import QueueFacts, ServerFacts, WorkerFacts
from embedq_producer.pausing import remedy, scope_words
from embedq_store import DeadLetterSummary, Reembedding
from embedq_store.health import DatabaseFacts
from embedq_worker.timetable import Upcoming

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SettingsFacts:
    """The settings file: where it is, whether it is there, whether others can read the URL of Redis in it."""

    path: str
    exists: bool
    exposed: bool


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """Redis, and what is in it. `problem` is why it can't be looked at; `server` is None where it has not begun."""

    where: str
    embedded: bool
    problem: str | None = None
    server: ServerFacts | None = None
    queues: tuple[QueueFacts, ...] = ()
    workers: tuple[WorkerFacts, ...] = ()
    pauses: tuple[Pause, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the doctor looks at. `missing` are models of collections and queues that no plugin has here."""

    settings: SettingsFacts
    redis: RedisFacts
    database: DatabaseFacts
    database_named: bool
    models: int
    missing: tuple[tuple[str, str], ...] = ()
    """Model and what needs it: a collection, or a queue."""
    plugin_problems: tuple[tuple[str, str], ...] = ()
    drifted: tuple[tuple[str, str, str], ...] = ()
    """Model, collection, and how the model differs now from what is recorded with the collection."""
    dead: Sequence[DeadLetterSummary] = field(default_factory=tuple)
    schedules: Sequence[Upcoming] = ()
    stopped: Sequence[Reembedding] = ()
    """Re-embeddings that wait for somebody."""


def findings(facts: Facts) -> list[Finding]:
    """What is well, what should be seen to, and what is broken, with what to do."""
    return [
        *_settings(facts.settings),
        *_redis(facts.redis),
        *database_findings(facts.database, named=facts.database_named),
        *_schedules(facts),
        *reembedding_findings(facts.stopped),
        *_models(facts),
        *_dead(facts.dead),
    ]


def _settings(settings: SettingsFacts) -> Iterator[Finding]:
    if settings.exposed:
        yield Finding(
            Verdict.warn,
            "settings",
            f"{settings.path} holds a URL of Redis and can be read by others",
            f"chmod 600 {settings.path}",
        )
    else:
        there = "" if settings.exists else " is not there: the environment and the defaults count"
        yield Finding(Verdict.ok, "settings", f"{settings.path}{there}")


def _redis(redis: RedisFacts) -> Iterator[Finding]:
    if redis.problem is not None:
        what, _, mend = redis.problem.rpartition(": ")
        yield Finding(Verdict.fail, "redis", what or redis.problem, mend if what else "")
        return
    if redis.server is None:
        yield Finding(Verdict.ok, "redis", f"private, not begun yet: {redis.where} can be started")
        return
    yield Finding(Verdict.ok, "redis", f"{'private, ' if redis.embedded else ''}at {redis.where}")
    yield from server_findings(redis.server)
    yield from _workers(redis)
    for pause in redis.pauses:
        why = f" ({pause.reason})" if pause.reason else ""
        detail = f"{scope_words(pause.scope)}, since {moment(pause.since)}{why}"
        yield Finding(Verdict.warn, "paused", detail, f"'{remedy(pause)}' lets it go on")
    for queue in redis.queues:
        paused = holding(redis.pauses, queue.model_id) is not None
        yield from queue_findings(queue, redis.workers, paused=paused)
    if not any(queue.jobs for queue in redis.queues):
        yield Finding(Verdict.ok, "queue", "nothing is queued")


def _workers(redis: RedisFacts) -> Iterator[Finding]:
    if redis.workers:
        yield Finding(Verdict.ok, "workers", ", ".join(worker.name for worker in redis.workers))
        # Workers that share a model share its trouble.
        for model_id, trouble in dict.fromkeys(pair for worker in redis.workers for pair in worker.troubles):
            mend = "mend it, or wait: what is queued is kept"
            yield Finding(Verdict.warn, f"model {model_id}", trouble, mend)
    elif any(queue.jobs for queue in redis.queues):
        yield Finding(Verdict.warn, "workers", "none has been heard of, and there is work", "run 'embedq worker'")
    else:
        yield Finding(Verdict.ok, "workers", "none, and there is nothing to do")


def _schedules(facts: Facts) -> Iterator[Finding]:
    served = any(worker.database == facts.database.path for worker in facts.redis.workers)
    return schedule_findings(facts.schedules, served=served)


def _models(facts: Facts) -> Iterator[Finding]:
    for plugin, message in facts.plugin_problems:
        yield Finding(
            Verdict.warn, f"plugin {plugin}", message, "mend it or uninstall it; 'embedq models' shows the rest"
        )
    for model, user in facts.missing:
        detail = f"is not here, and {user} needs it"
        yield Finding(Verdict.warn, f"model {model}", detail, "install its plugin (see 'embedq models')")
    for model, collection, difference in facts.drifted:
        detail = f"is no longer as it was when {collection!r} was embedded with it: {difference}"
        yield Finding(
            Verdict.warn, f"model {model}", detail, f"set it as it was, or 'embedq reembed {collection} --force'"
        )
    if not facts.missing and not facts.drifted:
        yield Finding(Verdict.ok, "models", f"{plural(facts.models, 'model')}; every collection and queue has its own")


def _dead(dead: Sequence[DeadLetterSummary]) -> Iterator[Finding]:
    if not dead:
        yield Finding(Verdict.ok, "dead", "no dead letters")
        return
    most = ", ".join(f"{part.letters:,} {part.error} of {part.collection or 'no collection'}" for part in dead[:3])
    detail = f"{plural(sum(part.letters for part in dead), 'dead letter')}: {most}{' …' if len(dead) > 3 else ''}"
    yield Finding(Verdict.warn, "dead", detail, "'embedq dead list' says why; mend it, then 'embedq dead requeue'")
