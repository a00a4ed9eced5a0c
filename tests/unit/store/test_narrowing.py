"""What SQLite is asked leaves out no metadata that meets the conditions."""

import json
import sqlite3
from contextlib import closing

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedq_store.filters import Filter, Scalar, parsed
from embedq_store.narrowing import narrowed

texts = st.text(st.characters(), max_size=3) | st.sampled_from(
    ["a", "é", "\\", '"', "\n", "\x00", "\ud800", "true", "2024"]
)
numbers = (
    st.integers(-30, 30)
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.sampled_from([2024, 2024.0, -0.0])
)
scalars = texts | numbers | st.booleans() | st.none()


def found(metadata: str | bytes, where: dict[str, Scalar]) -> bool:
    text, values = narrowed(Filter.of(None, where).conditions)
    with closing(sqlite3.connect(":memory:")) as db:
        return bool(db.execute(f"SELECT {text} FROM (SELECT ? AS metadata)", (*values, metadata)).fetchone()[0])


@given(scalars, st.booleans())
@example(2**53 + 1, True)
def test_what_holds_the_value_is_found(value: Scalar, plain: bool) -> None:
    try:
        metadata = json.dumps({"key": value}, ensure_ascii=not plain)
        metadata.encode()
    except UnicodeEncodeError:
        metadata = json.dumps({"key": value})
    assert all(one.keeps(parsed(metadata)) for one in Filter.of(None, {"key": value}).conditions)
    assert found(metadata, {"key": value})


@pytest.mark.parametrize("literal", ["2024", "2024.0", "2.024e3", "2.024E+3", "20240e-1", "202400.0E-2"])
def test_however_a_number_is_written_it_is_found(literal: str) -> None:
    for value in (2024, 2024.0):
        assert found(f'{{"year":{literal}}}', {"year": value})


def test_of_others_most_are_left_out_and_what_is_no_text_is_not() -> None:
    assert not found('{"year": 2023, "kind": "common"}', {"year": 2024})
    assert not found('{"year": 2023, "kind": "common"}', {"kind": "rare"})
    assert not found('{"year": 2023, "kind": "rare"}', {"kind": "rare", "year": 2024})
    assert not found('{"done": false}', {"done": True})
    assert found(b'{"kind": "common"}', {"kind": "rare"})
