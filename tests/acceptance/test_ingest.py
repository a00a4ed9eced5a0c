"""`embedq ingest`, as a user runs it: a corpus goes in, here and now."""

import gzip
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from embedq_jobs.connection import queue_directory
from embedq_jobs.embedded import EmbeddedRedis
from support.command_line import CommandLine
from support.waiting import BOUND_SECONDS

PETS: list[dict[str, Any]] = [
    {"id": "hound", "content": "my happy hound", "metadata": {"legs": 4}},
    {"id": "cat", "content": "my dissatisfied cat"},
]


def entries(database: Path) -> dict[str, tuple[str | None, str | None]]:
    """Id → content and metadata of everything that is stored."""
    db = sqlite3.connect(database)
    try:
        return {row[0]: (row[1], row[2]) for row in db.execute("SELECT id, content, metadata FROM embeddings")}
    finally:
        db.close()


def write_pets(embedq: CommandLine, name: str = "pets.jsonl") -> Path:
    path = embedq.directory / name
    path.write_text("\n".join(json.dumps(row) for row in PETS))
    return path


def test_a_file_goes_in_and_answers_come_out(embedq: CommandLine) -> None:
    result = embedq("ingest", "pets", write_pets(embedq), "-m", "hashing")
    assert "pets: 2 items in" in result.out
    assert "2 embedded" in result.out
    found = json.loads(embedq("similar", "pets", "-c", "happy hound", "-n", "1").out)
    assert found == {"id": "hound", "score": found["score"], "content": "my happy hound", "metadata": {"legs": 4}}
    assert found["score"] > 0.5


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pets.csv", "id,content\nhound,my happy hound\ncat,my dissatisfied cat\n"),
        ("pets.tsv", "id\tcontent\nhound\tmy happy hound\ncat\tmy dissatisfied cat\n"),
        ("pets.json", json.dumps([{"id": row["id"], "content": row["content"]} for row in PETS])),
        ("pets.nl", "\n".join(json.dumps({"id": row["id"], "content": row["content"]}) for row in PETS)),
        ("pets.csv", "name,first,second\nhound,my happy,hound\ncat,my,dissatisfied cat\n"),
    ],
)
def test_every_text_format_gives_the_same_entries(embedq: CommandLine, name: str, text: str) -> None:
    path = embedq.directory / name
    path.write_text(text)
    embedq("ingest", "pets", path, "-m", "recording")
    assert entries(embedq.database) == {"hound": ("my happy hound", None), "cat": ("my dissatisfied cat", None)}


def test_standard_input_and_compressed_files_go_in(embedq: CommandLine) -> None:
    embedq("ingest", "pets", "-", "-m", "recording", input="id,content\nhound,my happy hound\n")
    with gzip.open(embedq.directory / "cat.csv.gz", "wt") as file:
        file.write("id,content\ncat,my dissatisfied cat\n")
    embedq("ingest", "pets", "cat.csv.gz")
    assert set(entries(embedq.database)) == {"hound", "cat"}


def test_parquet_goes_in(embedq: CommandLine) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.table({"id": [row["id"] for row in PETS], "content": [row["content"] for row in PETS]})
    pa.parquet.write_table(table, embedq.directory / "pets.parquet")
    embedq("ingest", "pets", "pets.parquet", "-m", "recording")
    assert set(entries(embedq.database)) == {"hound", "cat"}


def test_files_by_glob_go_in_and_directories_may_be_several(embedq: CommandLine) -> None:
    for name in ("a/one.md", "a/deep/two.md", "a/no.txt", "b/three.txt"):
        path = embedq.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")
    embedq("ingest", "docs", "--files", "a", "**/*.md", "--files", "b", "*.txt", "-m", "recording")
    assert set(entries(embedq.database)) == {"one.md", "deep/two.md", "three.txt"}


def test_a_query_goes_in_with_attached_databases(embedq: CommandLine) -> None:
    for name in ("blog", "notes"):
        db = sqlite3.connect(embedq.directory / f"{name}.db")
        with db:
            db.execute("CREATE TABLE posts (id, title, body)")
            db.execute("INSERT INTO posts VALUES (?, 'a title', 'and a body')", (name,))
        db.close()
    query = "SELECT * FROM main.posts UNION ALL SELECT * FROM notes.posts"
    embedq("ingest", "docs", "blog.db", "--sql", query, "--attach", "notes", "notes.db", "-m", "recording")
    assert entries(embedq.database) == {"blog": ("a title and a body", None), "notes": ("a title and a body", None)}


