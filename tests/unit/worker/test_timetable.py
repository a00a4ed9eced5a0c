"""When schedules are due: daylight saving, missed times, what can't be; all by the arguments alone."""

from dataclasses import replace
from datetime import datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from embedq_core.errors import UsageError
from embedq_store import Attempt, Schedule
from embedq_worker.timetable import (
    LATE_SECONDS,
    MOST_MISSED,
    Due,
    Skipped,
    last_result,
    next_after,
    owed,
    times_after,
    upcoming,
    zone,
)
from support.clocks import due

BERLIN, LORD_HOWE = "Europe/Berlin", "Australia/Lord_Howe"


def times(expression: str, timezone: str, after: str, number: int) -> list[str]:
    """The next times, by the clocks there: '29 03:00+02:00'."""
    found = islice(times_after(expression, timezone, due(after, timezone)), number)
    return [datetime.fromtimestamp(each, ZoneInfo(timezone)).isoformat(" ", "minutes")[8:] for each in found]


@pytest.mark.parametrize(
    ("expression", "timezone", "after", "expected"),
    [
        pytest.param(
            "0 3 * * *", BERLIN, "2026-07-01 03:00", ["02 03:00+02:00", "03 03:00+02:00"], id="strictly after"
        ),
        # Clocks are put forward on 29 March at 2:00, back on 25 October at 3:00.
        pytest.param("30 2 * * *", BERLIN, "2026-03-28 12:00", ["29 03:00+02:00", "30 02:30+02:00"], id="not there"),
        pytest.param("30 2 * * *", BERLIN, "2026-10-24 12:00", ["25 02:30+02:00", "26 02:30+01:00"], id="there twice"),
        pytest.param("0 0 25 10 *", BERLIN, "2026-10-24 12:00", ["25 00:00+02:00", "25 00:00+02:00"], id="once a year"),
        pytest.param(
            "*/30 2 * * *", BERLIN, "2026-03-28 12:00", ["29 03:00+02:00", "30 02:00+02:00"], id="two times not there"
        ),
        pytest.param(
            "*/30 2 * * *",
            BERLIN,
            "2026-10-24 12:00",
            ["25 02:00+02:00", "25 02:30+02:00", "26 02:00+01:00"],
            id="an hour that is there twice, named",
        ),
        pytest.param(
            "0 */2 * * *", BERLIN, "2026-10-25 00:00", ["25 02:00+02:00", "25 04:00+01:00"], id="every other hour"
        ),
        pytest.param(
            "*/15 * * * *",
            BERLIN,
            "2026-03-29 01:30",
            ["29 01:45+01:00", "29 03:00+02:00", "29 03:15+02:00"],
            id="quarters, forward",
        ),
        pytest.param(
            "*/15 * * * *",
            BERLIN,
            "2026-10-25 02:30",
            [
                "25 02:45+02:00",
                "25 02:00+01:00",
                "25 02:15+01:00",
                "25 02:30+01:00",
                "25 02:45+01:00",
                "25 03:00+01:00",
            ],
            id="quarters, back",
        ),
        # By half an hour: on 4 October at 2:00 forward, on 5 April at 2:00 back.
        pytest.param(
            "15 2 * * *", LORD_HOWE, "2026-10-03 12:00", ["04 02:30+11:00", "05 02:15+11:00"], id="half an hour forward"
        ),
        pytest.param(
            "45 1 * * *", LORD_HOWE, "2026-04-04 12:00", ["05 01:45+11:00", "06 01:45+10:30"], id="half an hour back"
        ),
        pytest.param(
            "*/15 * * * *",
            LORD_HOWE,
            "2026-10-04 01:30",
            ["04 01:45+10:30", "04 02:30+11:00", "04 02:45+11:00"],
            id="quarters, half an hour forward",
        ),
        pytest.param(
            "*/15 * * * *",
            LORD_HOWE,
            "2026-04-05 01:30",
            ["05 01:45+11:00", "05 01:30+10:30", "05 01:45+10:30", "05 02:00+10:30"],
            id="quarters, half an hour back",
        ),
        pytest.param("0 0 29 2 *", "UTC", "2026-01-01", ["29 00:00+00:00", "29 00:00+00:00"], id="29 February"),
        pytest.param("0 9 * * MON-FRI", "UTC", "2026-11-20 10:00", ["23 09:00+00:00"], id="days of the week"),
    ],
)
def test_times_by_the_clocks_of_a_place(expression: str, timezone: str, after: str, expected: list[str]) -> None:
    assert times(expression, timezone, after, len(expected)) == expected


