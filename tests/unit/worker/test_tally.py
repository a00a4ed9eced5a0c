"""What a worker counts of a model's calls."""

from embedq_core.errors import RateLimited
from embedq_worker.tally import CLASSES, OTHERS, SPAN_SECONDS, SPANS, Tally


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_calls_and_errors_are_counted_by_class() -> None:
    tally = Tally(Clock())
    tally.succeeded(32, 0.5)
    tally.succeeded(16, 0.25)
    for _ in range(3):
        tally.failed(RateLimited("too often"))
    tally.failed(ValueError("no"))
    assert tally.recent() == {
        "calls": 2,
        "inputs": 48,
        "model_seconds": 0.75,
        "errors": {"RateLimited": 3, "ValueError": 1},
    }
    assert (tally.calls, tally.inputs) == (6, 48)


def test_what_is_long_ago_is_no_longer_recent_but_counts_in_all() -> None:
    clock = Clock()
    tally = Tally(clock)
    tally.succeeded(32, 0.5)
    clock.now += SPAN_SECONDS * (SPANS - 1)
    assert tally.recent()["calls"] == 1
    tally.failed(ValueError())
    clock.now += SPAN_SECONDS
    assert tally.recent() == {"calls": 0, "inputs": 0, "model_seconds": 0, "errors": {"ValueError": 1}}
    clock.now += SPAN_SECONDS * SPANS
    assert tally.recent()["errors"] == {}
    assert (tally.calls, tally.inputs) == (2, 32)


def test_it_stays_small_whatever_a_plugin_raises() -> None:
    tally = Tally(Clock())
    for number in range(100):
        tally.failed(type(f"Error{number}", (Exception,), {})())
    errors = tally.recent()["errors"]
    assert len(errors) == CLASSES
    assert errors[OTHERS] == 100 - CLASSES
