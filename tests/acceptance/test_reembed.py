"""`embedq reembed`: another model beside the one there is, checked, switched, undone; and what is said of it."""

import json
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.command_line import CommandLine
from support.waiting import BOUND_SECONDS

# What tells which model made a vector: its dimension.
OLD_SIZE, NEW_SIZE = 8, 384


@pytest.fixture
def docs(embedq: CommandLine, redis_url: str) -> CommandLine:
    """Four entries, embedded with `recording`; `hashing` is another model."""
    embedq.environment["EMBEDQ_REDIS_URL"] = redis_url
    text = "id,content\n1,red apples\n2,green pears\n3,blue sky\n4,a dog\n"
    embedq("ingest", "docs", "-", "-m", "recording", input=text)
    return embedq


def dimensions(embedq: CommandLine, collection: str = "docs") -> set[int]:
    query = (
        "SELECT DISTINCT length(embedding) / 4 FROM embeddings e JOIN collections c ON c.id = e.collection_id"
        " WHERE c.name = ?"
    )
    with closing(sqlite3.connect(embedq.database)) as db:
        return {size for (size,) in db.execute(query, (collection,))}


def collections(embedq: CommandLine) -> dict[str, tuple[str, int]]:
    found = json.loads(embedq("collections", "list", "--json").out)
    return {each["name"]: (each["model"], each["entries"]) for each in found}


def listed(embedq: CommandLine) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(embedq("reembed", "--list", "--json").out)
    return found


def golden(embedq: CommandLine, *queries: tuple[str, list[str]]) -> Path:
    path = embedq.directory / "golden.jsonl"
    path.write_text("".join(json.dumps({"query": text, "expected": ids}) + "\n" for text, ids in queries))
    return path


# --- asked wrongly


WRONG = {
    "": "name a collection, and the new model with -m",
    "docs": "name the new model with -m: see 'embedq models'",
    "docs --wait": "name the new model with -m",
    "docs -m nobody": "there is no model 'nobody'",
    "dosc -m hashing": "Did you mean 'docs'?",
    "docs -m hashing --recall 0.5": "--recall is about the queries of --golden FILE",
    "docs -m hashing --accept": "there is nothing to accept",
    "docs -m hashing --accept --recall 0.5": "leave --golden and --recall out",
    "docs -m hashing --dry-run --wait": "--dry-run queues nothing to wait for",
    "docs -m hashing --golden nowhere": "nowhere: No such file or directory",
    "docs -m hashing --cancel": "--cancel goes with a collection alone",
    "docs --cancel -y": "'docs' is not being embedded anew: there is nothing to cancel",
    "docs --drop-old -y": "no other vectors of 'docs' are kept",
}


def test_what_makes_no_sense_is_refused_in_a_line_and_changes_nothing(docs: CommandLine) -> None:
    for arguments, problem in WRONG.items():
        result = docs("reembed", *arguments.split(), exit_code=2)
        assert problem in result.err, arguments
        assert result.err.startswith("embedq: "), arguments
        assert result.err.count("\n") == 1, arguments
    assert "no earlier vectors of 'docs' are kept" in docs("collections", "rollback", "docs", exit_code=2).err
    path = golden(docs, ("apples", ["1", "77"]))
    unknown = docs("reembed", "docs", "-m", "hashing", "--golden", path, exit_code=2).err
    assert "golden.jsonl: 'docs' has no entry 77 (1 id of 2)" in unknown
    assert listed(docs) == []
    assert collections(docs) == {"docs": ("recording", 4)}


# --- beginning


