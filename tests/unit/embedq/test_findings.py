"""What facts mean: each kind of trouble has its line, with the mend, and a sound installation has none."""

from dataclasses import replace
from typing import Any

import pytest

from embedq.doctor.finding import Finding, Verdict
from embedq.doctor.findings import Facts, RedisFacts, SettingsFacts, findings
from embedq_jobs import Pause, Scope
from embedq_jobs.health import QueueFacts, ServerFacts, WorkerFacts
from embedq_store import DeadLetterSummary
from embedq_store.health import DatabaseFacts
from embedq_store.schema import SCHEMA_VERSION
from embedq_worker.timetable import Upcoming

GIB = 1024**3
DAY = 86400

SERVER = ServerFacts(
    version="7.4.1",
    replica=False,
    append_only=True,
    append_fsync="everysec",
    append_error=False,
    policy="noeviction",
    used_memory=GIB,
    maxmemory=4 * GIB,
    clock_ahead=0.01,
)
QUEUE = QueueFacts(
    model_id="m",
    jobs=3,
    sampled=3,
    lost=(),
    least_ttl=3650.0 * DAY,
    unexpiring=0,
    leased=1,
    stuck=(),
    oldest_due=5.0,
    load_key="embedq:load:m",
    bytes=300,
    items=30,
    entry_bytes=300,
    entry_items=30,
    ghosts=0,
)
DATABASE = DatabaseFacts(
    path="/data/x.db",
    exists=True,
    bytes=GIB,
    wal_bytes=4096,
    free_bytes=50 * GIB,
    disk_bytes=100 * GIB,
    unusable=None,
    unwritable=None,
    locked=False,
    schema=SCHEMA_VERSION,
    problems=(),
)
WORKER = WorkerFacts("host:1", ("m",))
SOUND = Facts(
    settings=SettingsFacts("/home/me/settings.toml", exists=True, exposed=False),
    redis=RedisFacts("localhost", embedded=False, server=SERVER, queues=(QUEUE,), workers=(WORKER,)),
    database=DATABASE,
    database_named=True,
    models=2,
)


def trouble(facts: Facts) -> list[Finding]:
    """What is not well."""
    return [finding for finding in findings(facts) if finding.verdict is not Verdict.ok]


def only_trouble(facts: Facts) -> Finding:
    (finding,) = trouble(facts)
    assert finding.mend, "there is always something to do"
    return finding


def with_server(**changes: object) -> Facts:
    return replace(SOUND, redis=replace(SOUND.redis, server=replace(SERVER, **changes)))  # type: ignore[arg-type]


def with_queue(changes: dict[str, Any], workers: tuple[WorkerFacts, ...] = (WORKER,)) -> Facts:
    queue = replace(QUEUE, **changes)
    return replace(SOUND, redis=replace(SOUND.redis, queues=(queue,), workers=workers))


def with_database(**changes: object) -> Facts:
    return replace(SOUND, database=replace(DATABASE, **changes))  # type: ignore[arg-type]


def test_a_sound_installation_is_well_and_every_part_of_it_is_named() -> None:
    found = findings(SOUND)
    assert {finding.verdict for finding in found} == {Verdict.ok}
    assert [finding.what for finding in found] == [
        *("settings", "redis", "version", "persistence", "eviction", "memory", "clock", "workers", "queue m"),
        *("database", "integrity", "schema", "log", "disk", "models", "dead"),
    ]
    assert not any(finding.mend for finding in found)


def test_before_anything_was_done_all_is_well() -> None:
    facts = replace(
        with_database(exists=False, bytes=0, wal_bytes=0, schema=None, problems=None),
        database_named=False,
        redis=RedisFacts("/usr/bin/redis-server", embedded=True),
    )
    assert trouble(facts) == []


