"""The other commands, each through the real program."""

import asyncio
import base64
import json
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import embedq as package
from embedq_core.vectors import decode
from embedq_jobs import Queue
from embedq_store import Store
from support.chunks import RUN, run
from support.command_line import CommandLine
from support.models import RecordingModel, vector_of
from support.parsing import commands
from support.terminals import Terminal
from support.waiting import BOUND_SECONDS


def submit(embedq: CommandLine, rows: str, *options: str, collection: str = "docs") -> str:
    """Submit CSV rows; the id of the run."""
    return embedq("submit", collection, "-", *options, input="id,content\n" + rows).out.strip()


@pytest.fixture
def docs(embedq: CommandLine) -> CommandLine:
    """A collection of three."""
    rows = "id,content\na/1,first text\na/2,second text\nb/1,third text\n"
    embedq("ingest", "docs", "-", "-m", "recording", input=rows)
    return embedq


# --- submit, worker, runs


def test_submit_prints_the_run_and_a_worker_does_it_later(embedq: CommandLine) -> None:
    result = embedq("submit", "docs", "-", "-m", "recording", input="id,content\na,one\nb,two\n")
    run = result.out.strip()
    assert "queued 2 items for docs (recording)" in result.err
    assert json.loads(embedq("runs", "show", run, "--json").out)["state"] == "queued"
    done = embedq("worker", "--burst", "--json")
    shown = json.loads(embedq("runs", "show", run, "--json").out)
    assert (shown["state"], shown["done"], shown["embedded"]) == ("complete", 2, 2)
    told = json.loads(done.out)
    assert {name: told[name] for name in ("done", "embedded", "calls", "inputs", "chunks", "processes")} == {
        "done": 2,
        "embedded": 2,
        "calls": 1,
        "inputs": 2,
        "chunks": 1,
        "processes": 1,
    }
    assert "INFO serving recording" in done.err


def test_a_run_says_how_urgent_it_is(embedq: CommandLine) -> None:
    for name, *options in (("backfill",), ("urgent", "--priority", "high"), ("late", "--priority", "normal")):
        embedq("submit", name, "-", "-m", "recording", *options, input=f"id,content\na,{name}\n")
    refused = embedq("submit", "docs", "-", "--priority", "urgent", input="id,content\na,x\n", exit_code=2)
    (queue,) = json.loads(embedq("status", "--json").out)["queues"]
    assert (queue["jobs"], queue["high"]) == (3, 1)
    assert " 1 of 3 " in embedq("status").out
    assert "'urgent' is not one of 'high', 'normal'" in " ".join(refused.err.replace("│", " ").split())
    embedq("worker", "--burst")
    runs = json.loads(embedq("runs", "list", "--json").out)
    assert "priority     high\n" in embedq("runs", "show", runs[1]["run"]).out
    assert [(run["collection"], run["priority"], run["state"]) for run in runs] == [
        ("late", "normal", "complete"),
        ("urgent", "high", "complete"),
        ("backfill", "normal", "complete"),
    ]


def test_two_hundred_single_items_make_few_calls(embedq: CommandLine, redis_url: str) -> None:
    environment = {"EMBEDQ_REDIS_URL": redis_url, "EMBEDQ_CHUNK_ITEMS": "1"}
    rows = "id,content\n" + "".join(f"{number},text {number}\n" for number in range(200))
    embedq("submit", "docs", "-", "-m", "recording-32", input=rows, environment=environment)
    embedq("worker", "--burst", environment=environment)
    assert sum(embedq.batch_sizes) == 200
    # Seven would do. What comes late, on a machine that is busy, waits for no more than a moment for others.
    assert len(embedq.batch_sizes) <= 50


