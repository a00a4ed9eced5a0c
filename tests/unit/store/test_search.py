import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_store.filters import Filter
from embedq_store.ranges import after as _after
from embedq_store.search import Query

texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1)


@given(texts, texts)
def test_the_text_after_a_prefix_bounds_all_that_start_with_it_and_nothing_else(prefix: str, text: str) -> None:
    after = _after(prefix)
    for candidate in (text, prefix + text, prefix):
        # SQLite compares UTF-8 bytes, which is the order of code points, as Python's.
        within = candidate >= prefix and (after is None or candidate < after)
        assert within == candidate.startswith(prefix)


@pytest.mark.parametrize(
    ("prefix", "after"),
    [
        ("a", "b"),
        ("docs/", "docs0"),
        ("\ud7ff", "\ue000"),
        ("a\U0010ffff", "b"),
        ("\U0010ffff", None),
        ("\U0010ffff\U0010ffff", None),
    ],
)
def test_the_bound_steps_over_what_is_no_character(prefix: str, after: str | None) -> None:
    assert _after(prefix) == after


@pytest.mark.parametrize("vector", [[], [[1.0, 2.0]], 5.0])
def test_a_query_needs_one_vector(vector: list[float]) -> None:
    with pytest.raises(ValueError, match="a query needs one vector"):
        Query.of(vector, 1, None, Filter())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_query_with_nan_or_infinity_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        Query.of([1.0, bad], 1, None, Filter())


@pytest.mark.parametrize("number", [0, -1])
def test_a_query_asks_for_at_least_one_entry(number: int) -> None:
    with pytest.raises(ValueError, match="number must be at least 1"):
        Query.of([1.0], number, None, Filter())