@pytest.mark.parametrize(
    ("changes", "verdict", "what", "words"),
    [
        ({"version": "4.0.14"}, "fail", "version", "4.0.14"),
        ({"version": "5.0.14"}, "ok", "", ""),
        ({"append_only": False}, "fail", "persistence", "lost when Redis ends"),
        ({"append_error": True}, "fail", "persistence", "can't write its append-only file"),
        ({"append_fsync": "no"}, "warn", "persistence", "may lose"),
        ({"append_fsync": None}, "ok", "", ""),
        ({"policy": "allkeys-lru"}, "fail", "eviction", "allkeys-lru"),
        ({"policy": "allkeys-lru", "maxmemory": 0}, "warn", "eviction", "allkeys-lru"),
        ({"used_memory": GIB * 3.7}, "warn", "memory", "3.7 GiB of 4.0 GiB"),
        ({"used_memory": GIB * 4}, "fail", "memory", "nothing can be queued"),
        ({"used_memory": GIB * 400, "maxmemory": 0}, "ok", "", ""),
        ({"replica": True}, "fail", "role", "replica"),
        ({"clock_ahead": 2.0}, "warn", "clock", "2.0 s ahead"),
        ({"clock_ahead": -40.0}, "fail", "clock", "40 s behind"),
        ({"clock_ahead": -0.9}, "ok", "", ""),
        ({"clock_ahead": None}, "warn", "clock", "does not tell"),
        ({"append_only": None}, "warn", "persistence", "does not tell"),
    ],
)
def test_how_redis_is_set_up(changes: dict[str, object], verdict: str, what: str, words: str) -> None:
    facts = with_server(**changes)
    if verdict == "ok":
        assert trouble(facts) == []
        return
    finding = only_trouble(facts)
    assert (finding.verdict, finding.what) == (verdict, what)
    assert words in finding.detail


def test_a_redis_that_does_not_answer_is_one_line_with_its_mend() -> None:
    problem = "Redis at localhost can't be reached (connection refused): start it, or check EMBEDQ_REDIS_URL"
    facts = replace(SOUND, redis=RedisFacts("localhost", embedded=False, problem=problem))
    assert only_trouble(facts) == Finding(
        Verdict.fail,
        "redis",
        "Redis at localhost can't be reached (connection refused)",
        "start it, or check EMBEDQ_REDIS_URL",
    )


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({"lost": ("r1", "r2", "r3", "r4")}, "fail", "of 4 runs: r1, r2, r3 …"),
        ({"least_ttl": 29.0 * DAY}, "warn", "expires in 29.0 days"),
        ({"least_ttl": 31.0 * DAY}, "ok", ""),
        ({"least_ttl": None}, "ok", ""),
        ({"unexpiring": 2}, "warn", "2 chunks have no time to live"),
        ({"stuck": ("arq:in-progress:r:1",)}, "fail", "arq:in-progress:r:1"),
        ({"bytes": 400}, "warn", "+100 bytes and +0 items"),
        ({"items": 29}, "warn", "+0 bytes and -1 items"),
        ({"ghosts": 1}, "warn", "1 chunk counted that is not queued"),
        ({"leased": 0, "oldest_due": 59.0}, "ok", ""),
        ({"leased": 0, "oldest_due": 61.0}, "fail", "workers take none of 3 chunks"),
        ({"leased": 0, "oldest_due": None}, "ok", ""),
    ],
)
def test_what_is_in_a_queue(changes: dict[str, object], verdict: str, words: str) -> None:
    facts = with_queue(changes)
    if verdict == "ok":
        assert trouble(facts) == []
        return
    finding = only_trouble(facts)
    assert (finding.verdict, finding.what) == (verdict, "queue m")
    assert words in finding.detail


def test_jobs_in_progress_that_no_live_worker_has() -> None:
    other = WorkerFacts("host:2", ("another model",))
    finding = only_trouble(with_queue({}, (other,)))
    assert (finding.verdict, finding.detail) == ("warn", "1 chunk in progress, and no worker that lives has it")


def test_what_is_wrong_with_a_model_is_said_once_for_all_workers_that_serve_it() -> None:
    workers = tuple(WorkerFacts(f"host:{number}", ("m",), (("m", "HTTP 401"),)) for number in range(3))
    finding = only_trouble(with_queue({}, workers))
    assert (finding.verdict, finding.what, finding.detail) == ("warn", "model m", "HTTP 401")


def test_schedules_that_nobody_runs_or_that_did_not_end_well() -> None:
    nightly = Upcoming("nightly", 2000.0, 3600.0, "UTC", "done (for 2 missed times too)")
    disabled = Upcoming("old", None, None, "UTC", "failed (exit code 2)")
    facts = replace(SOUND, schedules=(nightly, disabled))
    alone = only_trouble(facts)
    assert (alone.verdict, alone.what, alone.mend) == ("warn", "schedules", "run 'embedq worker'")
    assert alone.detail.startswith("1 schedule, and no worker")
    late = only_trouble(replace(SOUND, schedules=(replace(nightly, seconds=-60.0),)))
    assert "1 schedule (nightly overdue)" in late.detail
    served = replace(facts, redis=replace(facts.redis, workers=(replace(WORKER, database=DATABASE.path),)))
    assert trouble(served) == []
    assert ("ok", "schedules", "1 schedule, the next due in 1h00m") in [each[:3] for each in findings(served)]
    failed = only_trouble(replace(served, schedules=(replace(nightly, last="failed (exit code 2)"),)))
    assert (failed.what, failed.mend) == ("schedule nightly", "see 'embedq schedule show nightly'")