def test_leap_days_are_four_years_apart() -> None:
    assert next_after("0 0 29 2 *", "UTC", due("2026-01-01")) == due("2028-02-29")


def test_within_the_hour_that_comes_again_no_time_comes_again() -> None:
    # Ten past two for the second time: half past two has been, the first time.
    again = datetime(2026, 10, 25, 2, 10, fold=1, tzinfo=ZoneInfo(BERLIN)).timestamp()
    assert next_after("30 2 * * *", BERLIN, again) == due("2026-10-26 02:30", BERLIN)


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("0 0 30 2 *", "bad day-of-month"),
        ("0 0 31 2,4 *", "bad day-of-month"),
        ("0 0 * 4 MON#6", "bad day-of-week"),
        ("0 25 * * *", "bad hour"),
        ("60 * * * *", "bad minute"),
        ("", "five fields"),
        ("@daily", "five fields"),
        ("0 0 3 * * *", "five fields"),
        ("every day at three", "five fields"),
        ("a b c d e", "bad minute"),
        # The second Monday is never the 1st or the 29th.
        ("0 0 */28 * MON#2", "no time in the next fifty years"),
    ],
)
def test_expressions_that_mean_nothing_are_refused(expression: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        next_after(expression, "UTC", 0)


@pytest.mark.parametrize("name", ["Mars", "", "Europe", "../UTC", "/etc/localtime", "\x1b[31m"])
def test_zones_that_there_are_not_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="there is no time zone") as caught:
        zone(name)
    assert "\x1b" not in str(caught.value)


# --- what is owed


NIGHTLY = Schedule(
    key=1,
    name="nightly",
    expression="0 3 * * *",
    timezone=BERLIN,
    arguments=("submit", "docs", "a.csv"),
    directory="/data",
    enabled=True,
    due=due("2026-03-27 03:00", BERLIN),
    created=0.0,
)
NEXT = due("2026-03-28 03:00", BERLIN)


def tried(due: float | None, state: str = "done") -> Attempt:
    return Attempt(7, due, 0, 1.0, 2.0, state, 0, (), "here:1", "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("now", "missed", "following"),
    [
        ("2026-03-27 03:00:00", 0, "2026-03-28 03:00"),
        ("2026-03-27 03:00:59", 0, "2026-03-28 03:00"),
        ("2026-03-28 02:59:59", 0, "2026-03-28 03:00"),
        ("2026-03-28 03:00:00", 1, "2026-03-29 03:00"),
        ("2026-03-30 12:00:00", 3, "2026-03-31 03:00"),
    ],
)
def test_missed_times_are_made_up_for_by_one_run(now: str, missed: int, following: str) -> None:
    assert owed([NIGHTLY], {}, due(now, BERLIN)) == [Due(NIGHTLY, missed, due(following, BERLIN))]


def test_nothing_is_owed_before_its_time_or_while_disabled() -> None:
    assert owed([NIGHTLY], {}, NIGHTLY.due - 0.001) == []
    assert owed([replace(NIGHTLY, enabled=False)], {}, NIGHTLY.due) == []


def test_a_clock_that_is_put_back_runs_nothing_twice() -> None:
    (found,) = owed([NIGHTLY], {}, NIGHTLY.due + 1)
    begun = replace(NIGHTLY, due=found.following, last=tried(NIGHTLY.due))
    assert owed([begun], {}, NIGHTLY.due - 3600) == []
    assert owed([begun], {}, NIGHTLY.due + 1) == []


