"""How long a Redis that went away is waited for, and what is said meanwhile; with a clock that is passed in."""

import pytest

from embedq_core.errors import QueueError, RedisUnreachable
from embedq_jobs import Patience
from embedq_jobs.patience import LONGEST_PAUSE_SECONDS


class Redis:
    """Is away until `back`, on a clock that only sleeping moves."""

    def __init__(self, back: float) -> None:
        self.now = 0.0
        self.back = back
        self.pauses: list[float] = []
        self.said: list[str] = []
        self.stopped_at = float("inf")

    def patience(self, seconds: float = 300.0) -> Patience:
        return Patience(seconds, self.said.append, self.stopped, clock=lambda: self.now, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def ask(self) -> str:
        if self.now < self.back:
            raise RedisUnreachable("Redis can't be reached")
        return "answer"

    def stopped(self) -> bool:
        return self.now >= self.stopped_at


async def test_a_redis_that_is_there_is_asked_once_and_nothing_is_said() -> None:
    redis = Redis(back=0)
    patience = redis.patience()
    assert await patience.insist(redis.ask) == "answer"
    assert (redis.pauses, redis.said, patience.outages) == ([], [], 0)


async def test_a_redis_that_comes_back_is_waited_for_and_that_is_said_once() -> None:
    redis = Redis(back=60)
    patience = redis.patience()
    assert await patience.insist(redis.ask) == "answer"
    assert await patience.insist(redis.ask) == "answer"
    assert redis.said == [
        "Redis can't be reached; waiting for it to come back, 300 s at most",
        "Redis is back: going on",
    ]
    assert patience.outages == 1


async def test_pauses_grow_to_a_bound() -> None:
    redis = Redis(back=60)
    await redis.patience().insist(redis.ask)
    assert redis.pauses[0] <= 0.1
    assert LONGEST_PAUSE_SECONDS / 2 <= redis.pauses[-1] <= LONGEST_PAUSE_SECONDS
    assert 60 / LONGEST_PAUSE_SECONDS <= len(redis.pauses) <= 70


async def test_patience_ends_and_the_last_error_is_raised() -> None:
    redis = Redis(back=1000)
    with pytest.raises(RedisUnreachable, match="can't be reached"):
        await redis.patience(30).insist(redis.ask)
    assert 30 <= redis.now <= 30 + LONGEST_PAUSE_SECONDS
    with pytest.raises(RedisUnreachable):
        await redis.patience(0).insist(redis.ask)
    assert len(redis.said) == 1, "who has no patience says nothing of waiting"


async def test_each_time_redis_goes_away_counts_anew() -> None:
    redis = Redis(back=20)
    patience = redis.patience(30)
    await patience.insist(redis.ask)
    redis.back = redis.now + 20
    assert await patience.insist(redis.ask) == "answer"
    assert patience.outages == 2


async def test_who_is_told_to_stop_waits_no_longer() -> None:
    redis = Redis(back=1000)
    redis.stopped_at = 5
    with pytest.raises(RedisUnreachable):
        await redis.patience().insist(redis.ask)
    assert 5 <= redis.now <= 5 + LONGEST_PAUSE_SECONDS


async def test_another_error_is_no_reason_to_wait() -> None:
    redis = Redis(back=0)

    async def refused() -> None:
        raise QueueError("out of memory")

    with pytest.raises(QueueError):
        await redis.patience().insist(refused)
    assert redis.pauses == []
