"""Which lines a screen has room for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq.status.reporting import Status
from embedq.status.screen import allotted, fitting, screen
from embedq.status.sections import Section
from embedq.tables import Table
from embedq_jobs import QueueLoad, Rates
from embedq_store import DeadLetterSummary

LOAD = QueueLoad("a-model", jobs=3, in_progress=1, deferred=1, items=1200, bytes=2048, oldest=995.0)
WORKERS = [
    {
        "host": f"machine-{number}.example.org",
        "pid": 4000 + number,
        "models": ["a-model"],
        "serving": {
            "a-model": {
                "batch_size": 32,
                "in_hand_items": 0,
                "recent": {"calls": 1, "inputs": 32, "model_seconds": 0.5, "errors": {"RateLimited": 4}},
            }
        },
    }
    for number in range(12)
]
DEAD = [DeadLetterSummary("a-collection", f"Error{number}", 10 - number) for number in range(9)]
STATUS = Status(1000.0, "here", "x.db", 4096, [LOAD], Rates([5] * 60), WORKERS, [], DEAD)


def section(title: str, rows: int) -> Section:
    return Section(title, Table([title], [[f"{title} {number}"] for number in range(rows)]))


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(-3, 40))
def test_no_more_lines_are_given_than_there_are_and_none_in_vain(wanted: list[int], room: int) -> None:
    given_ = allotted(wanted, room, around=2)
    assert len(given_) == len(wanted)
    assert all(rows <= most for rows, most in zip(given_, wanted, strict=True))
    used = sum(rows + 2 for rows in given_ if rows)
    assert used <= max(room, 0)
    if any(0 < rows < most for rows, most in zip(given_, wanted, strict=True)):
        assert used == room


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(0, 40))
def test_whatever_is_shown_fits(rows: list[int], room: int) -> None:
    parts = [section(f"part {number}", count) for number, count in enumerate(rows) if count]
    assert len(fitting(parts, 80, room)) <= room


def test_what_comes_first_is_shown_before_what_comes_later() -> None:
    assert allotted([1, 9, 1], 3, around=2) == [1, 0, 0]
    assert allotted([1, 9, 1], 10, around=2) == [1, 2, 1]
    assert allotted([1, 9, 1], 12, around=2) == [1, 4, 1]
    assert allotted([1, 9, 1], 12, around=1) == [1, 7, 1]
    assert allotted([4, 4], 12, around=2) == [4, 4]


def test_rows_and_sections_that_have_no_place_are_told() -> None:
    parts = [section("queue", 1), section("runs", 9), section("models", 5)]
    assert fitting(parts, 80, 7) == [
        "queue",
        "queue 0",
        "runs",
        "runs 0",
        "runs 1",
        "and 7 more",
        "no room for: models",
    ]
    assert fitting([section("runs", 2)], 80, 4) == ["", "runs", "runs 0", "runs 1"]


def test_blank_lines_give_way_to_what_there_is_to_show() -> None:
    parts = [section("queue", 1), section("runs", 2)]
    assert fitting(parts, 80, 7) == ["", "queue", "queue 0", "", "runs", "runs 0", "runs 1"]
    assert fitting(parts, 80, 6) == ["", "queue", "queue 0", "runs", "runs 0", "runs 1"]
    assert fitting(parts, 80, 5) == ["queue", "queue 0", "runs", "runs 0", "runs 1"]


@pytest.mark.parametrize(("columns", "rows"), [(100, 30), (60, 24), (20, 6), (300, 100), (1, 1)])
def test_a_screen_is_no_larger_than_the_terminal(columns: int, rows: int) -> None:
    lines = screen(STATUS, columns, rows, now=1000, every=2)
    assert len(lines) <= rows
    assert max(map(len, lines)) <= columns


def test_at_60_by_24_what_matters_most_is_there() -> None:
    text = "\n".join(screen(STATUS, 60, 24, now=1000, every=2))
    for words in ("every 2 s", "to do", "1,200 items", "items/s", "█", "time left", "dead letters", "54"):
        assert words in text
    assert "a-model" in text
    assert "machine-0.example.org:4000" in text
    assert "Error0" in text
    assert "more" in text


def test_what_keeps_it_from_being_read_stands_above_what_was_read_before() -> None:
    lines = screen(STATUS, 100, 30, now=1012, every=2, problem="Redis at here can't be reached")
    assert lines[1] == "Redis at here can't be reached (below is how it was 12 s ago)"
    assert any("1,200 items" in line for line in lines)
    assert screen(None, 100, 30, now=1012, every=2, problem="no Redis")[1:] == ["no Redis"]


def test_names_can_not_move_the_cursor() -> None:
    evil = Status(1000.0, "here", "x\x1b[2J.db", 1, [], Rates([]), [], [], [DeadLetterSummary("a\x1b[H\n", "E", 1)])
    lines = screen(evil, 100, 30, now=1000, every=2, problem="a\x07b")
    assert "\x1b" not in "".join(lines)
    assert "\x07" not in "".join(lines)
    assert not any("\n" in line for line in lines)
