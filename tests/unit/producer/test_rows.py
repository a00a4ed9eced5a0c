import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_core.items import Item, metadata_object, metadata_text
from embedq_producer.readers import RowOptions
from embedq_producer.readers.bad_row import BadRow
from embedq_producer.readers.rows import Unreadable, finished_item, id_of, item_of, shape_of, shaped_item

DEFAULT = RowOptions()
DEEP: list[Any] = []
for _ in range(200_000):
    DEEP = [DEEP]


def problem_of(row: dict[str, Any], options: RowOptions = DEFAULT) -> str:
    with pytest.raises(BadRow) as caught:
        item_of(row, options)
    return caught.value.problem


def test_columns_named_id_and_content_are_used_whatever_else_there_is() -> None:
    row = {"title": "t", "content": "c", "id": "i", "metadata": {"a": 1}}
    assert item_of(row, DEFAULT) == Item("i", "c", '{"a": 1}')


def test_otherwise_the_first_column_is_the_id_and_the_rest_the_content() -> None:
    assert item_of({"slug": "s", "title": "A", "body": "B"}, DEFAULT) == Item("s", "A B")


def test_metadata_of_a_row_without_named_columns_is_part_of_its_content() -> None:
    assert item_of({"slug": "s", "metadata": {"a": "é"}, "body": "B"}, DEFAULT) == Item("s", '{"a": "é"} B')


def test_values_that_are_no_text_are_joined_as_json_writes_them() -> None:
    row = {"k": 1, "a": None, "b": True, "c": 1.5, "d": [1, "x"], "e": "z"}
    assert item_of(row, DEFAULT) == Item("1", ' true 1.5 [1, "x"] z')


def test_a_content_that_is_a_number_is_its_text() -> None:
    assert item_of({"id": 1, "content": 5}, DEFAULT) == Item("1", "5")