def test_options_shape_ids_contents_and_metadata(embedq: CommandLine) -> None:
    path = embedq.directory / "rows.csv"
    path.write_text("id,title,text,lang\n1,Hound,my hound,en\n")
    options = ["--prefix", "pets/", "--prepend", "passage: ", "--metadata", "lang", "--metadata", "title"]
    embedq("ingest", "docs", path, "-m", "recording", *options)
    [(id_, (content, metadata))] = entries(embedq.database).items()
    assert (id_, content, json.loads(metadata or "")) == (
        "pets/1",
        "passage: my hound",
        {"lang": "en", "title": "Hound"},
    )


def test_without_store_only_vectors_are_kept_and_later_the_content_is_filled_in(embedq: CommandLine) -> None:
    path = write_pets(embedq)
    embedq("ingest", "pets", path, "-m", "recording", "--no-store")
    assert entries(embedq.database)["cat"] == (None, None)
    result = embedq("ingest", "pets", path)
    assert "2 unchanged, 2 of them updated" in result.out
    assert entries(embedq.database)["cat"] == ("my dissatisfied cat", None)
    assert len(embedq.batch_sizes) == 1


def test_a_second_run_calls_no_model(embedq: CommandLine) -> None:
    path = write_pets(embedq)
    embedq("ingest", "pets", path, "-m", "recording")
    result = embedq("ingest", "pets", path)
    assert "2 unchanged" in result.out
    assert "no model call" in result.out
    assert embedq.batch_sizes == [2]


def test_known_text_is_not_paid_for_again_under_another_id(embedq: CommandLine) -> None:
    rows = "id,content\n" + "".join(f"{number},same\n" for number in range(10))
    result = embedq("ingest", "docs", "-", "-m", "recording", input=rows)
    assert "1 embedded, 9 reused" in result.out
    result = embedq("ingest", "docs", "-", input="id,content\nnew,same\n")
    assert "1 reused" in result.out
    assert embedq.batch_sizes == [1]
    assert len(entries(embedq.database)) == 11


def test_batches_are_of_exactly_the_models_size(embedq: CommandLine) -> None:
    rows = "id,content\n" + "".join(f"{number},text {number}\n" for number in range(1000))
    embedq("ingest", "docs", "-", "-m", "recording-10", input=rows, environment={"EMBEDQ_CHUNK_ITEMS": "37"})
    assert embedq.batch_sizes == [10] * 100


def test_json_says_what_became_of_the_run(embedq: CommandLine) -> None:
    result = embedq("ingest", "pets", write_pets(embedq).name, "-m", "recording", "--json")
    summary = json.loads(result.out)
    expected = {"collection": "pets", "model": "recording", "state": "complete", "items": 2, "done": 2, "embedded": 2}
    assert {name: summary[name] for name in expected} == expected
    assert summary["source"] == "pets.jsonl"


def test_a_dry_run_says_what_would_happen_and_does_nothing(embedq: CommandLine) -> None:
    embedq("ingest", "docs", "-", "-m", "recording", input="id,content\na,one\nb,two\n")
    rows = "id,content\na,one\nb,changed\nc,two\nd,new\nd,newer\n"
    result = embedq("ingest", "docs", "-", "--dry-run", "--json", input=rows)
    told = json.loads(result.out)
    assert {name: told[name] for name in ("items", "new", "changed", "reused", "unchanged", "duplicates")} == {
        "items": 4,
        "new": 1,
        "changed": 1,
        "reused": 1,
        "unchanged": 1,
        "duplicates": 1,
    }
    assert told["characters"] == len("changed") + len("newer")
    assert set(entries(embedq.database)) == {"a", "b"}
    assert embedq.batch_sizes == [2]


def test_a_dry_run_counts_equal_contents_once_in_whichever_chunks_they_stand(embedq: CommandLine) -> None:
    rows = "id,content\n" + "".join(f"{number},text {number % 7}\n" for number in range(50))
    small = {"EMBEDQ_CHUNK_ITEMS": "10"}
    arguments = ("ingest", "docs", "-", "-m", "recording-10", "--json")
    told = json.loads(embedq(*arguments, "--dry-run", input=rows, environment=small).out)
    assert (told["items"], told["new"], told["reused"], told["inputs"]) == (50, 7, 43, 7)
    assert not queue_directory(embedq.database).exists(), "looking makes no queue"
    done = json.loads(embedq(*arguments, input=rows, environment=small).out)
    assert (done["inputs"], done["reused"]) == (told["inputs"], told["reused"])


