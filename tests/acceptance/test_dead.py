"""`embedq dead`: what could not be embedded is seen whole, tried again, or thrown away when it is said so."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from embedq_core.digests import content_hash
from embedq_jobs.names import job_id, payload_key
from support.command_line import CommandLine
from support.waiting import BOUND_SECONDS

PLUGIN = """
import os
from embedq import hookimpl
from support.models import FaultyModel, raising

def refuse(batch):
    if not os.environ.get("TAKES_POISON"):
        raising(batch)

@hookimpl
def register_embedding_models(register):
    register(FaultyModel(refuse, "mendable"))
"""


@pytest.fixture
def buried(embedq: CommandLine) -> CommandLine:
    """A model that may be mended, an item that is stored, and three dead letters in two collections."""
    (embedq.directory / "mendable.py").write_text(PLUGIN)
    embedq.environment["EMBEDQ_PLUGINS"] += f":{embedq.directory / 'mendable.py'}"
    rows = [
        {"id": "a", "content": "poison\tone\n\x1b[31mtwo", "metadata": {"n": 1.50, "é": [1]}},
        {"id": "b", "content": "fine"},
        {"id": "c", "content": "more poison"},
    ]
    text = "\n".join(map(json.dumps, rows))
    embedq("ingest", "docs", "-", "--format", "nl", "-m", "mendable", input=text, exit_code=1)
    embedq("ingest", "pets", "-", "-m", "poisoned", input="id,content\na,poison for pets\n", exit_code=1)
    return embedq


def letters(embedq: CommandLine, *selection: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(embedq("dead", "list", *selection, "--json").out)
    return found


def ids(embedq: CommandLine, *selection: str) -> list[tuple[str, str]]:
    return sorted((letter["collection"], letter["id"]) for letter in letters(embedq, *selection))


def stored(embedq: CommandLine, collection: str = "docs") -> dict[str, tuple[str | bytes, str | None]]:
    query = (
        "SELECT e.id, coalesce(e.content, e.content_blob), e.metadata FROM embeddings e"
        " JOIN collections c ON c.id = e.collection_id WHERE c.name = ?"
    )
    with closing(sqlite3.connect(embedq.database)) as db:
        return {id_: (content, metadata) for id_, content, metadata in db.execute(query, (collection,))}


# --- list and show


def test_dead_letters_are_selected_by_id_key_collection_run_and_error(buried: CommandLine) -> None:
    assert ids(buried) == [("docs", "a"), ("docs", "c"), ("pets", "a")]
    assert ids(buried, "a") == [("docs", "a"), ("pets", "a")]
    assert ids(buried, "a", "c", "--collection", "docs") == [("docs", "a"), ("docs", "c")]
    (pet,) = letters(buried, "--collection", "pets")
    assert ids(buried, "--run", pet["run"]) == [("pets", "a")]
    assert ids(buried, "--key", str(pet["key"])) == [("pets", "a")]
    assert ids(buried, "--error", "ValueError", "-n", "2") == [("docs", "c"), ("pets", "a")]
    assert ids(buried, "--error", "KeyError") == []
    assert "no dead letters" in buried("dead", "list", "nobody").out


def test_the_list_shows_keys_and_no_control_characters(buried: CommandLine) -> None:
    lines = buried("dead").out.splitlines()
    assert lines[0].split() == ["key", "id", "collection", "error", "message", "died", "run"]
    assert [line.split()[0] for line in lines[1:]] == [str(letter["key"]) for letter in letters(buried)]
    assert "\x1b" not in "".join(lines)


def test_one_is_shown_whole_and_of_several_with_the_same_id_all(buried: CommandLine) -> None:
    shown = buried("dead", "show", "a", "--collection", "docs").out
    (letter,) = letters(buried, "a", "--collection", "docs")
    assert letter["content"] == "poison\tone\n\x1b[31mtwo"
    assert letter["content_bytes"] == len(letter["content"])
    fields = dict(line.split(maxsplit=1) for line in shown.splitlines()[:11])
    assert fields["key"] == str(letter["key"])
    assert fields["run"] == f"{letter['run']}, chunk 0"
    assert fields["model"] == "mendable"
    assert (fields["error"], fields["message"]) == ("ValueError", "this model can't take poison")
    assert fields["attempts"] == str(letter["attempts"])
    assert json.loads(letter["metadata"]) == {"n": 1.5, "é": [1]}
    assert fields["metadata"] == letter["metadata"]
    assert shown.endswith("content     text, 19 B\n  poison  one\n  \\x1b[31mtwo\n")
    assert buried("dead", "show", "a").out.count("this model can't take poison") == 2
    assert json.loads(buried("dead", "show", "a", "--json").out) == letters(buried, "a")


def test_the_content_is_written_to_a_file_byte_for_byte(embedq: CommandLine) -> None:
    content = bytes(range(256))
    (embedq.directory / "x.bin").write_bytes(content)
    with closing(sqlite3.connect(embedq.directory / "source.db")) as source:
        source.execute("CREATE TABLE t (id, content)")
        source.execute("INSERT INTO t VALUES ('x', ?)", (content,))
        source.commit()
    embedq("ingest", "docs", "source.db", "--sql", "SELECT id, content FROM t", "-m", "recording", exit_code=1)
    assert "binary, 256 B: --raw FILE writes it to a file" in embedq("dead", "show", "x").out
    embedq("dead", "show", "x", "--raw", "saved.bin")
    assert (embedq.directory / "saved.bin").read_bytes() == content
    (letter,) = json.loads(embedq("dead", "show", "x", "--json").out)
    assert (letter["content"], letter["content_bytes"]) == (None, 256)
    assert "can't be written" in embedq("dead", "show", "x", "--raw", "no/such/folder", exit_code=2).err


def test_what_can_not_be_meant_is_refused_and_nothing_changes(buried: CommandLine) -> None:
    before = letters(buried)
    for arguments, problem in (
        (("show",), "say which"),
        (("requeue",), "or --all"),
        (("purge",), "or --all"),
        (("requeue", "a", "--all"), "--all leaves no choice"),
        (("purge", "--run", "x", "--all"), "--all leaves no choice"),
        (("show", "nobody"), "there is no dead letter 'nobody'"),
        (("requeue", "nobody"), "there is no dead letter 'nobody'"),
        (("purge", "--key", "4711"), "there is no dead letter --key 4711"),
        (("show", "a", "--raw", "x"), "--raw is for one dead letter, and 2 match"),
        (("show", "a", "--raw", "x", "--json"), "--json and --raw"),
        (("list", "\udcff"), "no dead letter can be named"),
    ):
        result = buried("dead", *arguments, exit_code=2)
        assert problem in result.err
        assert len(result.err.splitlines()) == 1
    assert letters(buried) == before


def test_without_any_database_there_are_none(embedq: CommandLine) -> None:
    for command in ("requeue", "purge"):
        result = embedq("dead", command, "--all")
        assert "no dead letters" in result.out + result.err
    assert "there is no dead letter" in embedq("dead", "show", "a", exit_code=2).err
    assert json.loads(embedq("dead", "list", "--json").out) == []
    assert list(embedq.directory.iterdir()) == []
    assert "there is no such database" in embedq("dead", "purge", "--all", "-d", "x.db", exit_code=1).err


# --- requeue


def test_what_is_requeued_and_then_succeeds_is_stored_as_it_came_and_dead_no_longer(buried: CommandLine) -> None:
    (letter,) = letters(buried, "a", "--collection", "docs")
    result = buried("dead", "requeue", "a", "--collection", "docs")
    run = result.out.strip()
    assert "queued 1 item for docs (mendable)" in result.err
    assert len(letters(buried)) == 3, "a letter stays until its item is stored"
    buried("worker", "--burst", environment={"TAKES_POISON": "1"})
    assert stored(buried) == {"a": (letter["content"], letter["metadata"]), "b": ("fine", None)}
    assert ids(buried) == [("docs", "c"), ("pets", "a")]
    shown = json.loads(buried("runs", "show", run, "--json").out)
    assert (shown["state"], shown["embedded"], shown["source"]) == ("complete", 1, "dead letters")


def test_one_that_fails_again_stays_once_with_its_key_and_its_attempts_added_up(buried: CommandLine) -> None:
    before = {letter["key"]: letter["attempts"] for letter in letters(buried, "--collection", "docs")}
    run = buried("dead", "requeue", "--collection", "docs").out.strip()
    buried("worker", "--burst")
    after = letters(buried, "--collection", "docs")
    assert {letter["key"] for letter in after} == before.keys()
    assert all(letter["attempts"] > before[letter["key"]] for letter in after)
    assert {letter["run"] for letter in after} == {run}


def test_all_are_requeued_as_a_run_for_each_collection_and_model(buried: CommandLine) -> None:
    runs = buried("dead", "requeue", "--all").out.split()
    assert len(runs) == 2
    found = {run["run"]: run for run in json.loads(buried("runs", "--json").out)}
    assert {found[run]["collection"]: (found[run]["model"], found[run]["items"]) for run in runs} == {
        "docs": ("mendable", 2),
        "pets": ("poisoned", 1),
    }


def test_requeueing_twice_stores_once_though_the_second_is_in_a_hurry(buried: CommandLine) -> None:
    queued = json.loads(buried("dead", "requeue", "c", "--json").out)
    assert [(each["collection"], each["model"], each["items"]) for each in queued] == [("docs", "mendable", 1)]
    second = buried("dead", "requeue", "c", "--priority", "high").out.strip()
    buried("worker", "--burst", environment={"TAKES_POISON": "1"})
    run = json.loads(buried("runs", "show", second, "--json").out)
    assert (run["state"], run["priority"]) == ("complete", "high")
    assert set(stored(buried)) == {"b", "c"}
    assert ids(buried, "c") == []


def test_many_are_cut_into_chunks_and_the_producer_holds_back(buried: CommandLine) -> None:
    rows = "id,content\n" + "".join(f"{number},poison {number} {'x' * 200}\n" for number in range(300))
    buried("ingest", "many", "-", "-m", "mendable", input=rows, exit_code=1)
    small = {"EMBEDQ_CHUNK_ITEMS": "40", "EMBEDQ_CHUNK_BYTES": "5000", "EMBEDQ_QUEUE_BYTES": "20000"}
    worker = buried.start("worker", environment={"TAKES_POISON": "1"})
    try:
        run = buried("dead", "requeue", "--collection", "many", environment=small).out.strip()
        assert json.loads(buried("runs", "wait", run, "--json").out)["embedded"] == 300
    finally:
        worker.terminate()
        worker.communicate(timeout=BOUND_SECONDS)
    assert json.loads(buried("runs", "show", run, "--json").out)["chunks"] > 12
    assert len(stored(buried, "many")) == 300
    assert ids(buried, "--collection", "many") == []


def test_a_text_that_was_corrected_in_its_source_is_dead_no_longer(buried: CommandLine) -> None:
    with closing(sqlite3.connect(buried.database)) as db:
        # Run ids tell seconds, and this test takes less than one.
        db.execute("UPDATE embedq_dead SET died = died - 60")
        db.commit()
    buried("ingest", "docs", "-", input="id,content\na,a better text\n")
    assert ids(buried) == [("docs", "c"), ("pets", "a")]


def test_letters_for_another_model_than_the_collection_has_stay_and_it_is_said(buried: CommandLine) -> None:
    with closing(sqlite3.connect(buried.database)) as db:
        db.execute("UPDATE embedq_dead SET model = 'recording' WHERE collection = 'docs' AND id = 'c'")
        db.commit()
    result = buried("dead", "requeue", "--collection", "docs", exit_code=1)
    assert len(result.out.split()) == 1, "the other is requeued"
    assert (
        "1 dead letter of 'docs' can't be requeued, being for the model recording, where the collection has mendable"
        in result.err
    )


def test_a_chunk_that_can_not_be_read_can_not_be_requeued_and_its_bytes_are_had(
    embedq: CommandLine, redis_url: str
) -> None:
    embedq.environment["EMBEDQ_REDIS_URL"] = redis_url
    run = embedq("submit", "docs", "-", "-m", "recording", input="id,content\na,one\n").out.strip()
    with redis.Redis.from_url(redis_url) as client:
        client.set(payload_key(job_id(run, 0)), b"\xc1 no msgpack", ex=10**6)
    embedq("worker", "--burst")
    (letter,) = letters(embedq)
    assert (letter["collection"], letter["id"], letter["error"]) == ("", f"{run}:0", "ChunkUndecodable")
    result = embedq("dead", "requeue", "--all", exit_code=1)
    assert "1 chunk for recording can't be requeued" in result.err
    assert "submit the source again, then purge it" in result.err
    embedq("dead", "show", f"{run}:0", "--raw", "chunk.bin")
    assert (embedq.directory / "chunk.bin").read_bytes() == b"\xc1 no msgpack"
    assert len(letters(embedq)) == 1


def test_what_is_stored_all_the_same_is_not_queued(buried: CommandLine) -> None:
    (letter,) = letters(buried, "c")
    with closing(sqlite3.connect(buried.database)) as db:
        # As another tool may do.
        db.execute(
            "INSERT INTO embeddings (collection_id, id, embedding, content_hash)"
            " SELECT collection_id, 'c', embedding, ? FROM embeddings WHERE id = 'b'",
            (content_hash("another text"),),
        )
        db.commit()
    buried("dead", "requeue", "c")
    assert letters(buried, "c") == [letter], "another content under the same id"
    with closing(sqlite3.connect(buried.database)) as db:
        db.execute("UPDATE embeddings SET content_hash = ? WHERE id = 'c'", (content_hash("more poison"),))
        db.commit()
    result = buried("dead", "requeue", "c")
    assert "1 item had been stored since: no longer dead" in result.err
    assert result.out == ""
    assert letters(buried, "c") == []


def test_when_redis_can_not_be_reached_the_letters_stay(buried: CommandLine, tmp_path: Path) -> None:
    nowhere = {"EMBEDQ_REDIS_URL": f"unix://{tmp_path}/none.sock"}
    assert "can't be reached" in buried("dead", "requeue", "--all", exit_code=1, environment=nowhere).err
    assert len(letters(buried)) == 3


# --- purge


def test_a_purge_asks_and_deletes_what_was_named(buried: CommandLine) -> None:
    result = buried("dead", "purge", "a", input="n\n", exit_code=1)
    assert "Delete 2 dead letters for good (docs, pets)?" in result.err
    assert len(letters(buried)) == 3
    assert "deleted 1 dead letter" in buried("dead", "purge", "a", "--collection", "pets", input="y\n").out
    assert ids(buried) == [("docs", "a"), ("docs", "c")]
    purged = buried("dead", "purge", "c", "--json", input="y\n")
    assert (json.loads(purged.out), purged.err[:6]) == ({"deleted": 1}, "Delete")
    assert "deleted 1 dead letter" in buried("dead", "purge", "--all", "--yes").out
    assert json.loads(buried("dead", "purge", "--all", "--json").out) == {"deleted": 0}
    assert json.loads(buried("dead", "requeue", "--all", "--json").out) == []
    assert letters(buried) == []
    assert set(stored(buried)) == {"b"}


def test_programs_are_told_what_was_requeued_and_what_was_purged(buried: CommandLine) -> None:
    queued = json.loads(buried("dead", "requeue", "--all", "--json").out)
    assert sorted((run["collection"], run["items"]) for run in queued) == [("docs", 2), ("pets", 1)]
    assert json.loads(buried("dead", "purge", "--all", "--yes", "--json").out) == {"deleted": 3}
    assert json.loads(buried("dead", "purge", "--all", "--yes", "--json").out) == {"deleted": 0}
