"""The pace of a model, whoever keeps it: this process alone, or all workers through Redis."""

from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_core.limits import LONGEST_HOLD_SECONDS, Booking, Limits, Pace
from embedq_jobs import Queue

NOW = 1_800_000_000.0


class Keeper(Protocol):
    async def book(self, seconds: float, generation: int | None, now: float) -> Booking: ...
    async def shift(self, seconds: float) -> None: ...
    async def hold(self, seconds: float, now: float) -> None: ...


class Local:
    def __init__(self) -> None:
        self.pace = Pace()

    async def book(self, seconds: float, generation: int | None, now: float) -> Booking:
        self.pace, booking = self.pace.book(seconds, generation, now)
        return booking

    async def shift(self, seconds: float) -> None:
        self.pace = self.pace.shifted(seconds)

    async def hold(self, seconds: float, now: float) -> None:
        self.pace = self.pace.hold(seconds, now)


@pytest.fixture(params=["local", "redis"])
def keeper(request: pytest.FixtureRequest, queue: Queue) -> Keeper:
    return Local() if request.param == "local" else queue.pace("model")


async def waits(keeper: Keeper, *seconds: float, now: float = NOW) -> list[float]:
    return [round((await keeper.book(each, None, now)).wait, 3) for each in seconds]


async def test_calls_that_come_at_once_are_spread(keeper: Keeper) -> None:
    assert await waits(keeper, 1, 2, 3, 1) == [0, 1, 3, 6]


async def test_who_comes_late_need_not_wait_and_saves_nothing_up(keeper: Keeper) -> None:
    assert await waits(keeper, 1) == [0]
    assert await waits(keeper, 1, 1, now=NOW + 100) == [0, 1]


async def test_a_booking_is_good_when_its_time_has_come(keeper: Keeper) -> None:
    await waits(keeper, 5)
    booking = await keeper.book(5, None, NOW)
    assert booking.wait == pytest.approx(5)
    assert (await keeper.book(5, booking.generation, NOW + 5)).wait == 0
    assert await waits(keeper, 1, now=NOW + 5) == [5], "asking again has not booked again"


async def test_a_hold_calls_all_bookings_off_and_those_who_waited_are_spread_after_it(keeper: Keeper) -> None:
    bookings = [await keeper.book(1, None, NOW) for _ in range(10)]
    await keeper.hold(30, NOW)
    again = [await keeper.book(1, booking.generation, NOW + 2) for booking in bookings[:3]]
    assert [round(booking.wait, 3) for booking in again] == [28, 29, 30]
    assert (await keeper.book(1, again[0].generation, NOW + 30)).wait == 0


async def test_a_shorter_hold_does_not_end_a_longer_one(keeper: Keeper) -> None:
    await keeper.hold(30, NOW)
    await keeper.hold(1, NOW + 1)
    assert await waits(keeper, 1, now=NOW + 2) == [28]


async def test_no_hold_is_for_ever_or_backwards(keeper: Keeper) -> None:
    await keeper.hold(-5, NOW)
    assert await waits(keeper, 0) == [0]
    await keeper.hold(1e12, NOW)
    assert await waits(keeper, 0) == [LONGEST_HOLD_SECONDS]


async def test_a_call_that_turned_out_heavier_keeps_the_next_one_waiting_longer(keeper: Keeper) -> None:
    await waits(keeper, 1)
    await keeper.shift(2.5)
    assert await waits(keeper, 1) == [3.5]
    await keeper.shift(-2)
    assert await waits(keeper, 1) == [2.5]


async def test_without_limits_nobody_waits(keeper: Keeper) -> None:
    assert await waits(keeper, *[Limits().seconds(100)] * 5) == [0] * 5


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(1, 30)), min_size=1, max_size=60))
def test_in_no_minute_wherever_it_begins_do_more_calls_start_than_the_limit(arrivals: list[tuple[float, int]]) -> None:
    """Arrivals: how long after the one before, and how many calls at once."""
    limits, pace, now, starts = Limits(requests_per_minute=20), Pace(), NOW, list[float]()
    for pause, calls in arrivals:
        now += pause
        for _ in range(calls):
            pace, booking = pace.book(limits.seconds(1000), None, now)
            starts.append(now + booking.wait)
    for begin in starts:
        assert sum(begin <= start < begin + 60 - 1e-3 for start in starts) <= 20


async def test_redis_has_a_clock_of_its_own_and_forgets(queue: Queue) -> None:
    pace = queue.pace("model")
    assert (await pace.book(1000, None)).wait == 0
    # The clock goes on meanwhile.
    assert 900 < (await queue.pace("model").book(1, None)).wait <= 1000, "whoever asks"
    assert (await queue.pace("other").book(1, None)).wait == 0
    assert 0 < await queue.redis.ttl(queue.names.limit("model")) <= 7200