def test_whoever_waits_while_a_worker_works_gets_the_same_summary(embedq: CommandLine) -> None:
    worker = embedq.start("worker")
    try:
        result = embedq("submit", "docs", "-", "-m", "poisoned", "--wait", input="id,content\na,one\n")
        assert "docs: 1 item in" in result.out
        rows = "id,content\na,two\na,one more\np,poison\n\nb\n"
        submitted = embedq("submit", "docs", "-", "--wait", input=rows, exit_code=1)
        run = json.loads(embedq("runs", "--json").out)[0]["run"]
        waited = embedq("runs", "wait", run, exit_code=1)
        told = json.loads(embedq("runs", "wait", run, "--json", exit_code=1).out)
    finally:
        worker.send_signal(signal.SIGTERM)
        _, log = worker.communicate(timeout=BOUND_SECONDS)
    assert waited.out == submitted.out
    assert waited.out.startswith("docs: 2 items in ")
    for result in (submitted, waited):
        assert "1 duplicate id: the last one of each won" in result.err
        assert f"1 item could not be embedded: see 'embedq dead list --run {run}'" in result.err
    assert (told["run"], told["dead"], told["embedded"], told["share"]) == (run, 1, 1, 1)
    assert told["batch_fill"] == pytest.approx(told["inputs"] / (told["calls"] * told["batch_size"]), abs=0.0001)
    assert worker.returncode == 0
    assert "serving poisoned" in log
    assert "Traceback" not in log
    assert "one more" not in log


def test_several_worker_processes_share_the_work(embedq: CommandLine) -> None:
    rows = "".join(f"{number},text {number}\n" for number in range(300))
    submit(embedq, rows, "-m", "recording-10")
    told = json.loads(embedq("worker", "--burst", "--processes", "2", "--json").out)
    assert (told["processes"], told["silent"], told["done"], told["inputs"]) == (2, 0, 300, 300)
    assert list(told["models"]) == ["recording-10"]
    assert sum(embedq.batch_sizes) == 300
    assert json.loads(embedq("runs", "--json").out)[0]["state"] == "complete"


def test_who_ends_by_itself_says_what_has_to_be_mended_and_leaves_it_queued(embedq: CommandLine) -> None:
    """A job of the night must not hang for ever on a key that has run out."""
    submit(embedq, "a,one\n", "-m", "keyed")
    refused = "keyed: HTTP 401: the key in EMBEDQ_TEST_KEY is wrong"
    left = f"embedq: {refused}; 1 chunk stays queued until that is mended\n"
    assert embedq("worker", "--burst", exit_code=1).err.endswith(left)
    ingested = embedq("ingest", "docs", "-", "--prune", "--yes", input="id,content\nb,two\n", exit_code=1)
    assert f"embedq: {refused}; 2 chunks stay queued until that is mended; then the same command, or" in ingested.err
    assert "nothing was pruned" in ingested.err
    assert ingested.out.startswith("docs: 0 items in ")
    assert "the key in EMBEDQ_TEST_KEY is wrong; what is queued" in ingested.err
    assert [run["state"] for run in json.loads(embedq("runs", "--json").out)] == ["queued", "queued"]


def test_a_burst_of_several_processes_ends_when_none_of_them_can_work(embedq: CommandLine) -> None:
    embedq.database.write_text("no database" * 1000)
    said = embedq("worker", "--burst", "--processes", "2", exit_code=1).err
    assert said.count("is not a SQLite database") == 2


def test_a_worker_may_serve_one_model_only(embedq: CommandLine) -> None:
    submit(embedq, "a,one\n", "-m", "recording", collection="first")
    submit(embedq, "b,two\n", "-m", "recording-10", collection="second")
    embedq("worker", "--burst", "-m", "rec")
    states = {run["collection"]: run["state"] for run in json.loads(embedq("runs", "list", "--json").out)}
    assert states == {"first": "complete", "second": "queued"}


def test_a_worker_for_an_unknown_model_says_so(embedq: CommandLine) -> None:
    result = embedq("worker", "--burst", "-m", "recordin", exit_code=2)
    assert "there is no model 'recordin'" in result.err


def test_a_shared_queue_knows_the_model_of_a_collection_without_the_database(
    embedq: CommandLine, redis_url: str, tmp_path: Path
) -> None:
    shared = {"EMBEDQ_REDIS_URL": redis_url}
    embedq("submit", "docs", "-", "-m", "rec", input="id,content\na,one\n", environment=shared)
    elsewhere = {**shared, "EMBEDQ_DATABASE": str(tmp_path / "elsewhere.db")}
    result = embedq("submit", "docs", "-", "--json", input="id,content\nb,two\n", environment=elsewhere)
    assert json.loads(result.out)["model"] == "recording"
    embedq("submit", "docs", "-", "-m", "prepared", input="id,content\nb,two\n", environment=elsewhere, exit_code=2)


