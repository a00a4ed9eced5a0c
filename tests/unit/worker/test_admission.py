"""Which waiting jobs are taken in hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_worker.admission import AHEAD_SECONDS, LEAST_ITEMS, MOST_ITEMS, UNKNOWN, JobSize, admit, full, parse_size

sizes = st.builds(JobSize, st.integers(0, 10_000), st.integers(0, 5_000))


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


@given(st.lists(sizes), st.lists(sizes), st.floats(0, 1e6))
def test_where_there_is_no_room_nothing_is_taken(waiting: list[JobSize], in_hand: list[JobSize], speed: float) -> None:
    if full(in_hand, max_bytes=1000, items_per_second=speed):
        assert taken([size for size in waiting if size.bytes and size.items], in_hand, speed=speed) == 0


def test_an_idle_worker_has_room() -> None:
    assert not full([], max_bytes=0, items_per_second=0.0)
    assert not full([JobSize(999, LEAST_ITEMS - 1)], max_bytes=1000, items_per_second=0.0)
    assert full([JobSize(999, LEAST_ITEMS)], max_bytes=1000, items_per_second=0.0)
    assert full([JobSize(1000, 1)], max_bytes=1000, items_per_second=0.0)


@pytest.mark.parametrize("value", [None, b"", b"x", b"12", b"12,", b",3", b"-1,2", b"1.5,2", b"1,2,3"])
def test_what_is_no_size_counts_as_a_full_chunk(value: bytes | None) -> None:
    assert parse_size(value) is UNKNOWN


def test_a_size_is_read_as_the_ledger_has_it() -> None:
    assert parse_size(b"4194304,2048") == JobSize(4_194_304, 2048) == UNKNOWN