def test_it_is_queued_like_a_submission_and_a_worker_switches(docs: CommandLine) -> None:
    forecast = json.loads(docs("reembed", "docs", "-m", "hashing", "--dry-run", "--json").out)
    figures = {name: forecast[name] for name in ("entries", "missing", "characters", "tokens", "tokens_estimated")}
    assert figures == {"entries": 4, "missing": 4, "characters": 34, "tokens": 11, "tokens_estimated": True}
    assert listed(docs) == []
    result = docs("reembed", "docs", "-m", "hashing")
    run = result.out.strip()
    assert "queued 4 entries of docs for hashing, beside recording" in result.err
    shown = json.loads(docs("runs", "show", run, "--json").out)
    assert (shown["source"], shown["collection"], shown["model"]) == ("reembed docs", "docs@next", "hashing")
    # Again: what is queued is not queued twice.
    again = docs("reembed", "docs", "-m", "hashing")
    assert again.out.strip() == run
    assert "docs is being embedded with hashing already" in again.err
    (row,) = listed(docs)
    assert (row["state"], row["share"], row["coverage"]["missing"], row["run"]) == ("embedding", 0.0, 4, run)
    assert dimensions(docs) == {OLD_SIZE}
    docs("worker", "--burst")
    assert dimensions(docs) == {NEW_SIZE}
    assert collections(docs) == {"docs": ("hashing", 4), "docs@previous": ("recording", 4)}
    assert docs("collections").out.splitlines()[-1] == (
        "docs@previous  recording        4  previous vectors of docs, kept"
    )
    (_, beside) = json.loads(docs("collections", "list", "--json").out)
    assert beside["beside"] == {"collection": "docs", "kind": "previous"}
    assert "docs        switched  recording  hashing" in docs("reembed", "--list").out


def test_a_collection_that_has_the_model_already_is_left_as_it_is(docs: CommandLine) -> None:
    paid = sum(docs.batch_sizes)
    said = "docs is embedded with recording already: nothing to do; --force embeds all of it again\n"
    # What is asked for may have been passed long ago: the queries are not looked for.
    queued = docs("reembed", "docs", "-m", "rec", "--golden", "gone.jsonl")
    assert (queued.out, queued.err) == ("", said)
    assert docs("reembed", "docs", "-m", "rec", "--wait").out == said
    assert docs("reembed", "docs", "-m", "rec", "--dry-run").out == said
    answer = json.loads(docs("reembed", "docs", "-m", "rec", "--json").out)
    assert (answer["collection"], answer["state"], answer["model"], answer["run"]) == (
        "docs",
        "unchanged",
        "recording",
        None,
    )
    assert listed(docs) == []
    # One that goes on is joined, also with the model that there is; and then there is nothing to do once more.
    run = docs("reembed", "docs", "--force").out.strip()
    joined = docs("reembed", "docs", "-m", "rec")
    assert (joined.out.strip(), "docs is being embedded with recording already" in joined.err) == (run, True)
    assert "is being embedded anew with recording" in docs("reembed", "docs", "-m", "hashing", exit_code=2).err
    ended = json.loads(docs("reembed", "docs", "-m", "rec", "--wait", "--json").out)
    assert (ended["state"], ended["run"], sum(docs.batch_sizes) - paid) == ("switched", run, 4)
    assert ended.keys() == answer.keys()
    again = docs("reembed", "docs", "-m", "rec")
    assert again.err == said + "the vectors of recording are kept: 'embedq collections drop-old docs' drops them\n"


def test_contents_that_were_not_stored_have_to_be_submitted_again(docs: CommandLine) -> None:
    docs("ingest", "docs", "-", "--no-store", input="id,content\n5,a cat\n")
    forecast = docs("reembed", "docs", "-m", "hashing", "--dry-run", exit_code=1).out
    assert "the contents of 1 entry were not stored: submit the source again with --store" in forecast
    refused = docs("reembed", "docs", "-m", "hashing", exit_code=1).err
    assert "(ids 5): submit the source again with --store, which costs nothing for what is unchanged" in refused
    docs("ingest", "docs", "-", input="id,content\n5,a cat\n")
    assert "5 to embed with hashing" in docs("reembed", "docs", "-m", "hashing", "--dry-run").out


# --- seen through