def test_runs_wait_ends_when_the_run_does(embedq: CommandLine) -> None:
    run = submit(embedq, "a,one\n", "-m", "slow")
    waiting = embedq.start("runs", "wait", run)
    embedq("worker", "--burst")
    out, _ = waiting.communicate(timeout=BOUND_SECONDS)
    assert waiting.returncode == 0
    assert out.splitlines()[0].endswith("): 1 embedded")
    assert out.splitlines()[1].startswith(f"run {run}, 1 model call, in ")


async def test_a_run_that_was_not_sent_to_its_end_is_not_said_to_be_well(
    embedq: CommandLine, redis_url: str, queue: Queue
) -> None:
    await queue.runs.open(run())
    await queue.runs.close(RUN, 0, skipped=2, duplicates=0, interrupted=True)
    shared = {"EMBEDQ_REDIS_URL": redis_url}
    result = await asyncio.to_thread(embedq, "runs", "wait", RUN, exit_code=1, environment=shared)
    assert f"run {RUN} (interrupted), no model call, in " in result.out
    assert result.err == "2 rows skipped\n"


def test_runs_are_listed_by_collection_and_state(embedq: CommandLine) -> None:
    embedq("ingest", "docs", "-", "-m", "recording-10", input="id,content\na,one\nb,two\n")
    waiting = submit(embedq, "a,one\n", "-m", "recording", collection="others")
    (run,) = json.loads(embedq("runs", "--collection", "others", "--json").out)
    assert (run["run"], run["share"], run["seconds_left"], run["batch_fill"]) == (waiting, 0, None, None)
    (run,) = json.loads(embedq("runs", "list", "--state", "complete", "--json").out)
    assert (run["collection"], run["share"], run["batch_fill"]) == ("docs", 1, 0.2)
    assert run["items_per_second"] > 0
    assert embedq("runs", "--collection", "nobody").out == "no such runs\n"
    assert "--state takes queued, in_progress," in embedq("runs", "--state", "done", exit_code=2).err
    shown = embedq("runs", "show", run["run"]).out
    assert re.search(r"^items +2 of 2 done \(100%\), \d+ B$", shown, re.MULTILINE)
    assert re.search(r"^batches +20% full, of 10$", shown, re.MULTILINE)


def test_status_and_runs_fit_a_narrow_terminal(embedq: CommandLine, redis_url: str) -> None:
    shared = {"EMBEDQ_REDIS_URL": redis_url}
    for name in ("a-collection-with-a-rather-long-name", "docs"):
        embedq("submit", name, "-", "-m", "recording", input="id,content\na,one\n", environment=shared)
    environment = embedq.environment | shared
    for arguments in (("status",), ("runs",)):
        with Terminal(embedq.command(*arguments), embedq.directory, environment, columns=60, rows=40) as terminal:
            assert terminal.end() == 0
            (heads, *rows) = [line for line in terminal.lines if line.startswith(("run ", "2"))]
            assert len(rows) == 2
            assert heads.split() == ["run", "state", "collection", "done", "left", "…"]
            assert "a-colle" in terminal.text
            assert "with-a-rather-long-name" not in terminal.text


def test_an_unknown_run_is_answered_with_close_ones(embedq: CommandLine) -> None:
    run = submit(embedq, "a,one\n", "-m", "recording")
    result = embedq("runs", "show", run[:-1] + "?", exit_code=2)
    assert f"Did you mean {run!r}?" in result.err


def test_an_interrupted_submission_says_so(embedq: CommandLine) -> None:
    rows = embedq.directory / "rows.csv"
    rows.write_text("id,content\n" + "".join(f"{number},text {number}\n" for number in range(100)))
    small = {"EMBEDQ_QUEUE_BYTES": "1", "EMBEDQ_CHUNK_ITEMS": "10"}
    process = embedq.start("submit", "docs", rows, "-m", "recording", environment=small)
    status: dict[str, Any] = {"queues": []}
    while not status["queues"]:
        assert process.poll() is None
        status = json.loads(embedq("status", "--json").out)
    # The first chunk fills the queue, and nobody empties it: the producer holds back.
    assert status["queues"][0]["jobs"] == 1
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=BOUND_SECONDS)
    assert process.returncode == 130
    assert "interrupted: what was queued stays queued" in errors
    embedq("worker", "--burst")
    assert json.loads(embedq("runs", "--json").out)[0]["state"] == "interrupted"
    assert sum(embedq.batch_sizes) == 10


# --- status


