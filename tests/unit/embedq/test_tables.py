import os
import shutil
import sys

import pytest

from embedq import tables


def narrow(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((columns, 24)))


def test_columns_are_aligned_and_numbers_stand_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_table(["name", "count"], [["a", "1"], ["longer", "1,000"]], right={1})
    assert capsys.readouterr().out == "name    count\na           1\nlonger  1,000\n"


def test_on_a_narrow_terminal_the_widest_text_is_cut_and_no_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch, 30)
    tables.print_table(["name", "count"], [["x" * 80, "1,000,000"]], right={1})
    lines = capsys.readouterr().out.splitlines()
    assert [len(line) for line in lines] == [30, 30]
    assert lines[1] == "x" * 18 + "…  1,000,000"


def test_wide_characters_leave_the_columns_where_they_are() -> None:
    table = tables.Table(["collection", "items"], [["日本語の本の集まり" * 3, "1"], ["ü", "20"]], frozenset({1}))
    assert tables.table_lines(table, 30) == [
        "collection               items",
        "日本語の本の集まり日本…      1",
        "ü                           20",
    ]


def test_what_other_commands_are_given_stays_whole_and_the_last_columns_are_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch, 60)
    run, started = "20261120-125140-w8sjt", "2026-11-20 12:51:40"
    tables.print_table(
        ["run", "state", "collection", "done", "started", "outcome"],
        [[run, "in_progress", "books of all kinds", "60,000/60,000", started, "60,000 embedded"]],
        right={3},
    )
    assert capsys.readouterr().out.splitlines() == [
        "run                    state     collecti…           done  …",
        "20261120-125140-w8sjt  in_prog…  books of…  60,000/60,000",
    ]


@pytest.mark.parametrize(
    ("widths", "limit", "found"),
    [
        ([5, 5], 12, [5, 5]),
        ([20, 30, 30], 60, [20, 18, 18]),
        ([30, 30, 30, 30, 30], 60, [30, 11, 12]),
        # A name that would take the whole line is cut after all.
        ([90, 7, 10], 60, [39, 7, 10]),
        ([90, 90], 12, [8, 8]),
    ],
)
def test_columns_are_fitted_into_a_line(widths: list[int], limit: int, found: list[int]) -> None:
    assert tables.fitted(widths, limit) == found


def test_without_a_terminal_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_table(["name"], [["x" * 500]])
    assert "x" * 500 in capsys.readouterr().out


def test_what_a_terminal_would_obey_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_table(["name"], [["a\x1b[2J\nb"]])
    tables.print_fields([("name", "\x07")])
    assert capsys.readouterr().out == "name\na\\x1b[2J\\nb\nname  \\x07\n"