def test_with_wait_it_works_here_and_a_golden_check_that_fails_stops_it_until_it_is_accepted(
    docs: CommandLine,
) -> None:
    many = "id,content\n" + "".join(f"n{number},thing {number}\n" for number in range(20))
    docs("ingest", "docs", "-", input=many)
    # All queries get the vector of the first text: ten of the others are as near as can be to nothing.
    path = golden(docs, ("thing 3", ["n3"]), ("thing 19", ["n19", "n18", "n17"]))
    stopped = docs("reembed", "docs", "-m", "prepared", "--golden", path, "--recall", "0.9", "--wait", exit_code=1)
    assert "the re-embedding of docs has stopped: recall@10 of the new vectors is" in stopped.err
    assert dimensions(docs) == {OLD_SIZE}
    (row, *_) = listed(docs)
    assert row["state"] == "stopped"
    assert "has stopped" in stopped.err
    assert "0.900 is required" in str(row["message"])
    accepted = json.loads(docs("reembed", "docs", "-m", "prepared", "--accept", "--drop-old", "--wait", "--json").out)
    assert (accepted["state"], accepted["drop_old"]) == ("dropped", True)
    assert collections(docs) == {"docs": ("prepared", 24)}


def test_ctrl_c_leaves_what_was_queued_and_a_worker_goes_on(docs: CommandLine) -> None:
    # There is room for one chunk, and nobody to make more.
    process = docs.start(
        "reembed", "docs", "-m", "recording-10", environment={"EMBEDQ_CHUNK_ITEMS": "1", "EMBEDQ_QUEUE_BYTES": "1"}
    )
    deadline = time.monotonic() + BOUND_SECONDS
    # The run is entered before its first chunk is.
    while not (
        runs := [
            run for run in json.loads(docs("runs", "--json").out) if run["collection"] == "docs@next" and run["items"]
        ]
    ):
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=BOUND_SECONDS)
    assert process.returncode == 130, said
    assert "interrupted: what was queued stays queued, and a worker goes on" in said
    interrupted = json.loads(docs("runs", "show", runs[0]["run"], "--json").out)
    assert (interrupted["state"], interrupted["items"]) == ("interrupted", 1)
    docs("worker", "--burst")
    assert collections(docs)["docs"] == ("recording-10", 4)
    assert sum(docs.batch_sizes) == 4 + 4


# --- undone


def test_a_rollback_queues_what_came_since_and_the_way_forward_costs_nothing(docs: CommandLine) -> None:
    result = docs("reembed", "docs", "-m", "recording-10", "--wait")
    assert result.out == "docs: 4 entries, embedded with recording-10 now, not recording\n"
    assert "'embedq collections rollback docs' goes back to them" in result.err
    docs("ingest", "docs", "-", input="id,content\n5,a cat\n")
    assert docs("collections", "rollback", "docs", input="n\n", exit_code=1).err.startswith(
        "Answer docs from the vectors of recording again, not recording-10?"
    )
    undone = json.loads(docs("collections", "rollback", "docs", "--yes", "--json").out)
    assert (undone["model"], undone["newcomers"], undone["removed"]) == ("recording", 1, 0)
    assert json.loads(docs("runs", "show", undone["run"], "--json").out)["source"] == "rollback docs"
    docs("worker", "--burst")
    assert collections(docs) == {"docs": ("recording", 5), "docs@next": ("recording-10", 5)}
    paid = sum(docs.batch_sizes)
    docs("reembed", "docs", "-m", "recording-10", "--wait")
    assert sum(docs.batch_sizes) == paid
    assert docs("collections", "drop-old", "docs", input="n\n", exit_code=1).err.startswith(
        "Drop the 5 vectors of recording"
    )
    assert docs("collections", "drop-old", "docs", "-y").out == "docs: dropped 5 vectors of recording\n"
    assert collections(docs) == {"docs": ("recording-10", 5)}


def test_with_force_all_of_it_is_embedded_anew_with_the_model_it_has(docs: CommandLine) -> None:
    before = sum(docs.batch_sizes)
    done = json.loads(docs("reembed", "docs", "--force", "--wait", "--drop-old", "--json").out)
    assert (done["old_model"], done["model"]) == ("recording", "recording")
    assert sum(docs.batch_sizes) - before == 4
    assert collections(docs) == {"docs": ("recording", 4)}


