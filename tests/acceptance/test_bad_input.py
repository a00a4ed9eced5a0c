"""Bad input: one clear line that says what, where and what to do; nothing that is good is lost."""

import json
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from support.command_line import CommandLine, Result
from support.waiting import BOUND_SECONDS


def write(embedq: CommandLine, name: str, text: str | bytes) -> Path:
    path = embedq.directory / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def rows(embedq: CommandLine, *contents: str) -> Path:
    lines = [json.dumps({"id": f"i{number}", "content": content}) for number, content in enumerate(contents)]
    return write(embedq, "rows.jsonl", "\n".join(lines))


def only_line(result: Result) -> str:
    """What was said on stderr, which must be one line of ours."""
    lines = result.err.strip().splitlines()
    assert len(lines) == 1, result
    assert "Traceback" not in result.err
    return lines[0]


def stored(embedq: CommandLine, collection: str = "docs") -> dict[str, str]:
    with sqlite3.connect(embedq.database) as db:
        query = "SELECT e.id, e.content FROM embeddings e JOIN collections c ON c.id = collection_id WHERE name = ?"
        found = dict(db.execute(query, (collection,)))
    db.close()
    return found


# --- rows that can't be read are reported and skipped


@pytest.mark.parametrize(
    ("bad", "where", "problem"),
    [
        ('{"id": "x", "content": ', "rows.jsonl line 2", "isn't valid JSON"),
        ('{"content": "no id here"}', "rows.jsonl line 2", "no id"),
        ('{"id": "", "content": "text"}', "rows.jsonl line 2", "id is empty"),
        ('{"id": null, "content": "text"}', "rows.jsonl line 2", "id is null"),
        ('{"id": "x", "content": null}', "rows.jsonl line 2, id 'x'", "content is null"),
        ('{"id": "x", "content": ""}', "rows.jsonl line 2, id 'x'", "content is empty"),
        ('{"id": "x", "content": "text", "metadata": [1]}', "rows.jsonl line 2, id 'x'", "metadata isn't an object"),
        ('{"id": "x", "content": "\\ud800"}', "rows.jsonl line 2", "surrogate"),
        (b'{"id": "x", "content": "\xff\xfe"}', "rows.jsonl line 2", "utf-8"),
    ],
)
def test_a_bad_row_is_named_and_skipped_and_the_others_go_in(
    embedq: CommandLine, bad: str | bytes, where: str, problem: str
) -> None:
    line = bad.encode() if isinstance(bad, str) else bad
    path = write(embedq, "rows.jsonl", b'{"id": "a", "content": "one"}\n' + line + b'\n{"id": "b", "content": "two"}\n')
    result = embedq("ingest", "docs", path.name, "-m", "recording")
    assert f"skipped: {where}" in result.err
    assert problem.lower() in result.err.lower()
    assert "1 row skipped" in result.err
    assert stored(embedq) == {"a": "one", "b": "two"}


def test_strict_stops_at_the_first_bad_row(embedq: CommandLine) -> None:
    path = write(embedq, "rows.jsonl", '{"id": "a", "content": ""}\n{"id": "b", "content": "two"}\n')
    result = embedq("ingest", "docs", path.name, "-m", "recording", "--strict", exit_code=1)
    assert only_line(result) == "embedq: rows.jsonl line 1, id 'a': the content is empty"


def test_nothing_but_bad_rows_is_a_failure(embedq: CommandLine) -> None:
    path = write(embedq, "rows.jsonl", "not json\n")
    embedq("ingest", "docs", path.name, "-m", "recording", exit_code=1)


def test_of_duplicate_ids_the_last_wins_and_they_are_counted(embedq: CommandLine) -> None:
    path = write(embedq, "rows.csv", "id,content\na,first\nb,other\na,second\na,third\n")
    result = embedq("ingest", "docs", path, "-m", "recording")
    assert "2 duplicate ids: the last one of each won" in result.err
    assert stored(embedq) == {"a": "third", "b": "other"}


def test_of_duplicate_ids_in_different_chunks_the_last_wins_too(embedq: CommandLine) -> None:
    lines = [f"{number % 7},text {number}" for number in range(40)]
    path = write(embedq, "rows.csv", "id,content\n" + "\n".join(lines) + "\n")
    result = embedq("ingest", "docs", path, "-m", "recording", environment={"EMBEDQ_CHUNK_ITEMS": "3"})
    assert "33 duplicate ids" in result.err
    assert stored(embedq) == {str(number % 7): f"text {number}" for number in range(33, 40)}