def test_what_is_longest_overdue_comes_first() -> None:
    earlier = replace(NIGHTLY, key=2, name="z", due=NIGHTLY.due - 60)
    same = replace(NIGHTLY, key=3, name="a")
    assert [each.schedule.name for each in owed([NIGHTLY, earlier, same], {}, NIGHTLY.due)] == ["z", "a", "nightly"]


def test_one_whose_last_run_is_going_is_skipped_and_others_are_not() -> None:
    other = replace(NIGHTLY, key=2, name="other")
    found = owed([NIGHTLY, other], {1: "its last run is still going"}, NIGHTLY.due + 5)
    assert found == [Skipped(NIGHTLY, 0, NEXT, "its last run is still going"), Due(other, 0, NEXT)]


def test_a_time_that_was_missed_waits_for_the_end_of_the_last_run() -> None:
    going = {1: "its last run is still going"}
    assert isinstance(owed([NIGHTLY], going, NIGHTLY.due + LATE_SECONDS)[0], Skipped)
    assert owed([NIGHTLY], going, NIGHTLY.due + LATE_SECONDS + 1) == []


def test_a_time_whose_run_was_interrupted_waits_for_what_it_left() -> None:
    again = replace(NIGHTLY, last=tried(NIGHTLY.due, "interrupted"))
    assert owed([again], {1: "some items are queued still"}, NIGHTLY.due + 5) == []
    assert owed([again], {}, NIGHTLY.due + 5) == [Due(again, 0, NEXT)]


def test_missed_times_are_counted_to_a_thousand() -> None:
    often = replace(NIGHTLY, expression="* * * * *", timezone="UTC")
    later = NIGHTLY.due + 365 * 24 * 3600
    assert owed([often], {}, later) == [Due(often, MOST_MISSED, later + 60)]


# --- in words


def test_what_comes_next_is_told_in_order_and_disabled_ones_last() -> None:
    disabled = replace(NIGHTLY, key=2, name="a", enabled=False)
    sooner = replace(NIGHTLY, key=3, name="z", due=NIGHTLY.due - 60, last=tried(None))
    rows = upcoming([disabled, NIGHTLY, sooner], NIGHTLY.due)
    assert [(row.name, row.seconds, row.last) for row in rows] == [
        ("z", -60.0, "done"),
        ("nightly", 0.0, ""),
        ("a", None, ""),
    ]
    assert rows[2].as_object() == {"name": "a", "due": None, "seconds": None, "timezone": BERLIN, "last": ""}


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (tried(None), "done"),
        (replace(tried(None), missed=3), "done (for 3 missed times too)"),
        (replace(tried(None), missed=MOST_MISSED), "done (for 1,000 missed times or more too)"),
        (replace(tried(None, "failed"), exit_code=2), "failed (exit code 2)"),
        (replace(tried(None, "failed"), exit_code=-9), "failed (signal 9)"),
        (replace(tried(None, "failed"), exit_code=None, message="/data: gone"), "failed (not begun): /data: gone"),
        (replace(tried(None, "running"), exit_code=None), "running"),
    ],
)
def test_the_last_result_in_words(last: Attempt, words: str) -> None:
    assert last_result(replace(NIGHTLY, last=last)) == words


def test_a_time_that_was_skipped_is_the_last_result_until_the_run_has_ended() -> None:
    skipped = replace(tried(NIGHTLY.due, "skipped"), ended=50.0, missed=1, message="its last run is still going")
    going = replace(tried(None, "running"), ended=None)
    for last in (going, replace(going, state="done", ended=49.0)):
        assert last_result(replace(NIGHTLY, last=last, skipped=skipped)) == "skipped: its last run is still going"
    ended = replace(going, state="done", ended=51.0)
    assert last_result(replace(NIGHTLY, last=ended, skipped=skipped)) == "done (2 times skipped meanwhile)"
