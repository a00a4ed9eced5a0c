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


def test_without_a_terminal_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_table(["name"], [["x" * 500]])
    assert "x" * 500 in capsys.readouterr().out


def test_what_a_terminal_would_obey_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_table(["name"], [["a\x1b[2J\nb"]])
    tables.print_fields([("name", "\x07")])
    assert capsys.readouterr().out == "name\na\\x1b[2J\\nb\nname  \\x07\n"
