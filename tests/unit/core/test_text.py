import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_core.text import columns_of, cut_text, excerpt, plural, shown, suggestion


@given(st.text())
def test_shown_text_is_one_line_without_anything_that_a_terminal_obeys(text: str) -> None:
    line = shown(text)
    assert len(line.splitlines()) <= 1
    assert "\x1b" not in line
    assert line.encode().decode() == line
    assert shown(line) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain text, ünïcödé, 日本語 🐕", "plain text, ünïcödé, 日本語 🐕"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines\r\n", "two\\nlines\\r\\n"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\x9b5m\x7f", "\\x9b5m\\x7f"),
        ("lone \ud800", "lone \\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_an_escape_and_the_rest_is_itself(text: str, line: str) -> None:
    assert shown(text) == line


@given(st.text(), st.integers(1, 40))
def test_an_excerpt_of_plain_text_is_no_wider_than_asked(text: str, width: int) -> None:
    assert len(excerpt(text, width)) <= width


def test_an_excerpt_folds_white_space_and_says_that_it_goes_on() -> None:
    assert excerpt("a  b\n\tc", 10) == "a b c"
    assert excerpt("word " * 100, 9) == "word wor…"


def test_close_names_are_suggested_and_others_are_not() -> None:
    assert suggestion("phrase", ["phrases", "docs"]) == " Did you mean 'phrases'?"
    assert suggestion("hashin", ["hashing", "hash", "clip"]) == " Did you mean 'hashing' or 'hash'?"
    assert suggestion("hose", ["house", "house"]) == " Did you mean 'house'?"
    assert suggestion("x", ["phrases"]) == ""
    assert suggestion("x", iter(())) == ""


@pytest.mark.parametrize(("count", "words"), [(0, "0 items"), (1, "1 item"), (1024, "1,024 items")])
def test_numbers_of_things_read_well(count: int, words: str) -> None:
    assert plural(count, "item") == words


def test_an_irregular_plural_can_be_given() -> None:
    assert plural(2, "entry", "entries") == "2 entries"


@pytest.mark.parametrize(
    ("text", "columns"), [("plain", 5), ("ünïcödé", 7), ("u\u0308", 1), ("日本語", 6), ("🐕 ▁▂…", 6), ("", 0)]
)
def test_a_text_is_as_wide_as_a_terminal_shows_it(text: str, columns: int) -> None:
    assert columns_of(text) == columns


@given(st.text(st.sampled_from("ab日本🐕u\u0308")), st.integers(1, 40))
def test_a_text_that_is_cut_is_no_wider_than_there_is_room_and_no_shorter_than_need_be(text: str, width: int) -> None:
    cut = cut_text(text, width)
    assert cut == text or (cut.endswith("…") and text.startswith(cut[:-1]) and columns_of(cut) >= width - 1)
    assert columns_of(cut) <= width
