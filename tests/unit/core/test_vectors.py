import itertools
import math
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_core.errors import WrongVectorCount
from embedq_core.vectors import checked_rows, cosine_similarity, decode, encode

floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = st.lists(floats32, min_size=1, max_size=6)


def test_a_vector_is_stored_as_little_endian_32_bit_floats() -> None:
    assert encode([1.0, -2.5, 0.1]) == struct.pack("<3f", 1.0, -2.5, 0.1)


@pytest.mark.parametrize(
    "values",
    [
        (1.0, 2.0),
        iter([1.0, 2.0]),
        [1, 2],
        np.array([1.0, 2.0]),
        np.array([1, 2], dtype=np.int64),
        np.array([1.0, 2.0], dtype=">f4"),
        np.array([1.0, 9.0, 2.0, 9.0], dtype=np.float32)[::2],
    ],
    ids=["tuple", "iterator", "integers", "float64", "int64", "big-endian", "strided"],
)
def test_every_kind_of_vector_has_the_same_stored_form(values: Any) -> None:
    assert encode(values) == struct.pack("<2f", 1.0, 2.0)


@given(vectors)
def test_what_was_encoded_is_decoded(vector: list[float]) -> None:
    assert decode(encode(vector)) == tuple(vector)


def test_decode_gives_plain_floats() -> None:
    assert {type(value) for value in decode(encode([1.0, 2.0]))} == {float}


def test_an_empty_vector_is_no_bytes() -> None:
    assert encode([]) == b""
    assert decode(b"") == ()


def test_bytes_that_are_no_whole_number_of_floats_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        decode(b"12345")


@pytest.mark.parametrize(
    ("a", "b", "cosine"),
    [
        ([1, 0], [2, 0], 1.0),
        ([1, 0], [-3, 0], -1.0),
        ([1, 0], [0, 5], 0.0),
        ([1, 1], [1, 0], math.sqrt(0.5)),
        ([3, 4], [4, 3], 24 / 25),
    ],
)
def test_cosine_similarity_is_the_cosine_of_the_angle(a: list[float], b: list[float], cosine: float) -> None:
    assert cosine_similarity(a, b) == pytest.approx(cosine, abs=1e-15)


def test_a_zero_vector_has_similarity_0_to_anything() -> None:
    assert cosine_similarity([0.0, 0.0], [1.0, 2.0]) == 0.0
    assert cosine_similarity([1.0, 2.0], [0.0, 0.0]) == 0.0
    assert cosine_similarity([0.0, 0.0], [0.0, 0.0]) == 0.0


