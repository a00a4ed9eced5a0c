import msgspec
from hypothesis import given
from hypothesis import strategies as st

from embedq_core.counts import Counts

counts = st.builds(Counts, *[st.integers(0, 10**9)] * len(Counts.__struct_fields__))


@given(counts, counts)
def test_a_sum_adds_each_outcome(a: Counts, b: Counts) -> None:
    total = a + b
    for name in Counts.__struct_fields__:
        assert getattr(total, name) == getattr(a, name) + getattr(b, name)


@given(st.lists(counts))
def test_a_total_is_the_sum_of_its_parts(parts: list[Counts]) -> None:
    assert Counts.total(parts) == sum(parts, Counts())


def test_the_total_of_nothing_is_nothing() -> None:
    assert Counts.total([]) == Counts()


def test_done_counts_items_and_not_costs() -> None:
    assert Counts(embedded=1, reused=2, unchanged=4, failed=8, updated=16, calls=32, inputs=64).done == 15


def test_cancelled_items_have_ended_and_are_not_done() -> None:
    some = Counts(embedded=1, failed=2, cancelled=4)
    assert (some.done, some.ended) == (3, 7)
    assert msgspec.json.decode(b'{"embedded":1}', type=Counts) == Counts(embedded=1), "as it was written before"


def test_only_what_is_not_zero_is_told_and_written() -> None:
    some = Counts(embedded=3, calls=1)
    assert some.nonzero() == {"embedded": 3, "calls": 1}
    assert msgspec.json.encode(some) == b'{"embedded":3,"calls":1}'
    assert msgspec.json.decode(msgspec.json.encode(some), type=Counts) == some
