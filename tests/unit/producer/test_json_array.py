import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_core.errors import RowError, SourceError
from embedq_core.items import Item
from embedq_producer.readers import FileSource, RowOptions, read_corpus
from embedq_producer.readers.elements import elements

Read = Callable[..., tuple[list[Item], list[str]]]


def texts(data: bytes, block: int, longest: int = 10**6) -> list[bytes | None]:
    """The elements in `data`, given to the reader in blocks of `block` bytes."""

    class Slow(io.RawIOBase):
        source = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            return self.source.readinto(memoryview(buffer)[:block])

    return [text for _, text in elements(io.BufferedReader(Slow(), 16), "docs.json", longest)]


def test_every_object_of_the_array_is_an_item(read_text: Read) -> None:
    text = '\ufeff [\n{"id": 1, "content": "]},{[\\"\\\\"},\n {"id": 2, "content": "b", "metadata": {"x": [{}]}}\n] \n'
    assert read_text("docs.json", text) == ([Item("1", ']},{["\\'), Item("2", "b", '{"x": [{}]}')], [])


@pytest.mark.parametrize("text", ["", " \n", "[]", " [ \n ] "])
def test_nothing_in_it_is_no_error(read_text: Read, text: str) -> None:
    assert read_text("docs.json", text) == ([], [])


def test_elements_that_are_no_rows_are_reported_and_the_others_read(read_text: Read) -> None:
    others = '1,\n"x", null, [2], {"id": "b"}, {"id": "c", "content": "\\ud800"},\n'
    text = f'[{{"id": "a", "content": "A"}}, {others}{{"id": "d", "content": "D"}}]'
    items, errors = read_text("docs.json", text)
    assert items == [Item("a", "A"), Item("d", "D")]
    assert [error.partition(": ")[0] for error in errors] == [
        "docs.json row 2 (line 1)",
        "docs.json row 3 (line 2)",
        "docs.json row 4 (line 2)",
        "docs.json row 5 (line 2)",
        "docs.json row 6 (line 2)",
        "docs.json row 7 (line 2), id 'c'",
    ]


def test_undecodable_bytes_and_deep_nesting_cost_one_row(read_text: Read) -> None:
    text = (
        b'[{"id": "a", "content": "\xe9"}, {"id": 1, "x": '
        + b"[" * 200_000
        + b"]" * 200_000
        + b'}, {"id": "b", "content": "B"}]'
    )
    items, errors = read_text("docs.json", text)
    assert items == [Item("b", "B")]
    assert errors[0].startswith("docs.json row 1 (line 1): isn't text in utf-8")
    assert errors[1] == "docs.json row 2 (line 1): is nested too deeply"


def test_a_number_that_json_has_not_costs_one_row(read_text: Read) -> None:
    items, errors = read_text("docs.json", '[{"id": 1, "content": NaN}, {"id": 2, "content": "b"}]')
    assert items == [Item("2", "b")]
    assert errors == ["docs.json row 1 (line 1): isn't valid JSON: it has no NaN, use null"]


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        (',\n{"id": "b" "content": "B"}, {}]', "docs.json row 2 (line 2): isn't valid JSON (expected ',' or '}'"),
        (
            ',\n{"id": "b, "content": "B"}, {"id": "c"}]',
            "docs.json line 2: not valid JSON, what begins here isn't closed",
        ),
        (',\n{"id": "b", "content": "B}]', "docs.json line 2: not valid JSON, what begins here isn't closed"),
        (",\n[{]", "docs.json line 2: not valid JSON, what begins here isn't closed"),
        (", 12", "docs.json line 1: not valid JSON, what begins here isn't closed"),
        ("\n", "docs.json line 2: not valid JSON, the array isn't closed"),
        (",", "docs.json line 1: not valid JSON, a value is missing"),
        (",]", "docs.json line 1: not valid JSON, a value is missing"),
        (',, {"id": "b"}]', "docs.json line 1: not valid JSON, a value is missing"),
        (' {"id": "b", "content": "B"}]', "docs.json line 1: not valid JSON, a comma is missing"),
        (", tru]", "docs.json row 2 (line 1): isn't valid JSON"),
        ("}]", "docs.json line 1: not valid JSON, a comma is missing"),
        ("]\n]", "docs.json line 2: not valid JSON, something stands after the array"),
    ],
)
def test_a_syntax_error_ends_the_reading_after_what_came_before(read_text: Read, rest: str, problem: str) -> None:
    with pytest.raises(SourceError) as caught:
        read_text("docs.json", '[{"id": "a", "content": "A"}' + rest)
    assert str(caught.value).startswith(problem)
    assert not isinstance(caught.value, RowError)


@pytest.mark.parametrize("text", ["x", '"x"', "12", "<html>"])
def test_what_is_no_array_is_said(read_text: Read, text: str) -> None:
    with pytest.raises(SourceError, match=r"docs\.json isn't a JSON array of objects"):
        read_text("docs.json", text)


def test_an_object_is_told_what_is_needed(read_text: Read) -> None:
    with pytest.raises(SourceError, match=r"docs\.json is a JSON object: an array .* --format nl"):
        read_text("docs.json", '{"id": "a", "content": "A"}\n')


def test_an_element_beyond_the_limit_is_skipped_unread(read_text: Read) -> None:
    long = json.dumps({"id": "long", "content": ['x\\"]'] * 500_000})
    text = f'[{{"id": "a", "content": "A"}},\n{long},\n{{"id": "b", "content": "B"}}, {long}]'
    items, errors = read_text("docs.json", text, item_bytes=1000)
    assert items == [Item("a", "A"), Item("b", "B")]
    assert errors == [
        "docs.json row 2 (line 2): is larger than 1,000 bytes: split it, or raise EMBEDQ_ITEM_BYTES",
        "docs.json row 4 (line 3): is larger than 1,000 bytes: split it, or raise EMBEDQ_ITEM_BYTES",
    ]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.text('"\\[]{},'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('"\\[]{}x'), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(VALUES, max_size=5), st.sampled_from([None, 1]), st.booleans(), st.integers(1, 40))
def test_elements_are_cut_as_json_cuts_them_wherever_blocks_end(
    values: list[object],
    indent: int | None,
    only_ascii: bool,
    block: int,
) -> None:
    data = json.dumps(values, indent=indent, ensure_ascii=only_ascii).encode()
    assert [json.loads(text or b"") for text in texts(data, block)] == values


@given(st.lists(VALUES, max_size=5), st.integers(1, 40), st.integers(1, 30))
def test_elements_beyond_the_limit_are_left_out_wherever_blocks_end(
    values: list[object], block: int, longest: int
) -> None:
    data = json.dumps(values).encode()
    expected = [json.dumps(value).encode() for value in values]
    found = texts(data, block, longest)
    assert found == [text if len(text) <= longest else None for text in expected]


@given(st.binary(max_size=60) | st.text('[]{}",\\x1 \n', max_size=60).map(str.encode), st.integers(1, 40))
def test_any_bytes_are_elements_or_a_source_error(data: bytes, block: int) -> None:
    with suppress(SourceError):
        texts(data, block)


def test_what_came_before_an_error_was_given(tmp_path: Path) -> None:
    path = tmp_path / "docs.json"
    path.write_text('[{"id": "a", "content": "A"}, {"id": "b", "content": "B"} oops')
    seen: list[RowError] = []
    reading = iter(read_corpus(FileSource(path), RowOptions(), seen.append))
    assert [next(reading).id, next(reading).id] == ["a", "b"]
    with pytest.raises(SourceError, match="a comma is missing"):
        next(reading)
    assert seen == []
