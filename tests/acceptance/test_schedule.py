"""`embedq schedule`, each of its commands through the real program; and what a schedule may not hold."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
import typer.main

from embedq.app import app
from embedq.schedule.unattended import ParsedCommand, objection, parsed
from embedq.schedule.views import print_schedules
from embedq_store import Schedule
from support.command_line import CommandLine
from support.parsing import commands
from support.waiting import BOUND_SECONDS

NIGHTLY = ("0 3 * * *", "--timezone", "Europe/Berlin", "--", "submit", "docs", "rows.csv", "-m", "recording")


@pytest.fixture
def nightly(embedq: CommandLine) -> CommandLine:
    (embedq.directory / "rows.csv").write_text("id,content\na,one\nb,two\n")
    embedq("schedule", "add", "nightly", *NIGHTLY)
    return embedq


def listed(embedq: CommandLine) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(embedq("schedule", "--json").out)
    return found


def test_a_schedule_is_added_listed_and_shown(embedq: CommandLine) -> None:
    assert embedq("schedule").out.startswith("no schedules yet: embedq schedule add NAME")
    assert embedq("schedule", "list", "--json").out == "[]\n"
    added = embedq("schedule", "add", "nightly", *NIGHTLY)
    due = datetime.fromisoformat(listed(embedq)[0]["due_local"])
    assert (due.hour, due.minute, str(due.tzinfo)) in {(3, 0, "UTC+01:00"), (3, 0, "UTC+02:00")}
    moment = f"{due:%Y-%m-%d} 03:00"
    assert added.out.startswith(f"nightly: first due {moment} CE")
    table = embedq("schedule")
    heads, row = table.out.splitlines()
    assert heads.split("  ")[0] == "schedule"
    assert row.startswith(f"nightly   {moment} CE")
    assert row.endswith("0 3 * * *  embedq submit docs rows.csv -m recording")
    assert table.err == "no worker is running: schedules wait ('embedq worker' runs one)\n"
    fields = dict(line.split(maxsplit=1) for line in embedq("schedule", "show", "nightly").out.splitlines())
    assert fields["at"] == "0 3 * * * (Europe/Berlin)"
    assert fields["in"] == str(embedq.directory)
    shown = json.loads(embedq("schedule", "show", "nightly", "--json").out)
    assert shown == {**listed(embedq)[0], "attempts": []}
    assert shown["command"] == ["submit", "docs", "rows.csv", "-m", "recording"]
    assert (shown["last"], shown["last_run"], shown["enabled"]) == (None, None, True)


def test_run_prints_what_the_command_prints_and_keeps_it(nightly: CommandLine) -> None:
    due = listed(nightly)[0]["due"]
    nightly.environment["COLUMNS"] = "200"
    result = nightly("schedule", "run", "nightly")
    run, queued = result.out.splitlines()
    assert queued == "queued 2 items for docs (recording)"
    (schedule,) = listed(nightly)
    assert (schedule["last"]["state"], schedule["last"]["exit_code"], schedule["last_run"]) == ("done", 0, run)
    assert (schedule["due"], schedule["last"]["due"]) == (due, None), "its next time stands"
    shown = nightly("schedule", "show", "nightly").out
    assert shown.endswith(f"output\n  {run}\n  queued 2 items for docs (recording)\n")


def test_run_ends_with_the_exit_code_of_the_command(nightly: CommandLine) -> None:
    (nightly.directory / "rows.csv").unlink()
    # From another directory: the schedule has its own.
    nightly.directory = nightly.directory.parent
    result = json.loads(nightly("schedule", "run", "nightly", "--json", exit_code=2).out)
    (attempt,) = result["attempts"]
    assert (attempt["state"], attempt["exit_code"]) == ("failed", 2)
    assert "rows.csv" in attempt["output"]
    assert "failed (exit code 2)" in nightly("schedule").out


def test_while_it_is_run_by_hand_nobody_else_runs_it_and_ctrl_c_interrupts_it(nightly: CommandLine) -> None:
    (nightly.directory / "rows.csv").unlink()
    os.mkfifo(nightly.directory / "rows.csv")
    running = nightly.start("schedule", "run", "nightly")
    try:
        # Opens once the command reads.
        with (nightly.directory / "rows.csv").open("w"):
            refused = nightly("schedule", "run", "nightly", exit_code=1)
            assert "the schedule 'nightly' is going: see 'embedq schedule show nightly'" in refused.err
            make_due(nightly)
            nightly("worker", "--burst", environment={"EMBEDQ_LOG_LEVEL": "error"})
            assert listed(nightly)[0]["last"]["state"] == "running"
            running.send_signal(signal.SIGINT)
            running.wait(BOUND_SECONDS)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 130
    assert listed(nightly)[0]["last"]["state"] == "interrupted"


def make_due(embedq: CommandLine) -> None:
    """As if the time had come, long ago."""
    with closing(sqlite3.connect(embedq.database)) as db:
        db.execute("UPDATE embedq_schedules SET due = due - 3 * 86400")
        db.commit()


def test_a_worker_that_ends_by_itself_does_what_is_owed(nightly: CommandLine) -> None:
    make_due(nightly)
    nightly("worker", "--burst")
    (schedule,) = listed(nightly)
    assert schedule["last"]["state"] == "done"
    assert schedule["last"]["missed"] in {2, 3}
    assert schedule["due"] > datetime.now(UTC).timestamp()
    (run,) = json.loads(nightly("runs", "--json").out)
    assert (run["run"], run["embedded"]) == (schedule["last_run"], 2)


def test_disabled_ones_are_not_due_and_enabling_makes_up_for_nothing(nightly: CommandLine) -> None:
    assert nightly("schedule", "disable", "nightly").out == "nightly: disabled\n"
    assert json.loads(nightly("schedule", "disable", "nightly", "--json").out)["enabled"] is False
    (schedule,) = listed(nightly)
    assert (schedule["enabled"], schedule["due"], schedule["due_local"]) == (False, None, None)
    assert nightly("schedule").out.splitlines()[1].split()[:2] == ["nightly", "disabled"]
    make_due(nightly)
    assert json.loads(nightly("schedule", "enable", "nightly", "--json").out)["due"] > datetime.now(UTC).timestamp()
    assert nightly("schedule", "enable", "nightly").out.startswith("nightly: next due 20")


def test_the_zone_of_this_machine_is_kept_by_its_name(embedq: CommandLine) -> None:
    add = ("schedule", "add", "nightly", "0 3 * * *", "--json", "--", "dead", "requeue")
    named = embedq(*add, environment={"TZ": "Australia/Lord_Howe"})
    assert json.loads(named.out)["timezone"] == "Australia/Lord_Howe"
    unnamed = embedq(*add, environment={"TZ": "XYZ-1:23"}, exit_code=2)
    assert "the time zone of this machine has no name: give one with --timezone" in unnamed.err


def test_removing_asks(nightly: CommandLine) -> None:
    result = nightly("schedule", "remove", "nightly", input="n\n", exit_code=1)
    assert "Remove the schedule nightly? [y/N]" in result.err
    assert len(listed(nightly)) == 1
    unanswered = nightly("schedule", "remove", "nightly", exit_code=2)
    assert unanswered.err.endswith("embedq: nobody is there to answer: say --yes if that is meant\n")
    assert len(listed(nightly)) == 1
    assert nightly("schedule", "remove", "nightly", input="y\n").out.strip() == "removed nightly"
    assert listed(nightly) == []
    nightly("schedule", "add", "nightly", *NIGHTLY)
    assert json.loads(nightly("schedule", "remove", "nightly", "--yes", "--json").out)["name"] == "nightly"


def test_one_of_the_same_name_is_replaced_when_it_is_said(nightly: CommandLine) -> None:
    hourly = ("5 * * * *", "--timezone", "UTC", "--", "dead", "requeue", "--all")
    assert "--replace puts this one in its place" in nightly("schedule", "add", "nightly", *hourly, exit_code=2).err
    replaced = nightly("schedule", "add", "nightly", "--replace", "--json", *hourly)
    assert json.loads(replaced.out)["command"] == ["dead", "requeue", "--all"]
    assert len(listed(nightly)) == 1


def test_an_unknown_name_is_said(nightly: CommandLine) -> None:
    elsewhere = {"EMBEDQ_DATABASE": str(nightly.directory / "none.db")}
    for command in ("show", "run", "remove", "enable", "disable"):
        assert "Did you mean 'nightly'?" in nightly("schedule", command, "nightl", exit_code=2).err
        missing = nightly("schedule", command, "nightly", exit_code=2, environment=elsewhere)
        assert "there is no schedule 'nightly'" in missing.err
        assert len(missing.err.splitlines()) == 1
    assert not (nightly.directory / "none.db").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "put -- before the command"),
        (("nightly",), "put -- before the command"),
        (("nightly", "0 3 * * *", "submit", "docs", "--files", ".", "*"), "put -- before the command"),
        (("nightly", "0 3 * * *", "--"), "Missing argument 'COMMAND'"),
        (("nightly", "0 3 * *", "--", "submit", "docs", "x"), "is no cron expression: it needs five fields"),
        (("nightly", "0 3 30 2 *", "--", "submit", "docs", "x"), "is no cron expression: bad day-of-month"),
        (("nightly", "0 3 * * *", "--timezone", "Mars", "--", "submit", "docs", "x"), "there is no time zone 'Mars'"),
        (("night ly", "0 3 * * *", "--", "submit", "docs", "x"), "a schedule is named with letters, digits"),
        (("nightly", "0 3 * * *", "--", "submit", "docs", "--fils", "x"), "No such option: --fils"),
        (("nightly", "0 3 * * *", "--", "submit"), "Missing argument 'COLLECTION'"),
        (("nightly", "0 3 * * *", "--", "submi", "docs"), "No such command 'submi'"),
        (("nightly", "0 3 * * *", "--", "embedq", "submit", "docs", "x"), "leave 'embedq' out after --"),
        (("nightly", "0 3 * * *", "--", "submit", "docs", "--files", "."), "--files needs two values"),
        (("nightly", "0 3 * * *", "--", "submit", "docs"), "name what to read"),
        (("nightly", "0 3 * * *", "--", "submit", "docs", "a.csv", "--files", ".", "*"), "--files can't be used"),
        (("nightly", "0 3 * * *", "--", "--help"), "say what to run after --"),
        (("nightly", "0 3 * * *", "--", "reembed", "docs"), "name the new model with -m"),
        (("nightly", "0 3 * * *", "--", "worker"), "a schedule can't run 'worker': a worker runs until it is stopped"),
        (("nightly", "0 3 * * *", "--", "submit", "docs", "-"), "it would read standard input"),
    ],
)
def test_what_can_not_be_meant_is_refused_before_anything_is_made(
    embedq: CommandLine, arguments: tuple[str, ...], problem: str
) -> None:
    assert problem in embedq("schedule", "add", *arguments, exit_code=2).err
    assert not embedq.database.exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("submit docs --files . **/*.md", None),
        ("ingest docs a.csv", None),
        ("dead requeue --all", None),
        ("dead", None),
        ("collections delete docs --yes", None),
        ("collections delete docs", "--yes"),
        ("dead purge --all", "--yes"),
        ("runs cancel 20261231-235959-abcde", "--yes"),
        ("collections drop-old docs", "--yes"),
        ("collections drop-old docs -y", None),
        ("reembed docs --cancel", "--yes"),
        ("reembed docs --drop-old", "--yes"),
        ("reembed docs -m hashing --drop-old", None),
        ("reembed docs --drop-old -y", None),
        ("reembed docs --force --drop-old", None),
        ("similar docs -i -", "standard input"),
        ("similar docs --batch -", "standard input"),
        ("collections import docs -", "standard input"),
        ("collections import docs docs.npz", None),
        ("collections export docs -", None),
        ("schedule", "not by a schedule"),
        ("schedule run nightly", "not by a schedule"),
        ("demo", "looked at"),
        ("submit docs x -d other.db", "leave out --database"),
    ],
)
def test_what_a_schedule_may_hold(words: str, why: str | None) -> None:
    found = objection(parsed(words.split(), typer.main.get_command(app)))
    assert found is None if why is None else found is not None and why in found


def test_what_asks_without_yes_is_nothing_for_a_schedule() -> None:
    asking = [words for words, command in commands() if "Asks first" in command.help]
    assert len(asking) > 4
    for words in asking:
        given = ParsedCommand(" ".join(words), {"yes": False})
        assert objection(given) is not None, words


def test_a_screen_is_nothing_for_a_schedule() -> None:
    assert "terminal" in str(objection(ParsedCommand("status", {"watch": True})))
    assert objection(ParsedCommand("status", {"watch": False})) is None


def test_on_a_narrow_terminal_names_and_times_stay_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    arguments = ("submit", "docs", "--files", "docs", "**/*.md")
    nightly = Schedule(1, "nightly", "0 3 * * *", "Europe/Berlin", arguments, "/data", True, 1_795_226_400.0, 0.0)
    print_schedules([nightly])
    heads, row = capsys.readouterr().out.splitlines()
    assert max(len(heads), len(row)) <= 60
    assert row.startswith("nightly   2026-11-21 03:00 CET  ")


def test_the_list_loads_neither_numpy_nor_cron_expressions(nightly: CommandLine) -> None:
    code = (
        "import sys\nfrom embedq.__main__ import main\nsys.argv = ['embedq', 'schedule']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = ('numpy', 'cronsim', 'tzlocal', 'rich', 'embedq_worker.service')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    environment = {name: value for name, value in nightly.environment.items() if not name.startswith("COVERAGE")}
    command = [nightly.command()[0], "-c", code]
    done = subprocess.run(command, env=environment | {"EMBEDQ_PLUGINS": ""}, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
