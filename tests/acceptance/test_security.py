"""Nothing is executed that was only to be read, nothing secret is said, and whatever is data stays data."""

import ast
import json
import os
import pickle
import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import redis

from embedq_core.settings import load_settings
from embedq_jobs import job_id
from embedq_jobs.names import Names, payload_key
from support.chunks import RUN
from support.command_line import CommandLine
from support.waiting import BOUND_SECONDS

ROOT = Path(__file__).parents[2]
PACKAGES = [
    ROOT / room
    for room in (
        "core/embedq_core",
        "jobs/embedq_jobs",
        "plugins/embedq_plugins",
        "store/embedq_store",
        "worker/embedq_worker",
        "producer/embedq_producer",
        "embedq",
    )
]
EXECUTING = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle"}
SECRET = "s3cret/with:every@thing?"  # noqa: S105 - of a Redis that is empty
QUOTED = "s3cret%2Fwith%3Aevery%40thing%3F"

# What a terminal obeys, what SQL, a format string, a shell or a markup might, and what isn't seen.
HOSTILE = "\x1b[2J\x1b]0;title\x07'\"; DROP TABLE embeddings; --\x9b31m{0}%s$(id)[red]\u202e\r\n"


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


def test_none_of_our_packages_imports_anything_that_executes_what_it_reads() -> None:
    files = [path for package in PACKAGES for path in package.rglob("*.py")]
    assert len(files) > 50
    assert {path.name: found for path in files if (found := imported(path) & EXECUTING)} == {}


class Touching:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_the_queue_is_buried_byte_for_byte_and_never_executed(
    embedq: CommandLine, redis_url: str, tmp_path: Path
) -> None:
    trap = tmp_path / "executed"
    payload = pickle.dumps({"t": 1, "f": "embed_chunk", "a": (Touching(trap),), "k": {}, "et": 1})
    job, names = job_id(RUN, 0), Names("embedq")
    with closing(redis.Redis.from_url(redis_url)) as client:
        client.set(payload_key(job), payload)
        client.zadd(names.queue("recording"), {job: time.time() * 1000})
        client.sadd(names.models, "recording")
    environment = {"EMBEDQ_REDIS_URL": redis_url}
    embedq("worker", "--burst", environment=environment)
    assert not trap.exists()
    with closing(sqlite3.connect(embedq.database)) as db:
        assert db.execute("SELECT content_blob, error FROM embedq_dead").fetchall() == [(payload, "ChunkUndecodable")]


def test_the_password_of_redis_is_in_no_log_line_message_process_list_or_dead_letter(
    embedq: CommandLine, redis_url: str
) -> None:
    with closing(redis.Redis.from_url(redis_url)) as client:
        client.acl_setuser(
            "ann", enabled=True, passwords=[f"+{SECRET}"], keys=["*"], channels=["*"], commands=["+@all"]
        )
        url = redis_url.replace("unix://", f"unix://ann:{QUOTED}@")
        environment = {"EMBEDQ_REDIS_URL": url, "EMBEDQ_LOG_LEVEL": "debug"}
        commands = [("submit", "docs", "-", "-m", "poisoned"), ("worker", "--burst"), ("status", "--json")]
        said = [embedq(*each, input="id,content\na,poison\n", environment=environment) for each in commands]
        wrong = embedq("status", exit_code=1, environment={"EMBEDQ_REDIS_URL": url.replace("s3cret", "s3cre7")})
        worker = embedq.start_apart("worker", "--processes", "2", environment=environment)
        try:
            assert worker.stderr is not None
            lines = [worker.stderr.readline()]
            process = Path("/proc", str(worker.pid))
            # Where there is no /proc, there is no such list.
            listed = process / "task" / str(worker.pid) / "children"
            family = (
                [process, *(Path("/proc", child) for child in listed.read_text().split())] if listed.exists() else []
            )
            lines += [(each / "cmdline").read_text() for each in family]
        finally:
            worker.terminate()
            out, err = worker.communicate(timeout=BOUND_SECONDS)
        client.acl_deluser("ann")
    everything = "".join([*(each.out + each.err for each in said), wrong.out, wrong.err, *lines, out, err])
    everything += repr(load_settings(redis_url=url))
    with closing(sqlite3.connect(embedq.database)) as db:
        everything += repr(list(db.iterdump()))
    assert "poison" in everything
    assert "s3cre" not in everything


def test_everything_beside_the_database_is_for_its_owner_alone(embedq: CommandLine) -> None:
    before = os.umask(0)
    try:
        embedq("ingest", "docs", "-", "-m", "recording", input="id,content\na,one\n")
    finally:
        os.umask(before)
    folder = embedq.database.with_name(embedq.database.name + ".embedq")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    assert files
    assert {path.name for path in files if stat.S_IMODE(path.stat().st_mode) != 0o600} == set()