def test_status_shows_queue_runs_and_dead_letters(embedq: CommandLine) -> None:
    embedq("ingest", "docs", "-", "-m", "poisoned", input="id,content\na,poison\n", exit_code=1)
    submit(embedq, "b,two\nc,three\n", "-m", "recording", collection="others")
    shown = embedq("status").out
    assert "to do         2 items" in shown
    assert "'embedq worker' runs one" in shown
    assert "nothing yet" in shown
    assert "nothing to do" not in shown
    assert "time left" not in shown
    status = json.loads(embedq("status", "--json").out)
    assert status["items"] == 2
    assert {queue["model_id"]: queue["queued"] for queue in status["queues"]} == {"poisoned": 0, "recording": 1}
    assert status["dead"] == [{"collection": "docs", "error": "ValueError", "letters": 1}]
    assert [run["state"] for run in status["runs"]] == ["queued", "complete"]


def test_status_shows_the_bytes_that_wait_and_where_producers_hold_back(embedq: CommandLine) -> None:
    submit(embedq, "b,two\nc,three\n", "-m", "slow", collection="others")
    small = {"EMBEDQ_QUEUE_BYTES": "2048"}
    assert re.search(r"slow .* \d+ B of 2\.0 KiB", embedq("status", environment=small).out)
    (queue,) = json.loads(embedq("status", "--json", environment=small).out)["queues"]
    assert 0 < queue["bytes"] < queue["bytes_limit"] == 2048


def test_status_before_anything_makes_nothing(embedq: CommandLine) -> None:
    assert "workers       none" in embedq("status").out
    assert list(embedq.directory.iterdir()) == []


# --- similar


def test_similar_by_text_file_and_id(docs: CommandLine) -> None:
    by_text = [json.loads(line) for line in docs("similar", "docs", "-c", "first text").out.splitlines()]
    assert by_text[0]["id"] == "a/1"
    assert by_text[0]["score"] == pytest.approx(1)
    (docs.directory / "query.txt").write_text("second text")
    assert json.loads(docs("similar", "docs", "-i", "query.txt", "-n", "1").out)["id"] == "a/2"
    assert json.loads(docs("similar", "docs", "-i", "-", "-n", "1", input="third text").out)["id"] == "b/1"
    by_id = [json.loads(line)["id"] for line in docs("similar", "docs", "a/1").out.splitlines()]
    assert sorted(by_id) == ["a/2", "b/1"]


def test_similar_within_a_prefix(docs: CommandLine) -> None:
    found = docs("similar", "docs", "-c", "third text", "--prefix", "a/").out.splitlines()
    assert {json.loads(line)["id"] for line in found} == {"a/1", "a/2"}


def test_similar_as_text_to_read(docs: CommandLine) -> None:
    assert docs("similar", "docs", "-c", "first text", "-n", "1", "--plain").out == "a/1 (1.0000)\n\n  first text\n\n"


def test_similar_where_the_metadata_holds_something(embedq: CommandLine) -> None:
    with package.Collection("docs", embedq.database, model=RecordingModel()) as docs:
        docs.embed_multi_with_metadata(
            [("n", "one", {"year": 2024}), ("t", "two", {"year": "2024"}), ("o", "three", {"year": 1})]
        )
    found = embedq("similar", "docs", "-c", "x", "--where", "year=2024").out.splitlines()
    assert {json.loads(line)["id"] for line in found} == {"n", "t"}
    found = embedq("similar", "docs", "-c", "x", "--where", 'year="2024"').out.splitlines()
    assert [json.loads(line)["id"] for line in found] == ["t"]


def test_metadata_with_nan_as_other_tools_write_it_is_printed_as_json_all_the_same(docs: CommandLine) -> None:
    with sqlite3.connect(docs.database) as db:
        db.execute("""UPDATE embeddings SET metadata = '{"x": [NaN, {"y": -Infinity}], "z": 1}'""")
    db.close()

    def strict(line: str) -> Any:
        return json.loads(line, parse_constant=pytest.fail)

    (found,) = map(strict, docs("similar", "docs", "-c", "first text", "-n", "1").out.splitlines())
    assert found["metadata"] == {"x": [None, {"y": None}], "z": 1}
    (answer,) = map(strict, docs("similar", "docs", "--batch", "-", "-n", "1", input="first text\n").out.splitlines())
    assert answer["results"] == [found]


