"""What a filter keeps, and what `--where` means."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_core.items import metadata_object
from embedq_store.filters import Filter, code_of, kinded_at, parsed, where_given

AUTHOR = {"author": {"name": "Ann", "born": {"year": 1980}}, "author.name": "Bob", "a.b": {"c": 1}}


def keeps(where: Any, metadata: dict[str, Any] | None) -> bool:
    return Filter.of(None, where).keeps("id", None if metadata is None else json.dumps(metadata))


@pytest.mark.parametrize(
    ("where", "metadata", "kept"),
    [
        ({"year": 2024}, {"year": 2024}, True),
        ({"year": 2024}, {"year": 2024.0}, True),
        ({"year": 2024}, {"year": "2024"}, False),
        ({"year": "2024"}, {"year": 2024}, False),
        ({"year": np.int64(2024)}, {"year": 2024}, True),
        ({"done": True}, {"done": True}, True),
        ({"done": True}, {"done": 1}, False),
        ({"done": 1}, {"done": True}, False),
        ({"by": None}, {"by": None}, True),
        ({"by": None}, {}, False),
        ({"by": None}, None, False),
        ({"by": ""}, {"by": ""}, True),
        ({"lang": "de"}, {"lang": ["de"]}, False),
        ({"lang": ["de", "en"]}, {"lang": "en"}, True),
        ({"lang": {"de", "en"}}, {"lang": "fr"}, False),
        ({"lang": "de", "year": 1}, {"lang": "de", "year": 1}, True),
        ({"lang": "de", "year": 1}, {"lang": "de", "year": 2}, False),
        ({"author.born.year": 1980}, AUTHOR, True),
        ({"author.name": "Bob"}, AUTHOR, True),
        ({"author.name": "Ann"}, AUTHOR, False),  # a key that is there as it stands hides the way by dots
        ({"a.b.c": 1}, AUTHOR, True),
        ({"author": "Ann"}, AUTHOR, False),
        ({"author.": "Ann"}, AUTHOR, False),
        ({}, None, True),
        (None, None, True),
    ],
)
def test_an_entry_is_kept_where_its_metadata_holds_the_value(where: Any, metadata: Any, kept: bool) -> None:
    assert keeps(where, metadata) is kept


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a": NaN}', '{"a": "\\ud800"}', '{"a": 1e999}', '{"a":1,"a":2}'])
def test_metadata_that_another_tool_wrote_is_read_as_entries_show_it(text: str) -> None:
    assert repr(parsed(text)) == repr(metadata_object(text))


@pytest.mark.parametrize("value", [b"x", {"a": 1}, [], [[1]], object(), float("nan")])
def test_what_json_has_no_value_for_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"where: .*'key'"):
        Filter.of(None, {"key": value})  # type: ignore[dict-item] # on purpose


@pytest.mark.parametrize("where", ["key=value", ["key"], {"": 1}, {1: 1}])
def test_where_must_map_keys_to_values(where: Any) -> None:
    with pytest.raises(ValueError, match=r"where|key"):
        Filter.of(None, where)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)


@given(scalars, scalars)
def test_equal_values_have_equal_codes_and_no_value_has_0(left: Any, right: Any) -> None:
    a, b = kinded_at({"k": left}, "k"), kinded_at({"k": right}, "k")
    assert code_of(None) == 0
    assert 0 < code_of(a) < 2**32
    assert a != b or code_of(a) == code_of(b)


# --- the command line


@pytest.mark.parametrize(
    ("text", "matching", "not_matching"),
    [
        ("k=2024", [2024, 2024.0, "2024"], [True, "2024.0"]),
        ("k=2024.0", [2024, "2024.0"], ["2024"]),
        ('k="2024"', ["2024", '"2024"'], [2024]),
        ("k=true", [True, "true"], [1, "True"]),
        ("k=null", [None, "null"], [""]),
        ("k=", [""], [None]),
        ("k=a=b", ["a=b"], ["a"]),
        ("k=NaN", ["NaN"], [None]),
        ("k=[1]", ["[1]"], [1]),
        ("k=Ann B", ["Ann B"], ["Ann"]),
    ],
)
def test_a_value_on_the_command_line_is_text_and_what_it_means_in_json(
    text: str, matching: list[Any], not_matching: list[Any]
) -> None:
    where = where_given([text])
    assert all(keeps(where, {"k": value}) for value in matching)
    assert not any(keeps(where, {"k": value}) for value in not_matching)


@pytest.mark.parametrize("texts", [["k"], ["=v"], ["k=1", "k=2"], ["k=\udc80"]])
def test_a_condition_that_makes_no_sense_is_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="--where"):
        where_given(texts)
