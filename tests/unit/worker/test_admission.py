"""Which waiting jobs are taken in hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_core.priority import SHARE
from embedq_worker.admission import (
    AHEAD_SECONDS,
    LEAST_ITEMS,
    MOST_ITEMS,
    MOST_JOBS,
    UNKNOWN,
    JobSize,
    admit,
    full,
    parse_size,
)

sizes = st.builds(JobSize, st.integers(0, 10_000), st.integers(0, 5_000))
ranked_sizes = st.builds(JobSize, st.integers(0, 10_000), st.integers(0, 5_000), st.booleans())


def taken(waiting: list[JobSize], in_hand: list[JobSize] | None = None, *, speed: float = 0.0, room: int = 1000) -> int:
    """How many of `waiting` are taken."""
    jobs = [(str(number), size) for number, size in enumerate(waiting)]
    return len(admit(jobs, in_hand or [], max_bytes=room, items_per_second=speed))


def test_an_idle_worker_takes_one_job_whatever_it_weighs() -> None:
    assert taken([JobSize(10**9, 10**6), JobSize(1, 1)]) == 1


def test_a_busy_worker_takes_no_job_that_does_not_fit_in_memory() -> None:
    assert taken([JobSize(500, 1)] * 5) == 2
    assert taken([JobSize(500, 1)] * 5, [JobSize(501, 1)]) == 0
    assert taken([JobSize(500, 1)] * 5, [JobSize(500, 1)]) == 1


def test_a_slow_model_keeps_enough_in_hand_to_stay_busy_and_no_more() -> None:
    assert taken([JobSize(1, 2048)] * 9, speed=1) == LEAST_ITEMS // 2048


def test_a_fast_model_has_some_seconds_of_work_in_hand() -> None:
    assert taken([JobSize(1, 1000)] * 99, speed=20_000) == 20_000 * AHEAD_SECONDS / 1000


def test_a_model_that_is_faster_than_the_store_fills_no_memory_with_vectors() -> None:
    assert taken([JobSize(1, 2048)] * 99, speed=1e9) == MOST_ITEMS // 2048


def test_many_small_jobs_are_taken_together() -> None:
    assert taken([JobSize(2, 1)] * 200) == 200


def test_a_large_job_is_not_overtaken() -> None:
    assert taken([JobSize(100, 1), JobSize(5000, 1), JobSize(1, 1)]) == 1


@given(st.lists(sizes), st.lists(sizes), st.floats(0, 1e6))
def test_jobs_are_taken_in_order_and_fit_unless_there_is_only_one(
    waiting: list[JobSize], in_hand: list[JobSize], speed: float
) -> None:
    count = taken(waiting, in_hand, speed=speed)
    all_sizes = [*in_hand, *waiting[:count]]
    if count and any(size.bytes for size in in_hand):
        assert sum(size.bytes for size in all_sizes) <= 1000
        assert sum(size.items for size in all_sizes) <= max(LEAST_ITEMS, speed * AHEAD_SECONDS)
    if waiting and not any(size.bytes for size in in_hand):
        assert count >= 1, "an idle worker never stays idle"


@given(st.lists(ranked_sizes), st.lists(ranked_sizes), st.floats(0, 1e6), st.booleans())
def test_where_there_is_no_room_nothing_is_taken(
    waiting: list[JobSize], in_hand: list[JobSize], speed: float, high: bool
) -> None:
    same = [size for size in waiting if size.bytes and size.items and size.high == high]
    if full(in_hand, high=high, max_bytes=1000, items_per_second=speed):
        assert taken(same, in_hand, speed=speed) == 0


@pytest.mark.parametrize("high", [True, False])
def test_an_idle_worker_has_room(high: bool) -> None:
    def is_full(*in_hand: JobSize) -> bool:
        return full(in_hand, high=high, max_bytes=1000, items_per_second=0.0)

    assert not is_full()
    assert not is_full(JobSize(999, LEAST_ITEMS - 1, high))
    assert is_full(JobSize(999, LEAST_ITEMS, high))
    assert is_full(JobSize(1000, 1, high))
    assert not is_full(JobSize(5000, 9000, not high)), "what the other priority has taken leaves a share"
    assert is_full(JobSize(999, 1, not high), JobSize(250, 1, high))


def test_no_more_small_jobs_are_in_hand_than_arq_can_count() -> None:
    assert taken([JobSize(1, 1)] * 1000, room=10**6) == MOST_JOBS
    in_hand = [JobSize(1, 1)] * MOST_JOBS
    assert taken([JobSize(1, 1, high=True)] * 1000, in_hand, room=10**6) == MOST_JOBS * SHARE


# --- two priorities


def admitted(waiting: list[JobSize], in_hand: list[JobSize], speed: float = 0.0) -> list[JobSize]:
    """Those of `waiting` that are taken, in the order in which they are."""
    names = admit(
        [(str(number), size) for number, size in enumerate(waiting)], in_hand, max_bytes=1000, items_per_second=speed
    )
    return [waiting[int(name)] for name in names]


def test_high_jobs_are_taken_first_and_the_others_have_their_share() -> None:
    normal, high = JobSize(100, 1), JobSize(100, 1, high=True)
    assert admitted([normal] * 20 + [high] * 3, []) == [high] * 3 + [normal] * 7
    assert admitted([normal] * 20 + [high] * 20, []) == [high] * 10 + [normal] * 2


def test_a_worker_that_is_full_of_a_backfill_takes_a_high_job_and_no_more_than_its_share() -> None:
    in_hand = [JobSize(500, 1)] * 2
    assert admitted([JobSize(100, 1), JobSize(100, 1, high=True)], in_hand) == [JobSize(100, 1, high=True)]
    assert len(admitted([JobSize(100, 1, high=True)] * 9, in_hand)) == 2
    assert len(admitted([JobSize(900, 1, high=True)] * 9, in_hand)) == 1, "one, whatever it weighs"


@given(st.lists(ranked_sizes), st.lists(ranked_sizes), st.floats(0, 1e6))
def test_each_priority_is_taken_in_order_and_together_they_are_not_much_more_than_fits(
    waiting: list[JobSize], in_hand: list[JobSize], speed: float
) -> None:
    found = admitted(waiting, in_hand, speed)
    for high in (True, False):
        own = [size for size in found if size.high == high]
        assert own == [size for size in waiting if size.high == high][: len(own)]
        if any(size.high == high for size in waiting) and not any(size.bytes for size in in_hand if size.high == high):
            assert own, "a priority is never locked out"
        # What comes on top of what fits: the share, or one job that is larger than that.
        after = [*in_hand, *found]
        if own and sum(size.bytes for size in after) > 1000 and found[-1] is own[-1]:
            share = sum(size.bytes for size in after if size.high == high)
            assert share <= 1000 * SHARE or not any(size.bytes for size in [*in_hand, *own][:-1] if size.high == high)


@pytest.mark.parametrize("value", [None, b"", b"x", b"12", b"12,", b",3", b"-1,2", b"1.5,2", b"1,2,3"])
def test_what_is_no_size_counts_as_a_full_chunk(value: bytes | None) -> None:
    assert parse_size(value) is UNKNOWN


def test_a_size_is_read_as_the_ledger_has_it() -> None:
    assert parse_size(b"4194304,2048") == JobSize(4_194_304, 2048) == UNKNOWN