def test_a_source_of_sql_is_only_read(embedq: CommandLine) -> None:
    source = embedq.directory / "blog.db"
    with closing(sqlite3.connect(source)) as db:
        db.execute("CREATE TABLE posts (id, content)")
        db.execute("INSERT INTO posts VALUES ('a', 'one')")
        db.commit()
    before = source.read_bytes()
    for query in (
        "DELETE FROM posts RETURNING id, content",
        "INSERT INTO posts VALUES ('b', 'two') RETURNING *",
        "SELECT * FROM posts; DROP TABLE posts",
        "ATTACH 'other.db' AS other",
        "PRAGMA journal_mode = WAL",
        "VACUUM INTO 'copy.db'",
    ):
        assert embedq("ingest", "docs", source, "--sql", query, "-m", "recording", exit_code=None).exit_code != 0
    embedq("ingest", "docs", source, "--sql", "SELECT * FROM posts", "-m", "recording")
    assert source.read_bytes() == before
    assert {path.name for path in embedq.directory.iterdir()} <= {"blog.db", *names_of(embedq.database)}


def names_of(database: Path) -> set[str]:
    return {database.name + suffix for suffix in ("", "-wal", "-shm", ".embedq")}


def test_links_do_not_lead_out_of_the_directory_of_files(embedq: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "private.txt").write_text("private")
    docs = embedq.directory / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("public")
    (docs / "link.txt").symlink_to(tmp_path / "private.txt")
    (docs / "folder").symlink_to(tmp_path, target_is_directory=True)
    result = embedq("ingest", "files", "--files", "docs", "**/*.txt", "-m", "recording")
    assert "1 embedded" in result.out
    assert "link out of the directory" in result.err
    with closing(sqlite3.connect(embedq.database)) as db:
        assert db.execute("SELECT id, content FROM embeddings").fetchall() == [("a.txt", "public")]


def safe(text: str) -> bool:
    """Whether a terminal shows `text` as it is: lines, and nothing that it would obey."""
    return all(character == "\n" or (character.isprintable() and character != "\u202e") for character in text)


def test_ids_names_contents_and_messages_of_any_characters_are_data_in_every_command(embedq: CommandLine) -> None:
    collection, source = f"docs{HOSTILE}", embedq.directory / "ro\x1b[31mws.jsonl"
    rows: list[dict[str, Any]] = [
        {"id": f"a{HOSTILE}", "content": f"good {HOSTILE}", "metadata": {HOSTILE: HOSTILE}},
        {"id": f"b{HOSTILE}", "content": f"poison {HOSTILE}"},
        {"id": "", "content": HOSTILE},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    submitted = embedq("submit", collection, source, "-m", "poisoned", "--metadata", "metadata")
    run = submitted.out.strip()
    results = [
        submitted,
        embedq("worker", "--burst", environment={"EMBEDQ_LOG_LEVEL": "debug"}),
        embedq("ingest", collection, source, exit_code=1),
        embedq("ingest", collection, source, "--dry-run", exit_code=None),
        embedq("ingest", HOSTILE, HOSTILE, exit_code=2),
        embedq("embed", collection, f"c{HOSTILE}", "-c", "good"),
        embedq("similar", collection, "-c", "good", "--plain"),
        embedq("similar", collection, f"c{HOSTILE}", "--plain"),
        embedq("similar", collection, f"none{HOSTILE}", exit_code=2),
        embedq("similar", HOSTILE, "-c", "x", exit_code=2),
        embedq("runs", "list"),
        embedq("runs", "show", run),
        embedq("runs", "wait", run, exit_code=1),
        embedq("runs", "show", HOSTILE, exit_code=2),
        embedq("dead", "list"),
        embedq("dead", "list", "--collection", collection),
        embedq("collections", "list"),
        embedq("collections", "show", collection),
        embedq("collections", "show", HOSTILE, exit_code=2),
        embedq("models", "default", HOSTILE, exit_code=2),
        embedq("worker", "-m", HOSTILE, "--burst", exit_code=2),
        embedq("status"),
        *(
            embedq(*command, "--json")
            for command in (("runs", "list"), ("dead", "list"), ("collections", "list"), ("status",))
        ),
    ]
    assert [result for result in results if not safe(result.out + result.err)] == []
    with closing(sqlite3.connect(embedq.database)) as db:
        stored = dict(db.execute("SELECT id, content FROM embeddings WHERE content IS NOT NULL").fetchall())
        dead = {row[0] for row in db.execute("SELECT id FROM embedq_dead")}
        names = [row[0] for row in db.execute("SELECT name FROM collections")]
    assert stored[rows[0]["id"]] == rows[0]["content"]
    assert set(stored) == {f"a{HOSTILE}", f"c{HOSTILE}"}
    assert (dead, names) == ({rows[1]["id"]}, [collection])
    assert "\x1b" not in embedq("collections", "delete", collection, "--yes").out


def test_no_level_of_the_log_shows_a_content(embedq: CommandLine) -> None:
    embedq("submit", "docs", "-", "-m", "recording", input="id,content\na,my private diary\n")
    result = embedq("worker", "--burst", environment={"EMBEDQ_LOG_LEVEL": "debug"})
    assert "1 embedded" in result.err
    assert "diary" not in result.err