def test_similar_for_each_query_of_a_file(docs: CommandLine) -> None:
    (docs.directory / "queries.txt").write_text("first text\n\nthird text\n")
    lines = docs("similar", "docs", "--batch", "queries.txt", "-n", "2").out.splitlines()
    assert [json.loads(line)["query"] for line in lines] == ["1", "3"]
    for line, text in zip(lines, ["first text", "third text"], strict=True):
        alone = docs("similar", "docs", "-c", text, "-n", "2").out.splitlines()
        assert json.loads(line)["results"] == [json.loads(one) for one in alone]
    rows = '{"id": "q1", "content": "first text"}\n{"id": "q2"}\n'
    result = docs("similar", "docs", "--batch", "-", "--prefix", "b/", input=rows)
    (answer,) = map(json.loads, result.out.splitlines())
    assert (answer["query"], [entry["id"] for entry in answer["results"]]) == ("q1", ["b/1"])
    assert "skipped: standard input line 2" in result.err
    assert "no content" in docs("similar", "docs", "--batch", "-", input='{"id": "q2"}\n', exit_code=1).err


def test_the_query_that_a_model_fails_on_is_named(embedq: CommandLine) -> None:
    (embedq.directory / "docs.jsonl").write_text('{"id": "a", "content": "a text"}')
    embedq("ingest", "docs", "docs.jsonl", "-m", "poisoned")
    lines = "".join(f"text {number}\n" for number in range(9)) + "poison\n"
    result = embedq("similar", "docs", "--batch", "-", input=lines, exit_code=1)
    assert "standard input, query 10: poisoned fails:" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("a/1", "-c", "x"),
        ("-c", ""),
        ("-i", "missing.txt"),
        ("a/1", "--binary"),
        ("-c", "x", "--where", "year"),
        ("a/1", "--batch", "-"),
        ("--batch", "missing.txt"),
        ("--batch", "-", "--format", "xml"),
        ("a/1", "--format", "csv"),
    ],
)
def test_similar_refuses_what_makes_no_sense(docs: CommandLine, arguments: tuple[str, ...]) -> None:
    result = docs("similar", "docs", *arguments, exit_code=2)
    assert result.err.startswith("embedq: ")
    assert result.out == ""


def test_similar_without_a_database_says_so(embedq: CommandLine) -> None:
    assert "there is no such database" in embedq("similar", "docs", "-c", "x", exit_code=1).err
    assert not embedq.database.exists()


def test_a_corpus_that_could_not_be_read_is_not_said_to_be_done(embedq: CommandLine) -> None:
    result = embedq("ingest", "docs", "-", "--format", "json", input="{}", exit_code=1)
    assert "docs: 0 items" in result.out
    assert "nothing was queued" in result.out


# --- embed


def test_embed_prints_a_vector_in_every_form(embedq: CommandLine) -> None:
    vector = vector_of("one")
    arguments = ("embed", "-m", "rec", "-c", "one", "-f")
    assert json.loads(embedq("embed", "-m", "rec", "-c", "one").out) == vector
    assert json.loads(embedq(*arguments, "json").out) == vector
    assert list(decode(bytes.fromhex(embedq(*arguments, "hex").out.strip()))) == vector
    assert list(decode(base64.b64decode(embedq(*arguments, "base64").out))) == vector
    blob = subprocess.run(
        embedq.command(*arguments, "blob"),
        env=embedq.environment,
        cwd=embedq.directory,
        capture_output=True,
        check=True,
    )
    assert list(decode(blob.stdout)) == vector
    assert json.loads(embedq("embed", "-m", "rec", "-i", "-", input="one").out) == vector


def test_where_the_output_has_no_room_it_is_said_in_one_line(embedq: CommandLine, tmp_path: Path) -> None:
    with (tmp_path / "output").open("w") as output:
        result = subprocess.run(
            ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *embedq.command("models", "default")],
            # What measures coverage could not write its file either, and would say so.
            env={name: value for name, value in embedq.environment.items() if not name.startswith("COVERAGE_")},
            cwd=embedq.directory,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (result.returncode, result.stderr) == (1, "embedq: the output can't be written: file too large\n")


def test_embed_keeps_a_value_in_a_collection(embedq: CommandLine) -> None:
    result = embedq("embed", "docs", "one", "-c", "some text", "-m", "recording", "--metadata", '{"by": "me"}')
    assert result.out == ""
    found = json.loads(embedq("similar", "docs", "-c", "some text").out)
    assert (found["id"], found["content"], found["metadata"]) == ("one", "some text", {"by": "me"})


