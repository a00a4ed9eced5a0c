import json
import math
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_core.errors import UsageError
from embedq_core.items import metadata_object, metadata_text, unstorable

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
objects = st.dictionaries(st.text(), json_values, max_size=4)


@given(objects)
def test_metadata_is_written_as_llm_writes_it(metadata: dict[str, Any]) -> None:
    # The right side is how llm 0.36 makes the text.
    assert metadata_text(metadata) == (json.dumps(metadata) if metadata else None)


@given(objects)
def test_metadata_comes_back_as_it_was_given(metadata: dict[str, Any]) -> None:
    assert metadata_object(metadata_text(metadata)) == (metadata or None)


def test_the_order_of_keys_and_characters_beyond_ascii_are_kept_as_llm_keeps_them() -> None:
    assert metadata_text({"b": 1, "a": "ü"}) == '{"b": 1, "a": "\\u00fc"}'


@pytest.mark.parametrize("nothing", [None, {}])
def test_no_metadata_and_empty_metadata_are_stored_as_nothing(nothing: dict[str, Any] | None) -> None:
    assert metadata_text(nothing) is None


def test_any_mapping_is_metadata() -> None:
    assert metadata_text(MappingProxyType({"a": 1})) == '{"a": 1}'


@pytest.mark.parametrize("wrong", [["a"], "a", 5, [("a", 1)]])
def test_metadata_that_is_no_object_is_refused_with_its_type(wrong: Any) -> None:
    with pytest.raises(UsageError, match=f"must be an object .*, not {type(wrong).__name__}"):
        metadata_text(wrong)


def _nested() -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for _ in range(100_000):
        nested = {"a": nested}
    return nested


def _circular() -> dict[str, Any]:
    circular: dict[str, Any] = {}
    circular["self"] = circular
    return circular


@pytest.mark.parametrize(
    "wrong",
    [{"a": b"x"}, {"a": object()}, {(1, 2): 3}, _circular()],
    ids=["bytes", "object", "key", "circle"],
)
def test_metadata_that_json_cant_hold_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="metadata can't be written as JSON"):
        metadata_text(wrong)


def test_metadata_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(UsageError, match="metadata is nested too deeply"):
        metadata_text(_nested())


def test_nan_in_metadata_is_kept_as_llm_keeps_it() -> None:
    text = metadata_text({"a": math.nan})
    assert text == '{"a": NaN}'
    read = metadata_object(text)
    assert read is not None
    assert math.isnan(read["a"])


@pytest.mark.parametrize("text", [None, "", "no json", "[1]", '"a"', "5", "null", "[" * 100_000])
def test_what_another_tool_stored_as_metadata_that_is_no_object_reads_as_none(text: str | None) -> None:
    assert metadata_object(text) is None


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_text_can_be_stored(text: str) -> None:
    assert unstorable(text) is None


def test_a_lone_surrogate_cant_be_stored_and_its_place_is_told() -> None:
    assert unstorable("ab\ud800c") == "holds a lone surrogate (U+D800 at character 2)"
