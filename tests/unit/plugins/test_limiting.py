import pytest

from embedq_core.errors import ModelUnavailable
from embedq_core.limits import Limited, Limits
from embedq_plugins.http.model import HttpModel
from embedq_plugins.http.options import HttpOptions
from embedq_plugins.limiting import LocalLimiter


class Time:
    """A clock that goes on when somebody sleeps; `disturb` is what happens meanwhile."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.stopped = False

    def sleep(self, seconds: float) -> bool:
        self.slept.append(round(seconds, 3))
        self.now += seconds
        return self.stopped


def test_threads_of_one_process_are_spread_and_wait_for_no_more_than_their_turn() -> None:
    time = Time()
    limiter = LocalLimiter(Limits(60, 600), clock=lambda: time.now, sleep=time.sleep)
    for tokens in (5, 30, 1):
        limiter.wait(tokens)
    assert time.slept == [1, 3]
    limiter.correct(1, 50)
    limiter.wait(1)
    assert time.slept[2:] == [5]
    limiter.hold(30)
    limiter.wait(1)
    assert time.slept[3:] == [30]


def test_who_is_woken_by_a_stop_makes_no_call() -> None:
    time = Time()
    limiter = LocalLimiter(Limits(60), clock=lambda: time.now, sleep=time.sleep)
    limiter.wait(1)
    time.stopped = True
    with pytest.raises(ModelUnavailable, match="stopping"):
        limiter.wait(1)


def test_a_model_behind_http_keeps_to_limits_that_can_be_shared() -> None:
    model = HttpModel("m", HttpOptions(model="m", base_url="http://h/v1", requests_per_minute=3))
    assert isinstance(model, Limited)
    assert model.limits == Limits(3)
