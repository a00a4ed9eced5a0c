"""`embedq doctor`: each kind of trouble is really made, seen, and said with its mend."""

import asyncio
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis

from embedq_core.settings import load_settings
from embedq_jobs import health, open_queue
from embedq_jobs.names import Names, job_id, lease_key, payload_key
from embedq_store.schema import SCHEMA_VERSION
from support.command_line import CommandLine, Result

NAMES = Names("embedq")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


@pytest.fixture
def queued(embedq: CommandLine, redis_url: str) -> str:
    """Two chunks of one item in a Redis of its own, and no worker; the id of the run."""
    embedq.environment |= {"EMBEDQ_REDIS_URL": redis_url, "EMBEDQ_CHUNK_ITEMS": "1"}
    return embedq("submit", "docs", "-", "-m", "recording", input="id,content\na,one\nb,two\n").out.strip()


def examined(embedq: CommandLine, *options: str, exit_code: int | None = 0) -> dict[str, list[str]]:
    """What the doctor finds: what it is about → verdict and words of each line."""
    lines: dict[str, list[str]] = {}
    for finding in json.loads(embedq("doctor", "--json", *options, exit_code=exit_code).out):
        assert set(finding) == {"verdict", "what", "detail", "mend"}
        if finding["verdict"] != "ok":
            assert finding["mend"], finding
        lines.setdefault(finding["what"], []).append(f"{finding['verdict']} {finding['detail']}: {finding['mend']}")
    return lines


def line(found: dict[str, list[str]], what: str) -> str:
    (only,) = found[what]
    return only


@contextmanager
def configured(client: redis.Redis, **values: str | int) -> Iterator[None]:
    """Settings of the tests' Redis, put back at the end."""
    before: dict[str, Any] = {}
    for name in values:
        before |= cast("dict[str, Any]", client.config_get(name))
    try:
        for name, value in values.items():
            client.config_set(name, value)
        yield
    finally:
        for name, value in before.items():
            client.config_set(name, value)


# --- all is well


def test_before_anything_was_done_nothing_is_wrong_and_nothing_is_made(embedq: CommandLine) -> None:
    found = examined(embedq)
    assert "ok private, not begun yet" in line(found, "redis")
    assert "is not there yet, and can be made" in line(found, "database")
    assert line(found, "models").startswith("ok")
    assert list(embedq.directory.iterdir()) == []


def test_a_sound_installation_is_told_so_line_by_line(embedq: CommandLine) -> None:
    embedq("ingest", "docs", "-", "-m", "recording", input="id,content\na,one\n")
    result = embedq("doctor", "--full")
    assert {text.split()[0] for text in result.out.splitlines() if text.split()[1] != "disk"} == {"ok"}
    assert [text.split()[1] for text in result.out.splitlines()] == [
        *("settings", "redis", "version", "persistence", "eviction", "memory", "clock", "workers", "queue"),
        *("database", "integrity", "schema", "log", "disk", "models", "dead"),
    ]
    starts = {text.index(text.split(maxsplit=2)[2]) for text in result.out.splitlines()}
    assert len(starts) == 1, "the columns are aligned"


# --- settings


def test_a_setting_that_can_not_be_used_is_all_there_is_to_say(embedq: CommandLine) -> None:
    result = embedq("doctor", exit_code=1, environment={"EMBEDQ_CHUNK_ITEMS": "many"})
    assert result.out.startswith("fail  settings  EMBEDQ_CHUNK_ITEMS must be a whole number, not 'many'")


def test_a_settings_file_with_a_url_that_others_can_read_is_named(embedq: CommandLine, redis_url: str) -> None:
    file = embedq.directory / "settings.toml"
    file.write_text(f'[embedq]\nredis_url = "{redis_url}"\n')
    embedq.environment["EMBEDQ_SETTINGS"] = str(file)
    file.chmod(0o644)
    assert line(examined(embedq), "settings").endswith(f"can be read by others: chmod 600 {file}")
    file.chmod(0o600)
    assert line(examined(embedq), "settings").startswith("ok")


