"""What `status` makes of what the queue and the workers say."""

from dataclasses import replace
from typing import Any

import pytest

from embedq.inspecting import moment
from embedq.reembed.figures import ReembeddingRow
from embedq.status.dead_counting import due
from embedq.status.reporting import Status, model_figures, status_object
from embedq.status.sections import facts, sections, sparkline, summary_line
from embedq.tables import field_lines, table_lines
from embedq_jobs import Pause, Progress, QueueLoad, Rates, Scope
from embedq_store import Coverage, DeadLetterSummary, Reembedding
from embedq_worker.timetable import Upcoming

LOAD = QueueLoad("m", jobs=3, in_progress=1, deferred=1, items=1200, bytes=2048, oldest=995.0)
STATUS = Status(1000.0, "here", "x.db", 4096, [LOAD], Rates([0] * 54 + [200] * 6), [], [], [])


def serving(calls: int, inputs: int, **errors: int) -> dict[str, Any]:
    recent = {"calls": calls, "inputs": inputs, "model_seconds": calls * 0.5, "errors": errors}
    return {"batch_size": 32, "in_hand_items": 7, "recent": recent}


def report(pid: int, **more: Any) -> dict[str, Any]:
    return {"host": "here", "pid": pid, "seen": 998.0, "since": 400.0, "models": ["m"], "done": 5, **more}


def rows(status: Status, title: str) -> list[list[str]]:
    return [list(row) for section in sections(status) if section.title == title for row in section.table.rows]


def test_a_queue_is_shown_with_what_waits_and_its_bound() -> None:
    assert rows(STATUS, "queue") == [["m", "1,200", "5.0s", "2.0 KiB of 4.0 KiB", "1", "1", "1", "0"]]
    assert dict(facts(STATUS, 80))["to do"] == "1,200 items, the oldest due for 5.0 s"


def test_how_many_of_a_queue_are_high_is_shown_where_there_are_any() -> None:
    some = replace(STATUS, loads=[replace(LOAD, high=2), replace(LOAD, model_id="n")])
    (table,) = [section.table for section in sections(some) if section.title == "queue"]
    place = list(table.heads).index("high")
    assert [row[place] for row in table.rows] == ["2 of 3", "0 of 3"]
    assert place in table.right
    lines = table_lines(table, 60)
    assert all(len(line) <= 60 for line in lines)
    assert "high" in lines[0]
    (table,) = [section.table for section in sections(STATUS) if section.title == "queue"]
    assert "high" not in table.heads
    assert [load["high"] for load in status_object(some)["queues"]] == [2, 0]


def test_time_left_is_told_only_where_somebody_works() -> None:
    assert STATUS.seconds_left is None
    assert replace(STATUS, workers=[report(1)]).seconds_left == 60
    assert dict(facts(STATUS, 80))["workers"] == "none: 'embedq worker' runs one"
    assert dict(facts(replace(STATUS, workers=[report(1)]), 80))["time left"].startswith("1 min 00 s, until ")


@pytest.mark.parametrize(
    "held_up",
    [
        {"pauses": [Pause(Scope(), 0.0)]},
        {"pauses": [Pause(Scope("model", "m"), 0.0)]},
        {"loads": [replace(LOAD, paused=1)]},
        {"workers": [report(1, troubles={"m": "HTTP 401"})]},
    ],
)
def test_no_time_left_is_told_while_some_of_it_can_not_be_moved(held_up: dict[str, Any]) -> None:
    working = replace(STATUS, workers=[report(1)], pauses=[Pause(Scope("model", "other"), 0.0)])
    assert working.seconds_left == 60
    assert replace(working, **held_up).seconds_left is None


def test_what_is_queued_for_a_model_that_is_paused_is_shown_as_paused() -> None:
    (row,) = rows(replace(STATUS, pauses=[Pause(Scope("model", "m"), 0.0)]), "queue")
    assert row[-1] == "all"


def test_the_lines_on_top_fit_a_narrow_terminal() -> None:
    fast = replace(STATUS, rates=Rates([99_999] * 60))
    (speed,) = [line for line in field_lines(facts(fast, 60)) if line.startswith("speed")]
    assert "9,999.9" not in speed
    assert len(speed) <= 60


def test_the_speed_is_told_over_one_minute_and_over_ten() -> None:
    slower = replace(STATUS, rates=Rates([100] + [0] * 53 + [200] * 6))
    assert dict(facts(slower, 80))["speed"] == "20.0 items/s over a minute, 2.2 over ten"


def test_a_worker_is_shown_with_what_it_has_in_hand_and_may_have() -> None:
    status = replace(
        STATUS, workers=[report(7, in_hand_items=9, in_hand_bytes=1024, in_hand_bytes_limit=64 * 1024 * 1024)]
    )
    assert rows(status, "workers") == [["here:7", "9 items, 1.0 KiB of 64 MiB", "10m00s", "2s ago", "5", "m"]]


def test_a_worker_of_an_earlier_version_or_with_nothing_to_serve_is_shown_by_its_place() -> None:
    old = {"host": "here", "pid": 7}
    idle = {"host": "here", "pid": 8, "in_hand_bytes": 0, "in_hand_bytes_limit": 0}
    status = replace(STATUS, workers=[old, idle])
    assert [row[:4] for row in rows(status, "workers")] == [["here:7", "-", "-", "-"], ["here:8", "-", "-", "-"]]
    assert sections(status)[-1].title == "workers"