def test_a_value_that_the_model_fails_on_leaves_no_collection_that_others_would_have_to_agree_with(
    embedq: CommandLine,
) -> None:
    embedq("embed", "docs", "a", "-c", "poison", "-m", "poisoned", exit_code=1)
    assert json.loads(embedq("collections", "list", "--json").out) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("docs", "-c", "x"),
        ("docs", "a", "-c", "x", "--metadata", "[1]"),
        ("docs", "a", "-c", "x", "--metadata", "{"),
        ("-c", "x", "-i", "y"),
        ("-c", "x", "--metadata", "{}"),
        ("-i", "missing.txt"),
        ("-c", ""),
        ("-c", "x", "-m", "nobody"),
    ],
)
def test_embed_refuses_what_makes_no_sense(embedq: CommandLine, arguments: tuple[str, ...]) -> None:
    result = embedq("embed", *arguments, exit_code=2)
    assert len(result.err.splitlines()) == 1
    assert result.err.startswith("embedq: ")


# --- collections, models, dead


def test_collections_are_listed_shown_and_deleted(docs: CommandLine) -> None:
    assert json.loads(docs("collections", "list", "--json").out) == [
        {"name": "docs", "model": "recording", "entries": 3, "beside": None}
    ]
    assert docs("collections").out.splitlines()[1].split() == ["docs", "recording", "3"]
    shown = json.loads(docs("collections", "show", "docs", "--json").out)
    assert (shown["entries"], shown["dimension"], shown["vector_bytes"]) == (3, 8, 3 * 8 * 4)
    assert docs("collections", "path").out.strip() == str(docs.database)
    docs("collections", "delete", "docs", input="n\n", exit_code=1)
    assert json.loads(docs("collections", "list", "--json").out)
    docs("collections", "delete", "docs", "--yes")
    assert json.loads(docs("collections", "list", "--json").out) == []


def test_deleting_a_collection_that_is_not_there_says_so(docs: CommandLine) -> None:
    assert "Did you mean 'docs'?" in docs("collections", "delete", "dosc", "--yes", exit_code=2).err


def test_lists_are_empty_before_anything(embedq: CommandLine) -> None:
    assert "no collections yet" in embedq("collections").out
    assert "no dead letters" in embedq("dead").out
    assert "no runs yet" in embedq("runs").out
    assert list(embedq.directory.iterdir()) == []


def test_models_are_listed_with_their_aliases(embedq: CommandLine) -> None:
    models = {model["id"]: model for model in json.loads(embedq("models", "list", "--json").out)}
    assert models["hashing"]["aliases"] == ["hash"]
    assert models["either"]["binary"] is True
    assert models["recording-10"]["batch_size"] == 10
    assert "hashing" in embedq("models").out


def test_the_default_model_is_set_used_and_removed(embedq: CommandLine) -> None:
    assert "built in" in embedq("models", "default").out
    assert embedq("models", "default", "rec").out.strip() == "recording"
    assert embedq("models", "default").out.strip() == "recording"
    result = embedq("ingest", "docs", "-", "--json", input="id,content\na,one\n")
    assert json.loads(result.out)["model"] == "recording"
    embedq("models", "default", "--remove")
    assert "built in" in embedq("models", "default").out
    assert "there is no model 'nobody'" in embedq("models", "default", "nobody", exit_code=2).err


def test_the_environment_names_the_model_for_new_collections(embedq: CommandLine) -> None:
    environment = {"EMBEDQ_MODEL": "rec"}
    result = embedq("ingest", "docs", "-", "--json", input="id,content\na,one\n", environment=environment)
    assert json.loads(result.out)["model"] == "recording"


def test_without_any_model_the_built_in_one_is_used_and_said_to_be_lexical(embedq: CommandLine) -> None:
    result = embedq("ingest", "docs", "-", "--json", input="id,content\na,one\n")
    assert json.loads(result.out)["model"] == "hashing"
    assert "compares words and not meanings" in result.err
    again = embedq("ingest", "docs", "-", input="id,content\na,one\n")
    # It has a model now, and could not be given another.
    assert again.err == ""