@pytest.mark.parametrize("undone", ["rollback", "drop-old"])
def test_what_is_asked_is_not_among_what_programs_read(docs: CommandLine, undone: str) -> None:
    docs("reembed", "docs", "-m", "hashing", "--wait")
    result = docs("collections", undone, "docs", "--json", input="y\n")
    assert json.loads(result.out)["collection"] == "docs"
    assert result.err.partition("?")[2].startswith(" [y/N]: ")
    assert result.out.startswith("{")


def test_one_that_is_cancelled_leaves_nothing(docs: CommandLine) -> None:
    run = docs("reembed", "docs", "-m", "hashing").out.strip()
    assert docs("reembed", "docs", "--cancel", input="n\n", exit_code=1).err.startswith(
        "Remove the 0 vectors of hashing"
    )
    cancelled = json.loads(docs("reembed", "docs", "--cancel", "--yes", "--json").out)
    assert cancelled == {
        "collection": "docs",
        "model": "hashing",
        "state": "cancelled",
        "removed": 0,
        "run": run,
        "cancelled": 4,
    }
    assert collections(docs) == {"docs": ("recording", 4)}
    # No worker is there: nobody else would end the run, and who waits for it would wait for ever.
    docs("runs", "wait", run, exit_code=None)
    assert json.loads(docs("runs", "show", run, "--json").out)["state"] == "cancelled"
    assert json.loads(docs("status", "--json").out)["items"] == 0


def test_one_is_ended_though_its_queue_can_not_be_reached(docs: CommandLine) -> None:
    run = docs("reembed", "docs", "-m", "hashing").out.strip()
    gone = {"EMBEDQ_REDIS_URL": f"unix://{docs.directory}/none.sock"}
    ended = docs("reembed", "docs", "--cancel", "--yes", environment=gone)
    assert "docs keeps recording: 0 vectors of hashing removed" in ended.out
    assert f"'embedq runs cancel {run}' takes out what is queued" in ended.err
    assert listed(docs) == [] or listed(docs)[0]["state"] == "cancelled"


def test_one_that_used_vectors_of_a_rollback_leaves_them_when_it_is_cancelled(docs: CommandLine) -> None:
    docs("reembed", "docs", "-m", "recording-10", "--wait")
    docs("collections", "rollback", "docs", "--yes")
    docs("ingest", "docs", "-", input="id,content\n5,a cat\n")
    run = docs("reembed", "docs", "-m", "recording-10").out.strip()
    asked = docs("reembed", "docs", "--cancel", "--json", input="y\n")
    assert "that are kept since the rollback stay" in asked.err
    ended = json.loads(asked.out)
    assert (ended["state"], ended["removed"]) == ("rolled back", 0)
    assert (ended["run"], ended["cancelled"]) == (run, 1)
    assert collections(docs) == {"docs": ("recording", 5), "docs@next": ("recording-10", 4)}
    dropped = docs("collections", "drop-old", "docs", "--json", input="y\n")
    assert "Drop the 4 vectors of recording-10" in dropped.err
    assert json.loads(dropped.out)["removed"] == 4


def test_letters_of_the_old_model_are_requeued_for_the_new_one(docs: CommandLine) -> None:
    docs("ingest", "pets", "-", "-m", "poisoned", input="id,content\na,cat\nb,poison\n", exit_code=1)
    docs("reembed", "pets", "-m", "recording", "--wait")
    (letter,) = json.loads(docs("dead", "list", "--json").out)
    assert letter["collection"] == "pets@previous"
    undone = docs("collections", "rollback", "pets", "--json", input="y\n")
    assert json.loads(undone.out)["state"] == "rolled back"
    assert undone.err.startswith("Answer pets from the vectors of poisoned again, not recording?")
    docs("reembed", "pets", "-m", "recording", "--wait")
    docs("dead", "requeue", "--all")
    docs("worker", "--burst")
    assert json.loads(docs("dead", "list", "--json").out) == []
    assert collections(docs)["pets"] == ("recording", 2)
