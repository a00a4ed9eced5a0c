"""What facts about an installation mean: a pure function from what was seen to findings, each with its mend."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from embedq.doctor.finding import Finding, Verdict
from embedq.doctor.schedule_findings import reembedding_findings, schedule_findings
from embedq.inspecting import moment, size
from embedq_core.text import plural
from embedq_jobs import Pause, holding
from embedq_jobs.health import QueueFacts, ServerFacts, WorkerFacts
from embedq_producer.pausing import remedy, scope_words
from embedq_producer.terminal import duration
from embedq_store import DeadLetterSummary, Reembedding
from embedq_store.health import DatabaseFacts
from embedq_store.schema import SCHEMA_VERSION
from embedq_worker.timetable import Upcoming

MIB: Final = 1024 * 1024

OLDEST_REDIS: Final = 5
CLOCK_WARN_SECONDS, CLOCK_FAIL_SECONDS = 1.0, 15.0
MEMORY_WARN_SHARE: Final = 0.9
SLACK_SECONDS: Final = 30 * 24 * 3600
IDLE_SECONDS: Final = 60.0
WAL_WARN_BYTES: Final = 256 * MIB
DISK_WARN_SHARE: Final = 0.1
DISK_FAIL_BYTES: Final = 100 * MIB


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
        *_database(facts.database, named=facts.database_named),
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


# --- Redis


def _redis(redis: RedisFacts) -> Iterator[Finding]:
    if redis.problem is not None:
        what, _, mend = redis.problem.rpartition(": ")
        yield Finding(Verdict.fail, "redis", what or redis.problem, mend if what else "")
        return
    if redis.server is None:
        yield Finding(Verdict.ok, "redis", f"private, not begun yet: {redis.where} can be started")
        return
    yield Finding(Verdict.ok, "redis", f"{'private, ' if redis.embedded else ''}at {redis.where}")
    yield from _server(redis.server)
    yield from _workers(redis)
    for pause in redis.pauses:
        why = f" ({pause.reason})" if pause.reason else ""
        detail = f"{scope_words(pause.scope)}, since {moment(pause.since)}{why}"
        yield Finding(Verdict.warn, "paused", detail, f"'{remedy(pause)}' lets it go on")
    for queue in redis.queues:
        paused = holding(redis.pauses, queue.model_id) is not None
        yield from _queue(queue, redis.workers, paused=paused)
    if not any(queue.jobs for queue in redis.queues):
        yield Finding(Verdict.ok, "queue", "nothing is queued")


def _server(server: ServerFacts) -> Iterator[Finding]:
    yield _version(server)
    yield _persistence(server)
    yield _eviction(server)
    yield _memory(server)
    if server.replica:
        yield Finding(Verdict.fail, "role", "this Redis is a replica", "name its master in EMBEDQ_REDIS_URL")
    yield _clock(server.clock_ahead)


def _untold(what: str, command: str) -> Finding:
    return Finding(Verdict.warn, what, "Redis does not tell this user", f"allow {command} to the user (ACL SETUSER)")


def _version(server: ServerFacts) -> Finding:
    if server.version is None:
        return _untold("version", "+info")
    major = server.version.partition(".")[0]
    if major.isdigit() and int(major) < OLDEST_REDIS:
        return Finding(Verdict.fail, "version", f"Redis {server.version}", f"upgrade it to {OLDEST_REDIS} or later")
    return Finding(Verdict.ok, "version", f"Redis {server.version}")


def _persistence(server: ServerFacts) -> Finding:
    if server.append_only is None:
        return _untold("persistence", "+info")
    if not server.append_only:
        detail = "no append-only file: what is queued is lost when Redis ends"
        return Finding(Verdict.fail, "persistence", detail, "set appendonly yes")
    if server.append_error:
        detail = "Redis can't write its append-only file"
        return Finding(Verdict.fail, "persistence", detail, "see its log, and the free space on its disk")
    if server.append_fsync == "no":
        detail = "the append-only file is left to the system: a machine that fails may lose half a minute"
        return Finding(Verdict.warn, "persistence", detail, "set appendfsync everysec, or always")
    fsync = "" if server.append_fsync is None else f", synced {server.append_fsync}"
    return Finding(Verdict.ok, "persistence", f"append-only file{fsync}")


def _eviction(server: ServerFacts) -> Finding:
    if server.policy is None:
        return _untold("eviction", "+info")
    if server.policy == "noeviction":
        return Finding(Verdict.ok, "eviction", "noeviction")
    # Without a limit nothing is evicted; one may be set at any time.
    verdict = Verdict.fail if server.maxmemory else Verdict.warn
    detail = f"{server.policy}: Redis may throw queued items away when memory is short"
    return Finding(verdict, "eviction", detail, "set maxmemory-policy noeviction")


def _memory(server: ServerFacts) -> Finding:
    if server.used_memory is None or server.maxmemory is None:
        return _untold("memory", "+info")
    if not server.maxmemory:
        return Finding(Verdict.ok, "memory", f"{size(server.used_memory)} used, no limit set")
    share = server.used_memory / server.maxmemory
    detail = f"{size(server.used_memory)} of {size(server.maxmemory)} used"
    mend = "raise maxmemory, let workers catch up, or lower EMBEDQ_QUEUE_BYTES"
    if share >= 1:
        return Finding(Verdict.fail, "memory", f"{detail}: nothing can be queued", mend)
    if share > MEMORY_WARN_SHARE:
        return Finding(Verdict.warn, "memory", detail, mend)
    return Finding(Verdict.ok, "memory", detail)


def _clock(ahead: float | None) -> Finding:
    if ahead is None:
        return _untold("clock", "+time")
    if abs(ahead) < CLOCK_WARN_SECONDS:
        return Finding(Verdict.ok, "clock", "that of Redis agrees with the one here")
    detail = f"that of Redis is {duration(abs(ahead))} {'ahead' if ahead > 0 else 'behind'}"
    verdict = Verdict.fail if abs(ahead) >= CLOCK_FAIL_SECONDS else Verdict.warn
    return Finding(verdict, "clock", detail, "set both clocks by NTP: jobs are due, and workers alive, by the clock")


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


def _queue(queue: QueueFacts, workers: Sequence[WorkerFacts], *, paused: bool) -> Iterator[Finding]:
    what = f"queue {queue.model_id}"
    problems = [
        *_lost(what, queue),
        *_expiring(what, queue),
        *_unowned(what, queue, workers, paused=paused),
        *_ledger(what, queue),
    ]
    yield from problems
    if not problems and queue.jobs:
        yield Finding(Verdict.ok, what, f"{plural(queue.jobs, 'chunk')}, {plural(queue.items, 'item')}")


def _lost(what: str, queue: QueueFacts) -> Iterator[Finding]:
    if queue.lost:
        yield Finding(
            Verdict.fail,
            what,
            f"chunks are gone that should be there, of {plural(len(queue.lost), 'run')}: {_some(queue.lost)}",
            "submit their sources again; see the maxmemory-policy of Redis",
        )


def _expiring(what: str, queue: QueueFacts) -> Iterator[Finding]:
    if queue.least_ttl is not None and queue.least_ttl < SLACK_SECONDS:
        days = queue.least_ttl / 86400
        yield Finding(
            Verdict.warn,
            what,
            f"a chunk expires in {days:.1f} days, and would be lost",
            "run 'embedq worker' before, or 'redis-cli persist' its key (arq:job:RUN:N)",
        )
    if queue.unexpiring:
        yield Finding(
            Verdict.warn,
            what,
            f"{plural(queue.unexpiring, 'chunk has', 'chunks have')} no time to live, which embedq always sets",
            "find out what else writes keys arq:job:… in this Redis",
        )


def _unowned(what: str, queue: QueueFacts, workers: Sequence[WorkerFacts], *, paused: bool) -> Iterator[Finding]:
    served = any(queue.model_id in worker.models for worker in workers)
    if queue.stuck:
        yield Finding(
            Verdict.fail,
            what,
            f"{plural(len(queue.stuck), 'chunk')} held by a lease that does not end: {_some(queue.stuck)}",
            "where no worker has it, delete the key with 'redis-cli del'",
        )
    elif queue.leased and not served:
        yield Finding(
            Verdict.warn,
            what,
            f"{plural(queue.leased, 'chunk')} in progress, and no worker that lives has it",
            "run 'embedq worker', which takes them over within 20 seconds",
        )
    if queue.oldest_due is None or queue.leased or paused:
        return
    if not served:
        detail = f"{plural(queue.jobs, 'chunk')}, due for {duration(queue.oldest_due)}, and no worker that serves them"
        yield Finding(Verdict.warn, what, detail, f"run 'embedq worker' where there is the model {queue.model_id}")
    elif queue.oldest_due > IDLE_SECONDS:
        detail = f"workers take none of {plural(queue.jobs, 'chunk')}, due for {duration(queue.oldest_due)}"
        yield Finding(Verdict.fail, what, detail, "see what the workers say, and start them anew")


def _ledger(what: str, queue: QueueFacts) -> Iterator[Finding]:
    off = (queue.bytes - queue.entry_bytes, queue.items - queue.entry_items)
    if off == (0, 0) and not queue.ghosts:
        return
    details = []
    if queue.ghosts:
        details.append(
            f"{plural(queue.ghosts, 'chunk')} counted that {'is' if queue.ghosts == 1 else 'are'} not queued"
        )
    if off != (0, 0):
        details.append(f"{off[0]:+,} bytes and {off[1]:+,} items against what is counted one by one")
    yield Finding(
        Verdict.warn,
        what,
        f"the ledger is off ({'; '.join(details)}): producers hold back too early or too late",
        f"when nothing is queued for it, 'redis-cli del {queue.load_key}'",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


# --- the database


def _database(database: DatabaseFacts, *, named: bool) -> Iterator[Finding]:
    if not database.exists and named:
        yield Finding(
            Verdict.fail, "database", f"{database.path} is not there", "embed something, or name another file"
        )
    elif database.unusable is not None:
        yield _explained(database, database.unusable)
    elif database.unwritable is not None:
        yield _explained(database, database.unwritable)
    elif database.locked:
        detail = f"{database.path} was being written to all the time"
        yield Finding(Verdict.warn, "database", detail, "find the program that holds it, and end it")
    elif not database.exists:
        yield Finding(Verdict.ok, "database", f"{database.path} is not there yet, and can be made")
    else:
        yield Finding(Verdict.ok, "database", f"{database.path}, {size(database.bytes)}, can be written to")
    yield from _integrity(database)
    yield from _schema(database)
    if database.wal_bytes > WAL_WARN_BYTES:
        detail = f"the write-ahead log has grown to {size(database.wal_bytes)}: a reader keeps it from being emptied"
        yield Finding(Verdict.warn, "log", detail, "end programs that have been reading for long")
    elif database.exists:
        yield Finding(Verdict.ok, "log", f"the write-ahead log has {size(database.wal_bytes)}")
    yield from _disk(database)


def _explained(database: DatabaseFacts, problem: str) -> Finding:
    what, _, mend = problem.removeprefix(f"{database.path}: ").rpartition(": ")
    return Finding(Verdict.fail, "database", f"{database.path} {what or mend}", mend if what else "")


def _integrity(database: DatabaseFacts) -> Iterator[Finding]:
    if database.problems:
        detail = f"{database.path} is corrupt: {_some(database.problems)}"
        yield Finding(
            Verdict.fail, "integrity", detail, "restore a copy, or save what can be read with 'sqlite3 FILE .recover'"
        )
    elif database.problems is not None:
        yield Finding(Verdict.ok, "integrity", "nothing wrong was found")


def _schema(database: DatabaseFacts) -> Iterator[Finding]:
    if not database.exists or database.unusable is not None:
        return
    if database.schema is None:
        yield Finding(Verdict.ok, "schema", "llm's: embedq adds its own tables when it first writes")
    elif database.schema < SCHEMA_VERSION:
        detail = f"version {database.schema}; this embedq brings it to {SCHEMA_VERSION} when it first writes"
        yield Finding(Verdict.ok, "schema", detail)
    else:
        yield Finding(Verdict.ok, "schema", f"version {database.schema}")


def _disk(database: DatabaseFacts) -> Iterator[Finding]:
    free, whole = database.free_bytes, database.disk_bytes
    if free is None or not whole:
        yield Finding(Verdict.warn, "disk", "its free space can't be told", "look with 'df'")
        return
    detail = f"{size(free)} of {size(whole)} free"
    if free < DISK_FAIL_BYTES:
        yield Finding(Verdict.fail, "disk", detail, "free some space: vectors and the queue need it")
    elif free < DISK_WARN_SHARE * whole:
        yield Finding(Verdict.warn, "disk", detail, "free some space soon")
    else:
        yield Finding(Verdict.ok, "disk", detail)


# --- schedules, models and dead letters


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