def test_dead_letters_are_listed_by_collection_run_and_error(embedq: CommandLine) -> None:
    embedq("ingest", "docs", "-", "-m", "poisoned", input="id,content\na,poison\nb,two\n", exit_code=1)
    [letter] = json.loads(embedq("dead", "list", "--collection", "docs", "--json").out)
    assert (letter["id"], letter["content"], letter["model"], letter["error"]) == (
        "a",
        "poison",
        "poisoned",
        "ValueError",
    )
    assert letter["message"] == "this model can't take poison"
    assert json.loads(embedq("dead", "list", "--run", letter["run"], "--json").out) == [letter]
    assert json.loads(embedq("dead", "list", "--error", "KeyError", "--json").out) == []
    assert "this model can't take poison" in embedq("dead").out


# --- the program itself


def test_help_names_every_command(embedq: CommandLine) -> None:
    shown = embedq("--help").out
    names = [
        "ingest",
        "submit",
        "worker",
        "status",
        "similar",
        "embed",
        "collections",
        "models",
        "runs",
        "dead",
        "demo",
        "pause",
        "resume",
        "drain",
        "reembed",
        "schedule",
    ]
    assert [name for name in names if name not in shown] == []


def test_help_loads_no_heavy_library(embedq: CommandLine) -> None:
    code = (
        "import sys, runpy\nsys.argv = ['embedq', '--help']\n"
        "try:\n    runpy.run_module('embedq', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "heavy = ('numpy', 'redis', 'arq', 'sqlite3', 'aiosqlite', 'embedq_plugins')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert last_line_of(code, embedq.environment) == "[]"


async def test_what_neither_searches_nor_embeds_starts_without_numpy(embedq: CommandLine, redis_url: str) -> None:
    async with await Store.open(embedq.database) as store:
        await store.create_collection("things", "hashing")
    (embedq.directory / "one.txt").write_text("one\n")
    code = (
        "import sys\nfrom embedq.__main__ import main\n"
        "reading = ('status', 'runs', 'dead', 'collections', 'collections show things')\n"
        "for words in ('submit things --files . *.txt', *reading):\n"
        "    sys.argv = ['embedq', *words.split()]\n"
        "    try:\n        main()\n"
        "    except SystemExit as end:\n        assert not end.code, words\n"
        "print([name for name in ('numpy', 'rich', 'embedq_worker.service') if name in sys.modules])"
    )
    environment = embedq.environment | {"EMBEDQ_PLUGINS": "", "EMBEDQ_REDIS_URL": redis_url}
    assert last_line_of(code, environment, embedq.directory) == "[]"


def last_line_of(code: str, environment: dict[str, str], directory: Path | None = None) -> str:
    """What `code`, run by an interpreter of its own, prints last."""
    # Measuring coverage loads some of what commands do not.
    environment = {name: value for name, value in environment.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_the_version_is_printed(embedq: CommandLine) -> None:
    from importlib.metadata import version

    assert embedq("--version").out.strip() == version("embedq")


def test_a_wrong_setting_is_named(embedq: CommandLine) -> None:
    result = embedq("status", exit_code=2, environment={"EMBEDQ_QUEUE_BYTES": "many"})
    assert "EMBEDQ_QUEUE_BYTES" in result.err
    assert len(result.err.splitlines()) == 1


def test_half_a_pair_is_refused(embedq: CommandLine) -> None:
    result = embedq("ingest", "docs", "--files", ".", exit_code=2)
    assert "--files needs two values" in result.err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "name what to read"),
        (("x.csv", "--files", ".", "*"), "--files can't be used together"),
        (("--binary", "x.csv"), "--binary is for --files"),
        (("--attach", "a", "b.db", "x.csv"), "--attach is for --sql"),
        (("--files", ".", "*", "--binary", "--encoding", "utf-8"), "--binary and --encoding"),
        (("--files", ".", "*", "--binary", "--prepend", "x"), "--prepend is for text"),
        (("a.db", "b.db", "--sql", "SELECT 1"), "--sql takes one database"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    embedq: CommandLine, arguments: tuple[str, ...], problem: str
) -> None:
    assert problem in embedq("ingest", "docs", *arguments, exit_code=2).err


def test_a_database_of_another_kind_is_left_alone(embedq: CommandLine) -> None:
    db = sqlite3.connect(embedq.database)
    db.execute("CREATE TABLE diary (day, text)")
    db.close()
    assert json.loads(embedq("collections", "list", "--json").out) == []


def test_the_help_of_every_command_flows_and_calls_things_as_the_documentation_does() -> None:
    for words, command in commands():
        assert command.help, words
        for paragraph in command.help.split("\n\n"):
            assert "\n" not in paragraph, words
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                assert (parameter.metavar or "").isupper(), (words, parameter.name)