@pytest.mark.parametrize(("value", "text"), [("x", "x"), (7, "7"), (1.0, "1.0"), (10**30, str(10**30)), (" a ", " a ")])
def test_an_id_is_text_or_the_digits_of_a_number(value: object, text: str) -> None:
    assert id_of(value) == text


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "the id is null"),
        ("", "the id is empty"),
        (" \n", "the id is empty"),
        (True, "the id is true or false; text or a number is needed"),
        ([1], "the id is a list; text or a number is needed"),
        ({}, "the id is an object; text or a number is needed"),
        (b"x", "the id is binary; text or a number is needed"),
        (math.nan, "the id is not a number"),
        (math.inf, "the id is not a number"),
        pytest.param(10**5000, "holds a value that can't be written as text", id="too many digits"),
        (Unreadable("is odd"), "the id is odd"),
    ],
)
def test_what_can_be_no_id_is_said(value: object, problem: str) -> None:
    with pytest.raises(BadRow, match=problem):
        id_of(value)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({}, "is empty: an id and a content are needed"),
        ({"content": "c", "title": "t"}, "has no id: the first column is 'content'"),
        ({"metadata": {}, "content": "c"}, "has no id: the first column is 'metadata'"),
        ({"id": "x"}, "has no content: an id and at least one more column that isn't metadata are needed"),
        ({"id": "x", "content": None}, "the content is null"),
        ({"id": "x", "content": ""}, "the content is empty"),
        ({"id": "x", "text": None}, "the content is null"),
        ({"id": "x", "title": "", "body": None}, "the content is empty"),
        ({"id": "x", "content": "\ud800"}, "the content holds a lone surrogate (U+D800 at character 0)"),
        ({"id": "a\ud800", "content": "c"}, "the id holds a lone surrogate (U+D800 at character 1)"),
        ({"id": "x", "content": "c", "metadata": "{}"}, "the metadata isn't an object, it is text"),
        ({"id": "x", "content": "c", "metadata": [1]}, "the metadata isn't an object, it is a list"),
        ({"id": "x", "content": "c", "metadata": 0}, "the metadata isn't an object, it is a number"),
        (
            {"id": "x", "content": "c", "metadata": {"a": b""}},
            "the metadata can't be written as JSON: Object of type bytes is not JSON serializable",
        ),
        ({"id": "x", "content": "c", "metadata": {"a": DEEP}}, "the metadata is nested too deeply"),
        ({"id": "x", "content": Unreadable("is odd")}, "column 'content' is odd"),
        ({"id": "x", "a": b"1", "b": "2"}, "column 'a' is binary, and can't be joined with others: select it alone"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(row: dict[str, Any], problem: str) -> None:
    assert problem_of(row) == problem


def test_a_lone_surrogate_in_metadata_is_found_and_a_pair_is_none() -> None:
    assert "the metadata holds a lone surrogate" in problem_of({"id": "x", "content": "c", "metadata": {"a": "\udc00"}})
    item = item_of({"id": "x", "content": "c", "metadata": {"a": "\U0001f600"}}, DEFAULT)
    assert metadata_object(item.metadata) == {"a": "\U0001f600"}


def test_the_id_of_a_bad_row_is_known_where_it_could_be_read() -> None:
    with pytest.raises(BadRow) as caught:
        item_of({"id": 17, "content": None}, DEFAULT)
    assert caught.value.at("docs.csv line 2") == "docs.csv line 2, id '17'"


def test_the_id_in_an_error_can_not_reach_the_terminal_as_a_command() -> None:
    assert BadRow("p", "\x1b[31m\n" + "x" * 500).at("w") == "w, id '\\x1b[31m " + "x" * 70 + "…'"


@pytest.mark.parametrize("empty", [None, "", {}])
def test_no_metadata_and_empty_metadata_are_the_same(empty: object) -> None:
    assert item_of({"id": "x", "content": "c", "metadata": empty}, DEFAULT).metadata is None


def test_named_columns_go_into_the_metadata_and_out_of_the_joined_content() -> None:
    options = RowOptions(metadata=("lang", "year"))
    item = item_of({"slug": "s", "lang": "en", "body": "B", "year": 1999}, options)
    assert item == Item("s", "B", '{"lang": "en", "year": 1999}')


def test_named_columns_are_added_to_the_metadata_that_is_there() -> None:
    options = RowOptions(metadata=("lang", "metadata", "absent"))
    item = item_of({"id": "s", "content": "B", "metadata": {"a": 1, "lang": "?"}, "lang": "en"}, options)
    assert item.metadata == '{"a": 1, "lang": "en"}'


def test_metadata_that_is_no_object_stays_an_error_beside_named_columns() -> None:
    row = {"id": "s", "content": "B", "metadata": [1], "lang": "en"}
    assert problem_of(row, RowOptions(metadata=("lang",))) == "the metadata isn't an object, it is a list"


@pytest.mark.parametrize(
    ("value", "problem"),
    [(b"x", "column 'lang' is binary, and metadata can't be"), (Unreadable("is odd"), "column 'lang' is odd")],
)
def test_a_named_column_that_json_can_not_hold_is_an_error(value: object, problem: str) -> None:
    assert problem_of({"id": "s", "content": "B", "lang": value}, RowOptions(metadata=("lang",))) == problem


def test_infinity_in_a_named_column_becomes_null() -> None:
    item = item_of({"id": "s", "content": "B", "lang": math.inf}, RowOptions(metadata=("lang",)))
    assert item.metadata == '{"lang": null}'


def test_nothing_left_for_the_content_is_an_error() -> None:
    assert problem_of({"k": 1, "lang": "en"}, RowOptions(metadata=("lang",))).startswith("has no content")


def test_prefix_and_prepend_are_put_before_id_and_text() -> None:
    options = RowOptions(prefix="p/", prepend="passage: ")
    assert item_of({"id": "x", "content": "c"}, options) == Item("p/x", "passage: c")
    assert item_of({"id": "x", "content": b"c"}, options) == Item("p/x", b"c")


def test_prepend_does_not_make_content_of_nothing() -> None:
    assert problem_of({"id": "x", "content": ""}, RowOptions(prepend="passage: ")) == "the content is empty"


def test_content_and_metadata_together_are_limited_in_bytes() -> None:
    options = RowOptions(item_bytes=10)
    assert item_of({"id": "x", "content": "é" * 5}, options).content == "é" * 5
    assert problem_of({"id": "x", "content": "é" * 5 + "x"}, options).startswith("is larger than 10 bytes")
    assert problem_of({"id": "x", "content": "é", "metadata": {"a": 10}}, options).startswith("is larger than")


def test_metadata_as_text_is_parsed_only_where_the_source_has_no_objects() -> None:
    shape = shape_of(("id", "content", "metadata"), DEFAULT)
    good, bad = ("1", "c", '{"a": [1]}'), ("1", "c", "[1]")
    assert shaped_item(shape, good, DEFAULT, metadata_may_be_text=True).metadata == '{"a": [1]}'
    with pytest.raises(BadRow, match="the metadata isn't the text of a JSON object"):
        shaped_item(shape, bad, DEFAULT, metadata_may_be_text=True)
    with pytest.raises(BadRow, match="the metadata isn't an object, it is text"):
        shaped_item(shape, good, DEFAULT)


def test_what_can_not_be_read_in_metadata_is_said() -> None:
    assert problem_of({"id": "x", "content": "c", "metadata": Unreadable("is odd")}) == "the metadata is odd"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["id", "content", "metadata", "a", "b"]) | st.text(), JSON | st.binary()))
def test_any_row_is_an_item_that_can_be_stored_or_a_bad_row(row: dict[str, Any]) -> None:
    with suppress(BadRow):
        item = item_of(row, RowOptions(metadata=("a",)))
        assert item.id.strip()
        assert item.content
        item.id.encode()
        if isinstance(item.content, str):
            item.content.encode()
        if item.metadata is not None:
            json.dumps(json.loads(item.metadata), ensure_ascii=False).encode()


@given(st.text(min_size=1), st.dictionaries(st.text(), st.integers() | st.text()))
def test_good_rows_come_out_as_they_went_in(text: str, metadata: dict[str, Any]) -> None:
    assert finished_item("i", text, metadata, DEFAULT) == Item("i", text, metadata_text(metadata))