def test_vectors_of_different_dimensions_cant_be_compared() -> None:
    with pytest.raises(ValueError, match="vectors of 2 and 3 dimensions can't be compared"):
        cosine_similarity([1.0, 2.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize("length", [1e-310, 1e-200, 1e-45, 1e38, 1e200, 1.7e308])
def test_length_doesnt_matter_however_extreme(length: float) -> None:
    assert cosine_similarity([0.6 * length, 0.8 * length], [3.0, 4.0]) == pytest.approx(1.0)


def test_nan_and_infinity_have_no_similarity() -> None:
    assert cosine_similarity([math.nan, 1.0], [1.0, 1.0]) == 0.0
    assert cosine_similarity([math.inf, 1.0], [1.0, 1.0]) == 0.0


@given(st.data())
def test_cosine_similarity_is_symmetric_and_between_minus_1_and_1(data: st.DataObject) -> None:
    a = data.draw(vectors)
    b = data.draw(st.lists(floats32, min_size=len(a), max_size=len(a)))
    cosine = cosine_similarity(a, b)
    assert -1.0 <= cosine <= 1.0
    assert cosine == cosine_similarity(b, a)


# --- what a model returns


def _rows() -> Iterator[list[float]]:
    yield [1.0, 2.0]
    yield [3.0, 4.0]


RETURNS: dict[str, Callable[[], object]] = {
    "lists": lambda: list(_rows()),
    "tuples": lambda: tuple(map(tuple, _rows())),
    "a generator": _rows,
    "a generator of generators": lambda: ((value for value in row) for row in _rows()),
    "a map": lambda: map(list, _rows()),
    "float32 array": lambda: np.array(list(_rows()), dtype=np.float32),
    "float64 array": lambda: np.array(list(_rows())),
    "float16 array": lambda: np.array(list(_rows()), dtype=np.float16),
    "integer array": lambda: np.array([[1, 2], [3, 4]]),
    "transposed array": lambda: np.array([[1.0, 3.0], [2.0, 4.0]]).T,
    "array of objects": lambda: np.array([[1, 2.0], [3, 4.0]], dtype=object),
    "list of arrays": lambda: [np.array(row) for row in _rows()],
    "generator of arrays": lambda: (np.array(row, dtype=np.float32) for row in _rows()),
    "arrays and lists": lambda: [np.array([1.0, 2.0]), [3, 4]],
    "numpy scalars": lambda: [[np.float32(1), np.float64(2)], [np.int8(3), 4.0]],
}


@pytest.mark.parametrize("kind", RETURNS)
def test_whatever_holds_the_rows_a_float32_matrix_comes_of_it(kind: str) -> None:
    checked = checked_rows(RETURNS[kind](), 2)
    assert checked.faults == {}
    assert checked.matrix.dtype == np.float32
    assert checked.matrix.flags.c_contiguous
    assert checked.matrix.tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize("kind", ["lists", "a generator", "float32 array", "generator of arrays"])
@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_too_few_and_too_many_rows_cant_be_matched_with_items(kind: str, count: int) -> None:
    with pytest.raises(WrongVectorCount, match=f"for a batch of {count}"):
        checked_rows(RETURNS[kind](), count)


def test_a_generator_without_end_is_noticed_and_closed() -> None:
    taken: list[int] = []
    closed: list[bool] = []

    def endless() -> Iterator[list[float]]:
        try:
            for number in itertools.count():
                taken.append(number)
                yield [float(number)]
        finally:
            closed.append(True)

    with pytest.raises(WrongVectorCount, match="more than 3 vectors for a batch of 3"):
        checked_rows(endless(), 3)
    assert taken == [0, 1, 2, 3]
    assert closed == [True]


def test_an_error_inside_a_lazy_answer_is_the_models() -> None:
    def breaking() -> Iterator[list[float]]:
        yield [1.0]
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        checked_rows(breaking(), 2)


@pytest.mark.parametrize("returned", [None, 1.0, object()])
def test_what_holds_no_rows_is_refused(returned: object) -> None:
    with pytest.raises(WrongVectorCount, match=f"returned {type(returned).__name__} instead of 2 vectors"):
        checked_rows(returned, 2)


@pytest.mark.parametrize("shape", [(2,), (1, 2), (3, 2), (2, 2, 2), ()])
def test_an_array_of_another_shape_is_refused_with_its_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(WrongVectorCount) as caught:
        checked_rows(np.zeros(shape), 2)
    assert str(shape) in str(caught.value)
    assert "(2, dimension) is needed" in str(caught.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e39, -1e300])
@pytest.mark.parametrize("hold", [list, np.array, iter], ids=["lists", "array", "generator"])
def test_a_number_that_32_bits_cant_hold_is_a_fault_of_its_row_alone(bad: float, hold: Callable[[Any], Any]) -> None:
    checked = checked_rows(hold([[1.0, 2.0], [bad, 2.0], [3.0, 4.0]]), 3)
    assert checked.matrix.tolist() == [[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]]
    assert list(checked.faults) == [1]
    assert "NaN or infinity" in checked.faults[1]


def test_the_models_own_array_is_not_changed() -> None:
    own = np.array([[math.nan, 1.0], [1.0, 1.0]], dtype=np.float32)
    checked_rows(own, 2)
    assert np.isnan(own[0, 0])


@pytest.mark.parametrize("odd", [[1.0], [1.0, 2.0, 3.0], np.array([1.0])], ids=["shorter", "longer", "a shorter array"])
def test_a_row_of_another_dimension_than_most_is_a_fault(odd: object) -> None:
    checked = checked_rows([[1.0, 2.0], odd, [3.0, 4.0]], 3)
    assert checked.matrix.tolist() == [[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]]
    assert list(checked.faults) == [1]
    assert "among vectors of 2 dimensions" in checked.faults[1]


def test_of_two_equally_frequent_dimensions_the_first_counts() -> None:
    checked = checked_rows([[1.0], [1.0, 2.0]], 2)
    assert checked.matrix.tolist() == [[1.0], [0.0]]
    assert list(checked.faults) == [1]


@pytest.mark.parametrize(
    "odd",
    ["text", b"bytes", None, 5.0, {"a": 1}, ["x", "y"], [[1.0, 2.0]], [10**400, 1], object()],
    ids=["text", "bytes", "None", "a number", "a dict", "texts", "nested", "a huge integer", "an object"],
)
def test_a_row_that_is_no_vector_is_a_fault_of_that_row_alone(odd: object) -> None:
    checked = checked_rows([[1.0, 2.0], odd, [3.0, 4.0]], 3)
    assert checked.matrix.tolist() == [[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]]
    assert list(checked.faults) == [1]


def test_an_array_of_objects_that_are_no_numbers_has_faulty_rows() -> None:
    checked = checked_rows(np.array([[1.0, 2.0], ["x", None]], dtype=object), 2)
    assert checked.matrix.tolist() == [[1.0, 2.0], [0.0, 0.0]]
    assert list(checked.faults) == [1]


@pytest.mark.parametrize("returned", [[[], []], [iter(()), iter(())], np.zeros((2, 0))])
def test_empty_vectors_are_faults(returned: object) -> None:
    assert checked_rows(returned, 2).faults == dict.fromkeys([0, 1], "the model returned an empty vector")


def test_when_no_row_is_a_vector_each_is_a_fault() -> None:
    checked = checked_rows(["a", "b"], 2)
    assert set(checked.faults) == {0, 1}
    assert len(checked.matrix) == 2


def test_nothing_for_nothing_is_right() -> None:
    nothing: list[object] = [[], iter(()), np.zeros((0, 3))]
    for returned in nothing:
        checked = checked_rows(returned, 0)
        assert checked.faults == {}
        assert len(checked.matrix) == 0


@given(st.lists(st.one_of(vectors, st.just([math.nan]), st.just("x")), max_size=8))
def test_every_row_is_either_faulty_and_zero_or_finite_and_as_it_came(rows: list[Any]) -> None:
    checked = checked_rows(iter(rows), len(rows))
    assert len(checked.matrix) == len(rows)
    assert np.isfinite(checked.matrix).all()
    for index, row in enumerate(rows):
        assert checked.matrix[index].tolist() == (
            [0.0] * checked.matrix.shape[1] if index in checked.faults else pytest.approx(row)
        )