def test_an_undecodable_file_is_named_and_skipped(embedq: CommandLine) -> None:
    write(embedq, "good.txt", "fine")
    write(embedq, "bad.txt", b"\xff\xfe\xfa")
    result = embedq("ingest", "docs", "--files", ".", "*.txt", "--encoding", "utf-8", "-m", "recording")
    assert "bad.txt" in result.err
    assert stored(embedq) == {"good.txt": "fine"}


# --- items that can't be embedded are dead letters


def dead(embedq: CommandLine) -> list[dict[str, object]]:
    letters: list[dict[str, object]] = json.loads(embedq("dead", "list", "--json").out)
    return letters


@pytest.mark.parametrize(
    ("model", "error", "problem"),
    [
        ("too-few", "WrongVectorCount", "the model returned 0 vectors for a batch of 1"),
        ("too-many", "WrongVectorCount", "the model returned more than 1 vectors for a batch of 1"),
    ],
)
def test_a_model_that_returns_too_few_or_too_many_vectors_loses_nothing(
    embedq: CommandLine, model: str, error: str, problem: str
) -> None:
    path = rows(embedq, "one", "two", "three")
    result = embedq("ingest", "docs", path, "-m", model, exit_code=1)
    assert "3 dead" in result.out
    assert "3 items could not be embedded: see 'embedq dead list --run" in result.err
    letters = dead(embedq)
    assert {letter["id"]: letter["content"] for letter in letters} == {"i0": "one", "i1": "two", "i2": "three"}
    assert {letter["error"] for letter in letters} == {error}
    assert {letter["message"] for letter in letters} == {problem}


@pytest.mark.parametrize(
    ("model", "content", "problem"),
    [
        ("nan", "a nan here", "NaN or infinity"),
        ("infinite", "inf", "NaN or infinity"),
        ("ragged", "a wide one", "a vector of 9 dimensions among vectors of 8 dimensions"),
        ("poisoned", "poison", "this model can't take poison"),
    ],
)
def test_a_bad_vector_kills_its_item_alone(embedq: CommandLine, model: str, content: str, problem: str) -> None:
    path = rows(embedq, "one", "two", content, "three")
    result = embedq("ingest", "docs", path, "-m", model, exit_code=1)
    assert "3 embedded, 1 dead" in result.out
    [letter] = dead(embedq)
    assert letter["id"] == "i2"
    assert problem in str(letter["message"])
    assert set(stored(embedq)) == {"i0", "i1", "i3"}


def test_a_vector_of_another_dimension_than_the_collections_is_refused(embedq: CommandLine) -> None:
    embedq("ingest", "docs", rows(embedq, "one"), "-m", "ragged")
    embedq("ingest", "docs", write(embedq, "wide.csv", "id,content\nw,wide\n"), exit_code=1)
    [letter] = dead(embedq)
    assert letter["message"] == (
        "the model ragged returned a vector of 9 dimensions; the collection 'docs' holds vectors of 8"
    )
    assert set(stored(embedq)) == {"i0"}
    assert only_line(embedq("similar", "docs", "-c", "wide", exit_code=2)) == (
        "embedq: the query has 9 dimensions; the collection's vectors have 8"
    )


def test_binary_input_to_a_text_only_model_is_refused_at_once(embedq: CommandLine) -> None:
    write(embedq, "x.png", b"\x89PNG")
    result = embedq("ingest", "docs", "--files", ".", "*.png", "--binary", "-m", "recording", exit_code=2)
    assert only_line(result) == (
        "embedq: the model recording takes text only: leave --binary out, or name another model"
    )


def test_text_input_to_a_binary_only_model_is_refused_at_once(embedq: CommandLine) -> None:
    result = embedq("ingest", "docs", rows(embedq, "one"), "-m", "binary", exit_code=2)
    assert only_line(result) == ("embedq: the model binary takes binary content only: use --binary with --files")


def test_a_single_value_of_the_wrong_kind_is_a_dead_letter(embedq: CommandLine) -> None:
    source = embedq.directory / "source.db"
    with sqlite3.connect(source) as db:
        db.execute("CREATE TABLE t (id, content)")
        db.executemany("INSERT INTO t VALUES (?, ?)", [("text", "one"), ("bytes", b"two")])
    db.close()
    embedq("ingest", "docs", source, "--sql", "SELECT id, content FROM t", "-m", "recording", exit_code=1)
    [letter] = dead(embedq)
    assert (letter["id"], letter["error"]) == ("bytes", "UnsupportedContent")
    assert stored(embedq) == {"text": "one"}


