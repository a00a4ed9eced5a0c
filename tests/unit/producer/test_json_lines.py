import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedq_core.items import Item
from embedq_producer.readers import RowOptions
from embedq_producer.readers.bad_row import BadRow
from embedq_producer.readers.json_rows import JsonRows

Read = Callable[..., tuple[list[Item], list[str]]]


def test_every_line_is_an_item_and_blank_lines_are_nothing(read_text: Read) -> None:
    text = '\ufeff{"id": 1, "content": "a"}\r\n\n  \n{"id": "2", "content": "b", "metadata": {"x": [1]}}'
    assert read_text("docs.jsonl", text) == ([Item("1", "a"), Item("2", "b", '{"x": [1]}')], [])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"id": 1, "content": "a"', "docs.jsonl line 2: isn't valid JSON (input data was truncated)"),
        ('{"id": 1 "content": "a"}', "docs.jsonl line 2: isn't valid JSON (expected ',' or '}' (byte 9))"),
        ('{"id": 1, "content": "a"} x', "docs.jsonl line 2: isn't valid JSON (trailing characters (byte 27))"),
        ('{"id": 1, "content": NaN}', "docs.jsonl line 2: isn't valid JSON: it has no NaN, use null"),
        ('{"id": 1, "content": "\t"}', "docs.jsonl line 2: isn't valid JSON (invalid character (byte 22))"),
        ('["a", "b"]', "docs.jsonl line 2: isn't a JSON object, which every row must be"),
        ('"x"', "docs.jsonl line 2: isn't a JSON object, which every row must be"),
        ('{"id": 1, "content": 1e999}', "docs.jsonl line 2: holds a number that is out of range"),
        ('{"id": ' + "9" * 5000 + ', "content": "a"}', "docs.jsonl line 2: holds a number that is out of range"),
        ('{"content": "a"}', "docs.jsonl line 2: has no id: the first column is 'content'"),
        ('{"id": null, "content": "a"}', "docs.jsonl line 2: the id is null"),
        ('{"id": "x", "content": null}', "docs.jsonl line 2, id 'x': the content is null"),
        ('{"id": "x", "content": ""}', "docs.jsonl line 2, id 'x': the content is empty"),
        (
            '{"id": "x", "content": "a", "metadata": "b"}',
            "docs.jsonl line 2, id 'x': the metadata isn't an object, it is text",
        ),
        (
            '{"id": "x", "content": "a\\ud800"}',
            "docs.jsonl line 2, id 'x': the content holds a lone surrogate (U+D800 at character 1)",
        ),
        (
            '{"id": "\\uDC00", "content": "a"}',
            "docs.jsonl line 2, id '\\udc00': the id holds a lone surrogate (U+DC00 at character 0)",
        ),
        ('{"id": 1, "a": ' + "[" * 200_000 + "]" * 200_000 + "}", "docs.jsonl line 2: is nested too deeply"),
        (
            '{"id": 1, "a": "\\ud800' + "[" * 9000,
            "docs.jsonl line 2: isn't valid JSON (unexpected end of escaped utf-16 surrogate pair (byte 22))",
        ),
        ('{"id": "\\ud800", "a": ' + "[" * 200_000 + "]" * 200_000 + "}", "docs.jsonl line 2: is nested too deeply"),
        ('{"id": "\\ud800", "a": ' + "9" * 5000 + "}", "docs.jsonl line 2: holds a number of too many digits"),
    ],
)
def test_a_line_that_can_not_be_read_is_reported_and_the_others_are_read(
    read_text: Read, line: str, problem: str
) -> None:
    text = f'{{"id": "a", "content": "A"}}\n{line}\n{{"id": "b", "content": "B"}}\n'
    assert read_text("docs.jsonl", text) == ([Item("a", "A"), Item("b", "B")], [problem])


def test_a_surrogate_in_what_is_not_used_harms_nothing(read_text: Read) -> None:
    text = '{"id": "a", "content": "A", "other": "\\ud800"}'
    assert read_text("docs.jsonl", text) == ([Item("a", "A")], [])