# --- Redis


def test_a_redis_that_can_not_be_reached_is_a_failure_and_the_rest_is_looked_at(
    embedq: CommandLine, tmp_path: Path
) -> None:
    embedq.environment["EMBEDQ_REDIS_URL"] = f"unix://{tmp_path}/none.sock"
    found = examined(embedq, exit_code=1)
    assert line(found, "redis").startswith("fail Redis at ")
    assert line(found, "redis").endswith("start it, or check EMBEDQ_REDIS_URL")
    assert line(found, "database").startswith("ok")


def test_a_private_redis_that_can_not_be_started_is_a_failure(embedq: CommandLine) -> None:
    folder = embedq.database.with_name(embedq.database.name + ".embedq")
    folder.mkdir()
    (folder / "appendonly.aof").write_text("this is no append-only file\n")
    assert "did not start" in line(examined(embedq, exit_code=1), "redis")


@pytest.mark.usefixtures("queued")
def test_how_redis_is_set_up_is_looked_at(embedq: CommandLine, client: redis.Redis) -> None:
    used = int(cast("dict[str, Any]", client.info("memory"))["used_memory"])
    with configured(client, **{"maxmemory-policy": "allkeys-lru"}):
        assert line(examined(embedq), "eviction").startswith("warn allkeys-lru")
        with configured(client, maxmemory=2 * used + 10**7):
            assert line(examined(embedq, exit_code=1), "eviction").startswith("fail allkeys-lru")
    with configured(client, maxmemory=used // 2):
        assert "fail" in line(examined(embedq, exit_code=1), "memory")
    with configured(client, appendfsync="no"):
        assert line(examined(embedq), "persistence").startswith("warn")
    with configured(client, appendonly="no"):
        assert line(examined(embedq, exit_code=1), "persistence").endswith("set appendonly yes")
    assert line(examined(embedq), "persistence").startswith("ok append-only file, synced everysec")


@pytest.mark.usefixtures("queued")
def test_what_a_user_may_not_ask_redis_is_said_and_the_rest_is_looked_at(
    embedq: CommandLine, client: redis.Redis, redis_url: str
) -> None:
    rules = ["+@all", "-info", "-config", "-time"]
    client.acl_setuser("limited", enabled=True, passwords=["+pass"], keys=["*"], commands=rules)
    try:
        socket = redis_url.removeprefix("unix://")
        embedq.environment["EMBEDQ_REDIS_URL"] = f"unix://limited:pass@{socket}"
        found = examined(embedq)
    finally:
        client.acl_deluser("limited")
    for what in ("version", "persistence", "eviction", "memory", "clock"):
        assert line(found, what).startswith("warn Redis does not tell this user: allow +")
    assert "2 chunks" in line(found, "queue recording")


@pytest.mark.usefixtures("queued")
def test_a_clock_that_is_wrong_is_noticed(embedq: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look() -> float | None:
        async with open_queue(load_settings(redis_url=embedq.environment["EMBEDQ_REDIS_URL"])) as queue:
            return (await health.server_facts(queue)).clock_ahead

    ahead = asyncio.run(look())
    assert ahead is not None
    assert abs(ahead) < 1
    monkeypatch.setattr(health, "time", SimpleNamespace(time=lambda: time.time() + 3600))
    ahead = asyncio.run(look())
    assert ahead is not None
    assert -3601 < ahead < -3599


# --- the queues


@pytest.mark.usefixtures("queued")
def test_work_without_a_worker_is_a_warning(embedq: CommandLine) -> None:
    found = examined(embedq)
    assert line(found, "workers").startswith("warn")
    assert "no worker that serves them: run 'embedq worker'" in line(found, "queue recording")


def test_a_queue_that_is_served_is_well(embedq: CommandLine, client: redis.Redis, queued: str) -> None:
    report = {"host": "here", "pid": 1, "models": ["recording"], "seen": time.time()}
    client.hset(NAMES.workers, "here:1", json.dumps(report))
    client.set(lease_key(job_id(queued, 0)), "1", ex=15)
    found = examined(embedq)
    assert line(found, "workers") == "ok here:1: "
    assert line(found, "queue recording") == "ok 2 chunks, 2 items: "


def test_jobs_in_progress_that_no_live_worker_has_are_noticed(
    embedq: CommandLine, client: redis.Redis, queued: str
) -> None:
    report = {"host": "here", "pid": 1, "models": ["recording"], "seen": time.time() - 20}
    client.hset(NAMES.workers, "here:1", json.dumps(report))
    client.set(lease_key(job_id(queued, 0)), "1", ex=15)
    assert "1 chunk in progress, and no worker that lives has it" in line(examined(embedq), "queue recording")
    client.set(lease_key(job_id(queued, 0)), "1")
    found = line(examined(embedq, exit_code=1), "queue recording")
    assert f"a lease that does not end: {lease_key(job_id(queued, 0))}" in found


def test_a_queue_entry_whose_chunk_is_gone_is_a_failure_that_names_the_run(
    embedq: CommandLine, client: redis.Redis, queued: str
) -> None:
    client.delete(payload_key(job_id(queued, 1)))
    lines = examined(embedq, exit_code=1)["queue recording"]
    assert any(text.startswith("fail chunks are gone") and queued in text for text in lines)


def test_chunks_that_expire_soon_or_never_are_noticed(embedq: CommandLine, client: redis.Redis, queued: str) -> None:
    client.expire(payload_key(job_id(queued, 0)), 3 * 86400)
    client.persist(payload_key(job_id(queued, 1)))
    lines = " ".join(examined(embedq)["queue recording"])
    assert "a chunk expires in 3.0 days" in lines
    assert "1 chunk has no time to live" in lines


@pytest.mark.usefixtures("queued")
def test_a_ledger_that_is_off_is_noticed(embedq: CommandLine, client: redis.Redis) -> None:
    assert "ledger" not in " ".join(examined(embedq)["queue recording"])
    client.hincrby(NAMES.load("recording"), "bytes", 1000)
    client.hset(NAMES.load("recording"), "another:0", "10,1")
    found = " ".join(examined(embedq)["queue recording"])
    assert "1 chunk counted that is not queued; +990 bytes and -1 items" in found
    assert f"redis-cli del {NAMES.load('recording')}" in found


# --- the database


@pytest.fixture
def docs(embedq: CommandLine) -> CommandLine:
    rows = "id,content\n" + "".join(f"{number},text {number} {'x' * 500}\n" for number in range(200))
    embedq("ingest", "docs", "-", "-m", "recording", input=rows)
    return embedq


def test_a_database_that_was_named_and_is_not_there_is_a_failure(embedq: CommandLine) -> None:
    found = examined(embedq, "-d", "missing.db", exit_code=1)
    assert "missing.db is not there" in line(found, "database")


def test_what_is_no_database_is_a_failure(embedq: CommandLine) -> None:
    embedq.database.write_text("this is a text, and no database at all " * 50)
    assert line(examined(embedq, exit_code=1), "database").endswith("is not a SQLite database: name another file")
    embedq.database.unlink()
    embedq.database.mkdir()
    assert "is a directory" in embedq("doctor", exit_code=1).out


def test_a_database_or_a_folder_that_can_not_be_written_to_is_a_failure(docs: CommandLine) -> None:
    shutil.rmtree(docs.database.with_name(docs.database.name + ".embedq"))

    def database(result: Result) -> str:
        return next(text for text in result.out.splitlines() if text.startswith("fail"))

    docs.database.chmod(0o444)
    assert "can't be written to" in database(docs("doctor", exit_code=1, permissions_hold=True))
    docs.database.chmod(0o644)
    docs.directory.chmod(0o555)
    try:
        assert "can't be written to" in database(docs("doctor", exit_code=1, permissions_hold=True))
    finally:
        docs.directory.chmod(0o755)


def test_a_damaged_page_is_found(docs: CommandLine) -> None:
    with closing(sqlite3.connect(docs.database)) as db:
        ((page,),) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'embeddings'").fetchall()
        ((size,),) = db.execute("PRAGMA page_size").fetchall()
    with docs.database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)
    assert "is corrupt" in str(examined(docs, exit_code=1))


def test_an_index_that_does_not_fit_its_rows_is_found_by_the_full_check(docs: CommandLine) -> None:
    with closing(sqlite3.connect(docs.database)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute(
            "UPDATE sqlite_master SET sql = replace(sql, '\"content_hash\"', '\"metadata\"')"
            " WHERE name = 'idx_embeddings_content_hash'"
        )
        db.commit()
    assert line(examined(docs), "integrity").startswith("ok")
    assert "is corrupt" in line(examined(docs, "--full", exit_code=1), "integrity")


def test_a_database_of_a_newer_embedq_is_a_failure(docs: CommandLine) -> None:
    with closing(sqlite3.connect(docs.database)) as db:
        db.execute("UPDATE embedq_schema SET version = ?", (SCHEMA_VERSION + 1,))
        db.commit()
    assert line(examined(docs, exit_code=1), "database").endswith(": upgrade embedq")


def test_a_database_that_somebody_writes_to_all_the_time_is_a_warning(docs: CommandLine) -> None:
    with closing(sqlite3.connect(docs.database)) as other:
        other.execute("BEGIN IMMEDIATE")
        docs.environment["EMBEDQ_BUSY_SECONDS"] = "0.1"
        assert line(examined(docs), "database").startswith("warn")


def test_a_write_ahead_log_that_is_not_emptied_is_shown_with_its_size(docs: CommandLine) -> None:
    with closing(sqlite3.connect(docs.database)) as reader, closing(sqlite3.connect(docs.database)) as writer:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM embeddings").fetchall()
        for _ in range(3):
            writer.execute("UPDATE embeddings SET updated = updated + 1")
            writer.commit()
        size = docs.database.with_name(docs.database.name + "-wal").stat().st_size
        assert size > 50_000
        assert f"{size / 1024:.0f} KiB" in line(examined(docs), "log")


# --- models and dead letters


@pytest.mark.usefixtures("queued")
def test_a_model_that_no_plugin_has_is_named_with_what_needs_it(embedq: CommandLine) -> None:
    embedq("worker", "--burst")
    embedq("submit", "docs", "-", input="id,content\nc,three\n")
    embedq.environment["EMBEDQ_PLUGINS"] = "no_such_module"
    found = examined(embedq)
    assert [text.split(": ")[0] for text in found["model recording"]] == [
        "warn is not here, and the collection 'docs' needs it",
        "warn is not here, and its queue needs it",
    ]
    assert "No module named 'no_such_module'" in line(found, "plugin no_such_module")


def test_dead_letters_are_counted(embedq: CommandLine) -> None:
    embedq("ingest", "docs", "-", "-m", "poisoned", input="id,content\na,poison\nb,two\n", exit_code=1)
    found = line(examined(embedq), "dead")
    assert found.startswith("warn 1 dead letter: 1 ValueError of docs: 'embedq dead list'")


# --- re-embeddings


def test_a_re_embedding_that_waits_for_somebody_is_a_warning_with_its_reason(embedq: CommandLine) -> None:
    embedq("ingest", "docs", "-", "-m", "recording", input="id,content\na,one\nb,two\n")
    assert "reembed docs" not in examined(embedq)
    run = embedq("reembed", "docs", "-m", "recording-10").out.strip()
    assert "reembed docs" not in examined(embedq), "it goes on"
    embedq("runs", "cancel", run, "--yes")
    embedq("worker", "--burst")
    found = line(examined(embedq), "reembed docs")
    assert found.startswith(f"warn with recording-10, has stopped: its run {run} was cancelled: ")
    assert found.endswith("'embedq reembed docs -m recording-10' goes on, 'embedq reembed docs --cancel' ends it")
    embedq("reembed", "docs", "--cancel", "--yes")
    assert "reembed docs" not in examined(embedq)
