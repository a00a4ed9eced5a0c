"""`embedq runs cancel`, `pause`, `resume` and `drain`, as an operator uses them."""

import json
import sqlite3
import time
from contextlib import closing
from typing import Any

import pytest

from support.command_line import CommandLine
from support.terminals import Terminal
from support.waiting import BOUND_SECONDS

ROWS = "id,content\n" + "".join(f"{number},text {number}\n" for number in range(20))
SMALL = {"EMBEDQ_CHUNK_ITEMS": "5"}


@pytest.fixture
def embedq(embedq: CommandLine, redis_url: str) -> CommandLine:
    """The command line with the tests' Redis: no server is started for each command."""
    embedq.environment["EMBEDQ_REDIS_URL"] = redis_url
    return embedq


def submitted(embedq: CommandLine, collection: str = "pets", *, model: str = "recording") -> str:
    return embedq("submit", collection, "-", "-m", model, input=ROWS, environment=SMALL).out.strip()


def run(embedq: CommandLine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(embedq("runs", "show", name, "--json").out)
    return found


def paused(embedq: CommandLine) -> list[tuple[str, str | None, str]]:
    return [
        (each["scope"], each["name"], each["reason"]) for each in json.loads(embedq("pause", "--json", "--list").out)
    ]


# --- runs cancel


def test_a_run_is_cancelled_after_a_question_and_what_that_did_is_said(embedq: CommandLine) -> None:
    name = submitted(embedq)
    refused = embedq("runs", "cancel", name, input="n\n", exit_code=1)
    assert f"Cancel run {name} of pets, of which 20 items are not done?" in refused.err
    assert run(embedq, name)["state"] == "queued"
    shown = dict(line.split(maxsplit=1) for line in embedq("runs", "cancel", name, input="y\n").out.splitlines())
    assert shown["run"] == name
    assert shown["cancelled"] == "20 of 20 items"
    assert shown["stored"] == "0"
    again = json.loads(embedq("runs", "cancel", name, "--json").out)
    assert (again["state"], again["cancelled"], again["taken_out"], again["in_hand"]) == ("cancelled", 20, 0, 0)
    waited = embedq("runs", "wait", name, exit_code=1)
    assert "20 cancelled" in waited.out
    assert "items        0 of 20 done, " in embedq("runs", "show", name).out
    assert "time left" not in waited.out
    embedq("worker", "--burst")
    assert embedq.batch_sizes == []


def test_ctrl_c_at_the_question_cancels_nothing(embedq: CommandLine) -> None:
    name = submitted(embedq)
    asking = embedq.command("runs", "cancel", name)
    with Terminal(asking, embedq.directory, embedq.environment, columns=100, rows=10) as terminal:
        terminal.until(lambda: "of which 20 items are not done? [y/N]:" in terminal.text)
        terminal.press(b"\x03")
        assert terminal.end() == 130
        assert "Traceback" not in terminal.text
    assert run(embedq, name)["state"] == "queued"


def test_a_run_that_is_over_or_not_there_can_not_be_cancelled(embedq: CommandLine) -> None:
    name = submitted(embedq)
    embedq("worker", "--burst")
    assert "is complete: there is nothing to cancel" in embedq("runs", "cancel", name, "--yes", exit_code=1).out
    assert run(embedq, name)["state"] == "complete"
    assert f"Did you mean '{name}'?" in embedq("runs", "cancel", f"{name}x", "--yes", exit_code=2).err


@pytest.mark.parametrize("command", ["submit", "ingest"])
def test_who_still_sends_a_run_that_is_cancelled_ends_and_says_so(embedq: CommandLine, command: str) -> None:
    many = "id,content\n" + "".join(f"{number},text {number}\n" for number in range(4000))
    (embedq.directory / "many.csv").write_text(many)
    environment = SMALL | {"EMBEDQ_QUEUE_BYTES": "1", "EMBEDQ_INFLIGHT_BYTES": "1"}
    sending = embedq.start(command, "pets", "many.csv", "-m", "slow", environment=environment)
    try:
        deadline = time.monotonic() + BOUND_SECONDS
        while not (runs := json.loads(embedq("runs", "--json").out)) or not runs[0]["chunks"]:
            assert time.monotonic() < deadline
        done = json.loads(embedq("runs", "cancel", runs[0]["run"], "--yes", "--json").out)
        _, err = sending.communicate(timeout=BOUND_SECONDS)
    finally:
        sending.kill()
    assert sending.returncode == 1
    assert "the run was cancelled" in err
    found = run(embedq, runs[0]["run"])
    assert found["state"] == "cancelled"
    assert found["items"] == done["items"] == found["done"] + found["cancelled"] < 4000


def test_dead_letters_outlive_the_run_that_was_to_try_them_again(embedq: CommandLine) -> None:
    embedq("ingest", "docs", "-", "-m", "poisoned", input="id,content\na,poison\nb,fine\n", exit_code=1)
    before = embedq("dead", "list", "--json").out
    name = embedq("dead", "requeue", "--all").out.strip()
    embedq("runs", "cancel", name, "--yes")
    assert embedq("dead", "list", "--json").out == before
    assert json.loads(before)[0]["id"] == "a"


# --- pause and resume


def test_what_can_not_be_meant_is_refused_and_nothing_changes(embedq: CommandLine) -> None:
    for arguments, problem in (
        (("pause", "-m", "a", "--collection", "b"), "--model and --collection contradict each other"),
        (("pause", "-m", ""), "--model needs a name"),
        (("pause", "--list", "-m", "a"), "--list shows all pauses"),
        (("pause", "--list", "--reason", "a"), "--list shows all pauses"),
        (("resume", "--all", "--collection", "a"), "--all leaves no choice"),
        (("drain", "--worker", "nobody:1"), "there is no worker 'nobody:1'. Now no worker runs"),
    ):
        result = embedq(*arguments, exit_code=2)
        assert problem in result.err
        assert len(result.err.splitlines()) == 1
    assert paused(embedq) == []


def test_pauses_are_made_listed_and_lifted_each_by_itself(embedq: CommandLine) -> None:
    assert "nothing is paused" in embedq("resume").out
    name = submitted(embedq)
    assert "--reason" in embedq("pause", "--help").out
    made = embedq("pause", "--collection", "pets", "--reason", "the\x1bvet")
    assert made.out == "collection pets is paused (the\\x1bvet): 'embedq resume --collection pets' lets it go on\n"
    assert "it has been so since" in embedq("pause", "--collection", "pets").out
    queued = embedq("submit", "pets", "-", "-m", "recording", input="id,content\nz,last\n").err
    assert queued.endswith(
        "embedq: collection pets is paused (the\\x1bvet): 'embedq resume --collection pets' lets it go on\n"
    )
    embedq("pause", "-m", "recording")
    assert "nothing has been queued for a collection 'pest' yet. Did you mean 'pets'?" in (
        embedq("pause", "--collection", "pest").err
    )
    embedq("pause")
    table = embedq("pause", "--list").out.splitlines()
    assert table[1].endswith("the\\x1bvet")
    assert [line.split("  ")[0] for line in table] == [
        "paused",
        "collection pets",
        "model recording",
        "collection pest",
        "everything",
    ]
    embedq("worker", "--burst")
    assert run(embedq, name)["done"] == 0
    lifted = embedq("resume")
    assert lifted.out == "resumed: everything\n"
    assert lifted.err.count("still: ") == 3
    assert "there is no pause of everything" in embedq("resume", exit_code=1).out
    assert (
        "model recordin is not paused. Did you mean 'recording'?" in embedq("resume", "-m", "recordin", exit_code=1).out
    )
    assert json.loads(embedq("resume", "-m", "recording", "--json").out)[0]["name"] == "pets"
    embedq("resume", "--all")
    assert paused(embedq) == []
    embedq("worker", "--burst")
    assert run(embedq, name)["state"] == "complete"


def test_a_model_is_paused_by_its_alias_and_one_that_is_unknown_is_said_to_be(embedq: CommandLine) -> None:
    embedq("pause", "-m", "hash")
    assert paused(embedq) == [("model", "hashing", "")]
    assert "Did you mean 'hashing'" in embedq("pause", "-m", "hashin").err
    embedq("resume", "-m", "hash")
    assert paused(embedq) == [("model", "hashin", "")]


def test_who_waits_for_what_is_paused_is_told_and_the_doctor_calls_it_no_fault(embedq: CommandLine) -> None:
    embedq("pause", "--collection", "pets", "--reason", "vet")
    waiting = embedq.start("submit", "pets", "--wait", "-m", "recording", str(_rows(embedq)))
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == (
        "embedq: collection pets is paused (vet): 'embedq resume --collection pets' lets it go on\n"
    )
    found = {each["what"]: each for each in json.loads(embedq("doctor", "--json", exit_code=None).out)}
    assert found["paused"]["verdict"] == "warn"
    assert found["paused"]["mend"] == "'embedq resume --collection pets' lets it go on"
    embedq("resume", "--collection", "pets")
    embedq("worker", "--burst")
    out, _ = waiting.communicate(timeout=BOUND_SECONDS)
    assert "20 embedded" in out
    assert waiting.returncode == 0


def _rows(embedq: CommandLine) -> str:
    (embedq.directory / "rows.csv").write_text(ROWS)
    return "rows.csv"


# --- drain


def test_worker_processes_and_the_one_above_them_end_when_they_are_drained(embedq: CommandLine) -> None:
    assert json.loads(embedq("drain", "--json").out) == {"workers": [], "lost": [], "waited": False}
    above = embedq.start("worker", "--processes", "2")
    try:
        deadline = time.monotonic() + BOUND_SECONDS
        while len(json.loads(embedq("status", "--json").out)["workers"]) < 2:
            assert time.monotonic() < deadline
        result = embedq("drain", "--wait")
        assert len([line for line in result.out.splitlines() if line.startswith("draining ")]) == 2
        assert "2 workers have ended" in result.out
        assert above.wait(BOUND_SECONDS) == 0
    finally:
        above.terminate()
        _, err = above.communicate(timeout=BOUND_SECONDS)
    assert "starting another" not in err
    submitted(embedq)
    embedq("worker", "--burst")
    assert sum(embedq.batch_sizes) == 20, "one that begins afterwards works"


def test_an_ingest_that_is_drained_says_what_it_leaves_and_loses_nothing(embedq: CommandLine) -> None:
    environment = SMALL | {"EMBEDQ_INFLIGHT_BYTES": "1"}
    rows = "id,content\n" + "".join(f"{number},text {number}\n" for number in range(4000))
    (embedq.directory / "many.csv").write_text(rows)
    ingest = embedq.start("ingest", "pets", "many.csv", "-m", "slow", environment=environment)
    try:
        deadline = time.monotonic() + BOUND_SECONDS
        while not json.loads(embedq("drain", "--json").out)["workers"]:
            assert time.monotonic() < deadline
        out, err = ingest.communicate(timeout=BOUND_SECONDS)
    finally:
        ingest.kill()
    assert ingest.returncode == 1
    assert "drained: " in err
    (found,) = json.loads(embedq("runs", "--json").out)
    assert found["state"] in {"queued", "in_progress", "interrupted"}
    with closing(sqlite3.connect(embedq.database)) as db:
        assert db.execute("SELECT count(*) FROM embeddings").fetchone() == (found["done"],)
    assert json.loads(embedq("status", "--json").out)["items"] == found["items"] - found["done"]
    assert str(found["items"] - found["done"]) in err.replace(",", ""), out