# --- names that nobody knows


def test_an_unknown_model_is_answered_with_close_matches(embedq: CommandLine) -> None:
    result = embedq("ingest", "docs", rows(embedq, "one"), "-m", "recordin", exit_code=2)
    assert "there is no model 'recordin'. Did you mean 'recording'" in only_line(result)


def test_an_unknown_collection_is_answered_with_close_matches(embedq: CommandLine) -> None:
    embedq("ingest", "docs", rows(embedq, "one"), "-m", "recording")
    result = embedq("similar", "dcos", "-c", "x", exit_code=2)
    assert "there is no collection 'dcos'" in only_line(result)
    assert "Did you mean 'docs'?" in result.err


def test_an_unknown_format_is_answered_with_those_there_are(embedq: CommandLine) -> None:
    result = embedq("ingest", "docs", rows(embedq, "one"), "--format", "xml", exit_code=2)
    assert only_line(result) == "embedq: there is no format 'xml': there are csv, tsv, json, nl, parquet"


def test_another_model_than_the_collections_is_refused(embedq: CommandLine) -> None:
    embedq("ingest", "docs", rows(embedq, "one"), "-m", "rec")
    result = embedq("ingest", "docs", rows(embedq, "two"), "-m", "prepared", exit_code=2)
    assert only_line(result) == (
        "embedq: the collection 'docs' was embedded with recording, not with prepared: "
        "leave -m out, or name another collection, or see 'embedq reembed docs -m prepared'"
    )
    assert stored(embedq) == {"i0": "one"}


# --- files


def test_a_file_that_is_not_there_is_named(embedq: CommandLine) -> None:
    assert only_line(embedq("ingest", "docs", "missing.csv", exit_code=2)) == "embedq: missing.csv doesn't exist"


def test_a_directory_is_no_file(embedq: CommandLine) -> None:
    result = embedq("ingest", "docs", ".", exit_code=2)
    assert "is a directory" in only_line(result)
    assert "--files" in result.err


def test_a_file_that_is_not_readable_is_named(embedq: CommandLine) -> None:
    path = rows(embedq, "one")
    path.chmod(0)
    result = embedq("ingest", "docs", path.name, exit_code=2, permissions_hold=True)
    assert "rows.jsonl" in only_line(result)
    assert "permission denied" in result.err.lower()


# --- the database


def test_a_corrupt_database_is_named(embedq: CommandLine) -> None:
    embedq("ingest", "docs", rows(embedq, *(f"text {number}" for number in range(200))), "-m", "recording")
    with embedq.database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (embedq.database.stat().st_size - 4096))
    result = embedq("ingest", "docs", rows(embedq, "one"), exit_code=1)
    assert "embeddings.db: is corrupt" in only_line(result)


def test_a_file_that_is_no_database_is_named_and_left_alone(embedq: CommandLine) -> None:
    embedq.database.write_text("This is a diary, and no database at all.\n" * 50)
    result = embedq("ingest", "docs", rows(embedq, "one"), exit_code=1)
    assert "embeddings.db: is not a SQLite database" in only_line(result)
    assert embedq.database.read_text().startswith("This is a diary")


def test_a_directory_is_no_database(embedq: CommandLine) -> None:
    embedq.database.mkdir()
    result = embedq("ingest", "docs", rows(embedq, "one"), exit_code=1)
    assert "is a directory, not a database file" in only_line(result)


def test_a_read_only_database_is_named(embedq: CommandLine) -> None:
    embedq("ingest", "docs", rows(embedq, "one"), "-m", "recording")
    embedq.database.chmod(0o444)
    result = embedq("ingest", "docs", rows(embedq, "two"), exit_code=1, permissions_hold=True)
    assert "embeddings.db: can't be written to" in only_line(result)


def test_a_read_only_database_can_still_be_searched(embedq: CommandLine) -> None:
    embedq("ingest", "docs", rows(embedq, "one"), "-m", "recording")
    embedq.database.chmod(0o444)
    result = embedq("similar", "docs", "-c", "one", permissions_hold=True)
    assert json.loads(result.out)["id"] == "i0"