def test_undecodable_bytes_cost_one_line(read_text: Read) -> None:
    text = b'{"id": "a", "content": "caf\xe9"}\n{"id": "b", "content": "B"}\n'
    items, errors = read_text("docs.jsonl", text)
    assert items == [Item("b", "B")]
    assert errors == [
        "docs.jsonl line 1: isn't text in utf-8 (byte 0xe9 at 27): name its encoding with --encoding, or mend it"
    ]


@pytest.mark.parametrize("encodings", [("latin-1",), ("utf-8", "latin-1"), ("ascii", "cp1252")])
def test_other_encodings_are_tried_in_order(read_text: Read, encodings: tuple[str, ...]) -> None:
    text = b'{"id": "a", "content": "caf\xe9"}\n{"id": "b", "content": "B"}\n'
    assert read_text("docs.jsonl", text, encodings=encodings) == ([Item("a", "café"), Item("b", "B")], [])


def test_a_line_beyond_the_limit_is_skipped_unread(read_text: Read) -> None:
    long = json.dumps({"id": "long", "content": "x" * 3_000_000})
    text = f'{{"id": "a", "content": "A"}}\n{long}\n{{"id": "b", "content": "B"}}\n{long}'
    items, errors = read_text("docs.jsonl", text, item_bytes=1000)
    assert items == [Item("a", "A"), Item("b", "B")]
    assert errors == [
        "docs.jsonl line 2: is larger than 1,000 bytes: split it, or raise EMBEDQ_ITEM_BYTES",
        "docs.jsonl line 4: is larger than 1,000 bytes: split it, or raise EMBEDQ_ITEM_BYTES",
    ]


def test_the_last_of_two_equal_keys_counts(read_text: Read) -> None:
    text = '{"id": "a", "id": "b", "content": 1, "content": "B"}'
    assert read_text("docs.jsonl", text) == ([Item("b", "B")], [])


def outcome(rows: JsonRows, data: bytes) -> tuple[object, ...]:
    try:
        return (rows.item(data),)
    except BadRow as bad:
        return type(bad), bad.problem, bad.id


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
KEYS = st.sampled_from(["id", "content", "metadata", "title", "é"])
NEARLY_JSON = st.builds(
    lambda pairs, cut, junk: (
        ("{" + ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs) + "}").encode()[
            : cut or None
        ]
        + junk
    ),
    st.lists(st.tuples(KEYS, VALUES), max_size=4),
    st.integers(-3, 0),
    st.sampled_from([b"", b" ", b"\xff", b"}", b"x"]),
)
OPTIONS = st.builds(
    RowOptions,
    prefix=st.sampled_from(["", "p-", "\ud800"]),
    prepend=st.sampled_from(["", "passage: "]),
    encodings=st.sampled_from([(), ("utf-8", "latin-1"), ("latin-1",)]),
    item_bytes=st.sampled_from([20, 10_000]),
)


@given(NEARLY_JSON, OPTIONS)
@example(b'{"id": 1.0, "content": "x"}', RowOptions())
@example(b'{"id": 1, "content": "x", "metadata": {"a": 123456789012345678901234567890}}', RowOptions())
@example(b'{"id": [1], "content": "x"}', RowOptions())
@example(b'{"id": 1, "content": "\xe9"}', RowOptions(encodings=("utf-8", "latin-1")))
def test_white_box_the_fast_way_and_the_way_for_any_row_agree(data: bytes, options: RowOptions) -> None:
    fast, any_row = JsonRows(options), JsonRows(options)
    any_row._plain = None
    assert outcome(fast, data) == outcome(any_row, data)


@given(st.text(min_size=1), st.text(min_size=1), st.dictionaries(st.text(), st.integers() | st.text()))
def test_white_box_good_rows_take_the_fast_way(id: str, content: str, metadata: dict[str, Any]) -> None:  # noqa: A002 - the field's name
    rows = JsonRows(RowOptions())
    rows._any_item = None  # type: ignore[assignment, method-assign] # calling it would raise
    data = json.dumps({"id": id, "content": content, "metadata": metadata}).encode()
    if id.strip():
        assert rows.item(data).content == content