def test_a_dry_run_says_how_long_as_long_as_a_run_of_the_model_tells(embedq: CommandLine) -> None:
    arguments = ("submit", "docs", "-", "--dry-run")
    rows = "id,content\n" + "".join(f"{number},text {number}\n" for number in range(16))
    first = embedq(*arguments, "-m", "slow", input=rows).out
    assert "how long it takes is not known: there is no finished run of slow to tell" in first
    assert "tokens, a guess: one for every 4 bytes" in first
    embedq("ingest", "docs", "-", "-m", "slow", input=rows)
    more = rows + "more,one\nand more,two\n"
    told = json.loads(embedq(*arguments, "--json", input=more).out)
    # Two calls, of 50 ms each.
    assert (told["measured"]["inputs"], told["measured"]["runs"]) == (16, 1)
    assert told["measured"]["seconds"] >= 0.1
    assert told["seconds"] == pytest.approx(2 * told["measured"]["seconds"] / 16, abs=0.001)
    assert ": 16 contents in 1 run of slow took " in embedq(*arguments, input=more).out
    assert "took" not in embedq(*arguments, input=rows).out, "there is nothing to embed"


def test_a_dry_run_needs_no_redis_that_answers(embedq: CommandLine) -> None:
    away = {"EMBEDQ_REDIS_URL": "unix:///nowhere/redis.sock"}
    result = embedq("submit", "docs", "-", "-m", "rec", "--dry-run", input="id,content\na,one\n", environment=away)
    assert "docs (recording): 1 item: 1 new" in result.out
    assert "how fast the model was can't be asked" in result.err


def test_an_empty_file_is_no_failure(embedq: CommandLine) -> None:
    result = embedq("ingest", "docs", "-", "--format", "nl", "-m", "recording", input="")
    assert "0 items" in result.out


def test_nothing_is_left_running(embedq: CommandLine) -> None:
    embedq("ingest", "pets", write_pets(embedq), "-m", "recording")
    folder = queue_directory(embedq.database)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not (folder / "redis.sock").exists()


def wait_for_calls(embedq: CommandLine, count: int) -> None:
    deadline = time.monotonic() + BOUND_SECONDS
    while len(embedq.batch_sizes) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_the_middle_it_goes_on_and_pays_for_nothing_twice(
    embedq: CommandLine, number: signal.Signals
) -> None:
    rows = embedq.directory / "rows.csv"
    rows.write_text("id,content\n" + "".join(f"{number},text {number}\n" for number in range(200)))
    process = embedq.start("ingest", "docs", rows, "-m", "slow")
    wait_for_calls(embedq, 5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=BOUND_SECONDS)
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert "items stay queued" in errors
    stored = len(entries(embedq.database)) if embedq.database.exists() else 0
    paid = sum(embedq.batch_sizes)
    if number != signal.SIGKILL:
        assert stored == paid
    embedq("ingest", "docs", rows, "-m", "slow")
    assert len(entries(embedq.database)) == 200
    # What was killed between the model and the commit, at most a second's worth, is paid for again.
    assert sum(embedq.batch_sizes) == 200 + paid - stored
    embedq("worker", "--burst")
    assert json.loads(embedq("status", "--json").out)["items"] == 0
    assert sum(embedq.batch_sizes) == 200 + paid - stored


def test_a_private_redis_that_is_killed_under_it_comes_back_and_everything_is_stored_once(embedq: CommandLine) -> None:
    rows = embedq.directory / "rows.csv"
    rows.write_text("id,content\n" + "".join(f"{number},text {number}\n" for number in range(100)))
    process = embedq.start("ingest", "docs", rows, "-m", "slow")
    wait_for_calls(embedq, 2)
    socket = EmbeddedRedis(queue_directory(embedq.database)).socket
    with redis.Redis(unix_socket_path=str(socket)) as client:
        os.kill(int(client.info("server")["process_id"]), signal.SIGKILL)
    out, errors = process.communicate(timeout=BOUND_SECONDS)
    assert process.returncode == 0, errors
    assert "100 items" in out
    assert errors.count("waiting for it to come back") <= 1, errors
    assert errors.count("had ended: started again") == 1, errors
    assert len(entries(embedq.database)) == 100
    assert sum(embedq.batch_sizes) == 100


def test_on_a_terminal_a_bar_shows_how_far_it_is(embedq: CommandLine) -> None:
    rows = embedq.directory / "rows.csv"
    rows.write_text("id,content\n" + "".join(f"{number},text {number}\n" for number in range(200)))
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        embedq.command("ingest", "docs", rows, "-m", "slow"),
        cwd=embedq.directory,
        env={**embedq.environment, "TERM": "xterm", "COLUMNS": "60"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=follower,
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(leader)
    assert process.wait(BOUND_SECONDS) == 0
    shares = [int(found) for found in re.findall(r"(\d+)%", seen.decode())]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert any(0 < share < 100 for share in shares)


def test_elsewhere_there_are_plain_lines(embedq: CommandLine) -> None:
    result = embedq("ingest", "pets", write_pets(embedq), "-m", "recording")
    assert "\x1b" not in result.out + result.err
    assert "\r" not in result.out + result.err