def test_work_that_waits_and_nobody_who_does_it() -> None:
    first, second = trouble(with_queue({"leased": 0}, ()))
    assert (first.verdict, first.what, first.mend) == ("warn", "workers", "run 'embedq worker'")
    assert "no worker that serves them" in second.detail
    assert trouble(with_queue({"leased": 0, "oldest_due": None, "jobs": 0}, ())) == []


@pytest.mark.parametrize(
    ("changes", "verdict", "what", "words"),
    [
        ({"exists": False, "problems": None, "schema": None}, "fail", "database", "/data/x.db is not there"),
        ({"unusable": "/data/x.db: is no database: name another"}, "fail", "database", "/data/x.db is no database"),
        ({"unwritable": "/data/x.db: can't be written to: do it"}, "fail", "database", "can't be written to"),
        ({"locked": True}, "warn", "database", "being written to"),
        ({"problems": ("page 7 is bad", "page 8")}, "fail", "integrity", "page 7 is bad, page 8"),
        ({"wal_bytes": GIB}, "warn", "log", "1.0 GiB"),
        ({"free_bytes": 9 * GIB}, "warn", "disk", "9.0 GiB of 100 GiB free"),
        ({"free_bytes": 99 * 1024**2, "disk_bytes": 200 * 1024**2}, "fail", "disk", "99 MiB"),
        ({"free_bytes": None}, "warn", "disk", "can't be told"),
        ({"schema": None}, "ok", "", ""),
        ({"schema": SCHEMA_VERSION - 1}, "ok", "", ""),
    ],
)
def test_how_the_database_is(changes: dict[str, object], verdict: str, what: str, words: str) -> None:
    facts = with_database(**changes)
    if verdict == "ok":
        assert trouble(facts) == []
        return
    finding = only_trouble(facts)
    assert (finding.verdict, finding.what) == (verdict, what)
    assert words in finding.detail


def test_settings_that_others_can_read_models_that_are_missing_plugins_that_fail_and_dead_letters() -> None:
    facts = replace(
        SOUND,
        settings=replace(SOUND.settings, exposed=True),
        missing=(("gone", "the collection 'docs'"),),
        plugin_problems=(("mine", "ImportError: no module"),),
        dead=[DeadLetterSummary("docs", "ValueError", 1200), DeadLetterSummary("", "ChunkLost", 1)],
    )
    found = trouble(facts)
    assert [finding.verdict for finding in found] == [Verdict.warn] * 4
    assert [finding.what for finding in found] == ["settings", "plugin mine", "model gone", "dead"]
    assert found[3].detail == "1,201 dead letters: 1,200 ValueError of docs, 1 ChunkLost of no collection"
    assert all(finding.mend for finding in found)


@pytest.mark.parametrize("scope", [Scope(), Scope("model", "m")])
def test_a_queue_that_is_paused_is_not_stalled_and_the_pause_is_mentioned(scope: Scope) -> None:
    stalled = with_queue({"leased": 0, "oldest_due": 100_000.0})
    assert only_trouble(stalled).verdict is Verdict.fail
    finding = only_trouble(replace(stalled, redis=replace(stalled.redis, pauses=(Pause(scope, 1.0, "new weights"),))))
    assert (finding.verdict, finding.what) == (Verdict.warn, "paused")
    assert "(new weights)" in finding.detail
    assert finding.mend.startswith("'embedq resume")


@pytest.mark.parametrize("scope", [Scope("model", "other"), Scope("collection", "m")])
def test_a_pause_of_something_else_excuses_no_queue_that_is_stalled(scope: Scope) -> None:
    stalled = with_queue({"leased": 0, "oldest_due": 100_000.0})
    facts = replace(stalled, redis=replace(stalled.redis, pauses=(Pause(scope, 1.0),)))
    assert {finding.verdict for finding in trouble(facts)} == {Verdict.warn, Verdict.fail}