def test_what_all_workers_say_of_a_model_is_added_up() -> None:
    workers = [
        report(1, serving={"m": serving(3, 96, RateLimited=2), "other": serving(0, 0)}),
        report(2, serving={"m": serving(1, 16, ValueError=9, RateLimited=1)}),
        {"host": "of an earlier version", "pid": 3},
    ]
    m, other = model_figures(workers)
    assert (m.workers, m.calls, m.inputs, m.in_hand_items, m.batch_fill) == (2, 4, 112, 14, 112 / 128)
    assert (other.batch_fill, other.errors) == (None, {})
    assert rows(replace(STATUS, workers=workers), "models") == [
        ["m", "32", "88%", "4", "500 ms", "9 ValueError, 3 RateLimited"],
        ["other", "32", "-", "0", "-", "none"],
    ]


def test_what_is_wrong_with_a_model_is_shown_once_however_many_workers_say_so() -> None:
    broken = report(1, troubles={"m": "HTTP 401: check it"})
    status = replace(STATUS, workers=[broken, broken | {"pid": 2}, report(3)])
    told = [text for name, text in facts(status, 80) if name == "trouble"]
    assert told == ["m: HTTP 401: check it"]
    assert "trouble: m: HTTP 401: check it" in summary_line(status)


def test_a_log_gets_the_status_in_a_line() -> None:
    status = replace(STATUS, workers=[report(1)], dead=[DeadLetterSummary("docs", "ValueError", 3)])
    assert summary_line(status) == (
        "1,200 items to do (2.0 KiB), 20.0 items/s, 1 min 00 s left, 1 worker, 0 runs going on, 3 dead letters"
    )


def test_the_series_is_drawn_as_wide_as_there_is_room() -> None:
    assert sparkline([0, 1, 4, 7], 60) == "▁▂▅█"
    assert sparkline([0, 0], 60) == "▁▁"
    assert sparkline([], 60) == ""
    assert sparkline([0] * 54 + [1] * 6, 60) == "▁" * 54 + "█" * 6
    assert sparkline([0] * 54 + [1] * 6, 46) == "▁" * 27 + "█" * 3
    # The few that are left over stand at the beginning, and the latest are whole.
    assert sparkline([9, 0, 0, 1, 1], 3) == "█▁▃"
    assert sparkline([1] * 60, 0) == "█"


def test_json_has_all_of_it() -> None:
    told = status_object(replace(STATUS, workers=[report(1, serving={"m": serving(3, 96)})]))
    assert told["rates"] == {"span_seconds": 10, "items": [0] * 54 + [200] * 6}
    assert (told["at"], told["items_per_second"], told["items_per_second_10_minutes"]) == (1000, 20, 20)
    (model,) = told["models"]
    assert (model["model"], model["batch_fill"], model["calls"]) == ("m", 1, 3)
    assert told["queues"][0]["queued"] == 1


def test_dead_letters_are_counted_anew_when_the_file_has_changed_and_no_more_often_than_they_are_worth() -> None:
    assert due(changed=True, since_last=1.0, last_took=0.001)
    assert not due(changed=False, since_last=1e9, last_took=0.001)
    assert not due(changed=True, since_last=1.0, last_took=0.5)
    assert due(changed=True, since_last=10.0, last_took=0.5)


def test_what_is_paused_is_a_line_that_says_since_when_why_and_what_lifts_it() -> None:
    status = replace(STATUS, pauses=[Pause(Scope(), 0.0, "the bill"), Pause(Scope("collection", "my docs"), 0.0)])
    everything, one = [text for name, text in facts(status, 80) if name == "paused"]
    assert everything == f"everything since {moment(0)}, the bill: 'embedq resume' lets it go on"
    assert one == f"collection my docs since {moment(0)}: 'embedq resume --collection 'my docs'' lets it go on"
    assert [pause["name"] for pause in status_object(status)["pauses"]] == [None, "my docs"]


def test_schedules_are_shown_with_when_they_are_due_and_what_became_of_them() -> None:
    soon = Upcoming("nightly", 1090.0, 90.0, "UTC", "done")
    late, never = (
        Upcoming("late", 990.0, -10.0, "Europe/Berlin", ""),
        Upcoming("old", None, None, "UTC", "failed (exit code 2)"),
    )
    status = replace(STATUS, schedules=[late, soon, never])
    assert rows(status, "schedules") == [
        ["late", "now", "1970-01-01 01:16 CET", "-"],
        ["nightly", "in 1m30s", "1970-01-01 00:18 UTC", "done"],
        ["old", "disabled", "-", "failed (exit code 2)"],
    ]
    assert [each["due"] for each in status_object(status)["schedules"]] == [990.0, 1090.0, None]


def test_a_worker_that_is_about_to_end_says_so() -> None:
    status = replace(STATUS, workers=[report(7, draining=True)])
    assert rows(status, "workers")[0][3] == "2s ago, draining"


def test_what_is_embedded_anew_is_shown_with_how_far_it_is_and_why_it_stopped() -> None:
    going = Reembedding(
        key=1,
        collection="docs",
        source=1,
        shadow=2,
        old_model="old",
        new_model="new",
        golden=None,
        recall=None,
        drop_old=False,
        run=None,
        state="embedding",
        message=None,
        started=900.0,
        switched=None,
    )
    stopped = replace(going, state="stopped", message="golden queries find less")
    half = ReembeddingRow(going, Coverage(entries=4, covered=1, dead=1, missing=2), Progress(None, 0.0, 30.0, None))
    status = replace(STATUS, reembeddings=[half, ReembeddingRow(stopped, None, None)])
    assert rows(status, "re-embeddings") == [
        ["docs", "embedding", "50%", "30s", "new", "-"],
        ["docs", "stopped", "-", "-", "new", "golden queries find less"],
    ]
    assert [each["state"] for each in status_object(status)["reembeddings"]] == ["embedding", "stopped"]


def test_a_time_that_no_clock_has_is_told_all_the_same() -> None:
    assert moment(1_700_000_000_000) == "1,700,000,000,000 s after 1970"