def test_a_locked_database_is_named(embedq: CommandLine) -> None:
    embedq("ingest", "docs", rows(embedq, "one"), "-m", "recording")
    other = sqlite3.connect(embedq.database, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    try:
        result = embedq("ingest", "docs", rows(embedq, "two"), exit_code=1, environment={"EMBEDQ_BUSY_SECONDS": "0.2"})
    finally:
        other.close()
    assert "embeddings.db: is locked by another program" in only_line(result)


# --- the queue


@pytest.mark.parametrize("command", [("status",), ("submit", "docs", "rows.jsonl"), ("runs", "list")])
def test_an_unreachable_redis_is_named_without_its_password(embedq: CommandLine, command: tuple[str, ...]) -> None:
    rows(embedq, "one")
    url = "redis://someone:s3cret@127.0.0.1:1/0"
    result = embedq(*command, exit_code=1, environment={"EMBEDQ_REDIS_URL": url})
    assert "Redis at 127.0.0.1:1 can't be reached" in only_line(result)
    assert "s3cret" not in result.err


def test_a_url_that_is_none_is_named(embedq: CommandLine) -> None:
    result = embedq("status", exit_code=2, environment={"EMBEDQ_REDIS_URL": "http://s3cret@localhost"})
    assert only_line(result) == (
        "embedq: EMBEDQ_REDIS_URL must start with redis://, rediss://, unix:// or redis+sentinel://, not 'http'"
    )


def test_a_plugin_that_fails_names_itself_and_takes_nothing_down(embedq: CommandLine) -> None:
    plugin = write(embedq, "broken.py", "import a_library_that_is_not_there\n")
    result = embedq("ingest", "docs", rows(embedq, "one"), "-m", "hash", environment={"EMBEDQ_PLUGINS": str(plugin)})
    assert "broken.py" in result.err
    assert "a_library_that_is_not_there" in result.err
    assert "1 embedded" in result.out


def test_names_and_contents_cannot_command_the_terminal(embedq: CommandLine) -> None:
    path = write(embedq, "rows.jsonl", json.dumps({"id": "a\x1b[2Jb", "content": "poison\x1b]0;x\x07"}))
    embedq("ingest", "d\x1b[31m", path.name, "-m", "poisoned", exit_code=1)
    for command in (("dead", "list"), ("runs", "list"), ("collections", "list"), ("status",)):
        assert "\x1b" not in embedq(*command).out


# --- arguments that are no text, and files that can't be the database


@pytest.mark.parametrize(
    "arguments",
    [
        ("similar", "\udcff", "-c", "x"),
        ("similar", "docs", "\udcff"),
        ("similar", "docs", "-c", "x", "--prefix", "\udcff"),
        ("collections", "export", "docs", "--prefix", "\udcff"),
        ("reembed", "\udcff", "-m", "recording"),
        ("runs", "show", "\udcff"),
        ("pause", "--collection", "\udcff"),
        ("pause", "--reason", "\udcff"),
        ("resume", "-m", "\udcff"),
    ],
)
def test_an_argument_that_is_no_text_is_refused_before_anything_is_asked(
    embedq: CommandLine, arguments: tuple[str, ...]
) -> None:
    assert only_line(embedq(*arguments, exit_code=2)).startswith("embedq: '\\\\udcff' is no text in UTF-8: it holds")
    assert list(embedq.directory.iterdir()) == []


@pytest.mark.parametrize("command", ["status", "doctor", "runs", "collections", "worker"])
def test_a_path_that_no_database_can_have_is_one_line(embedq: CommandLine, command: str) -> None:
    said = embedq(command, "-d", "x" * 300, exit_code=None)
    assert "can't be the database: file name too long" in said.out + said.err
    assert "Traceback" not in said.err
    assert said.exit_code in (1, 2)


@pytest.mark.parametrize(
    "arguments", [("submit", "docs", "queue", "--dry-run"), ("similar", "docs", "--batch", "queue")]
)
def test_ctrl_c_ends_what_waits_for_a_pipe_that_gives_nothing(embedq: CommandLine, arguments: tuple[str, ...]) -> None:
    embedq("embed", "docs", "a", "-c", "text", "-m", "recording")
    os.mkfifo(embedq.directory / "queue")
    process = embedq.start(*arguments)
    try:
        with (embedq.directory / "queue").open("w"):  # opens once it is read
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(BOUND_SECONDS)
    finally:
        process.kill()
    assert (process.returncode, out, errors) == (130, "", "")
