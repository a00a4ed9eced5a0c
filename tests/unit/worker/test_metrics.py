"""What metrics tell of what they were told."""

import contextlib
from typing import get_args

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from embedq_core.counts import Counts
from embedq_core.errors import ModelUnavailable, RateLimited
from embedq_jobs import QueueLoad
from embedq_store import DeadLetterSummary
from embedq_worker.failures import Bisect, Bury, Decision, GiveBack, TryAgain
from embedq_worker.metrics import _FOLLOWS, MOST_ERRORS, OTHER, ErrorLabels, Seen, Surroundings, WorkerMetrics

LOAD = QueueLoad("hashing", jobs=8, in_progress=2, deferred=1, bytes=600, items=60, oldest=1000.0, paused=2)
NO_ERRORS = tuple[DeadLetterSummary, ...]()


def told(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """Every value, by the name of its metric and the values of its labels."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("embedq_")
    }


@pytest.fixture
def metrics() -> WorkerMetrics:
    return WorkerMetrics(queue_bytes=1024, fresh_seconds=15)


class Around:
    """What is told of the surroundings, by a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 50.0
        self.registry = CollectorRegistry()
        self.surroundings = Surroundings(ErrorLabels(), 15, clock=lambda: self.now)
        self.registry.register(self.surroundings)

    def told(self) -> dict[tuple[str, ...], float]:
        return told(self.registry)


def test_before_the_first_look_nothing_is_told_of_the_queue() -> None:
    assert Around().told() == {}


def test_the_load_of_each_queue_is_told() -> None:
    around = Around()
    around.surroundings.see(Seen(1030.0, (LOAD,), NO_ERRORS))
    assert around.told() == {
        ("embedq_redis_up",): 1,
        ("embedq_queue_jobs", "hashing", "queued"): 3,
        ("embedq_queue_jobs", "hashing", "in_progress"): 2,
        ("embedq_queue_jobs", "hashing", "deferred"): 1,
        ("embedq_queue_jobs", "hashing", "paused"): 2,
        ("embedq_queue_items", "hashing"): 60,
        ("embedq_queue_bytes", "hashing"): 600,
        ("embedq_queue_oldest_age_seconds", "hashing"): 30,
    }


@pytest.mark.parametrize("oldest", [None, 1031.0])
def test_where_nothing_is_due_nothing_is_old(oldest: float | None) -> None:
    around = Around()
    around.surroundings.see(Seen(1030.0, (QueueLoad("hashing", 1, 0, 1, 10, 1, oldest),), NO_ERRORS))
    assert around.told()["embedq_queue_oldest_age_seconds", "hashing"] == 0


def test_when_redis_is_away_it_is_said_and_no_number_of_before_is_told() -> None:
    around = Around()
    around.surroundings.see(Seen(1030.0, (LOAD,), (DeadLetterSummary("pets", "ValueError", 2),)))
    around.surroundings.see(Seen(1035.0, None, (DeadLetterSummary("pets", "ValueError", 3),)))
    assert around.told() == {("embedq_redis_up",): 0, ("embedq_dead_letters", "ValueError"): 3}


def test_what_was_seen_long_ago_is_not_told() -> None:
    around = Around()
    around.surroundings.see(Seen(1030.0, (LOAD,), NO_ERRORS))
    around.now += 15
    assert ("embedq_queue_items", "hashing") in around.told()
    around.now += 0.1
    assert around.told() == {}


def test_dead_letters_of_all_collections_are_counted_by_error() -> None:
    around = Around()
    dead = [("a", "ValueError", 2), ("b", "ValueError", 3), ("b", "BadVectors", 1)]
    around.surroundings.see(Seen(1030.0, (), tuple(DeadLetterSummary(*part) for part in dead)))
    letters = {key[1]: value for key, value in around.told().items() if key[0] == "embedq_dead_letters"}
    assert letters == {"ValueError": 5, "BadVectors": 1}


def test_error_classes_that_a_plugin_makes_up_are_not_a_series_each() -> None:
    errors = ErrorLabels()
    names = [f"Error{number}" for number in range(MOST_ERRORS + 5)]
    assert [errors.label(name) for name in names] == names[:MOST_ERRORS] + [OTHER] * 5
    assert errors.label("Error0") == "Error0", "one that was known before is told apart still"


def test_outcomes_are_at_nought_before_anything_has_come_of_items(metrics: WorkerMetrics) -> None:
    metrics.of_model("hashing")
    values = told(metrics.registry)
    assert {key[2] for key in values if key[0] == "embedq_items_total"} == {"embedded", "reused", "unchanged", "failed"}
    assert not any(value for key, value in values.items() if key[1:2] == ("hashing",))


def test_items_are_counted_once_by_outcome_and_a_counter_never_goes_back(metrics: WorkerMetrics) -> None:
    model = metrics.of_model("hashing")
    model.settled(Counts(embedded=5, reused=2, unchanged=3, failed=1, updated=2, removed=4, calls=7, inputs=6))
    model.settled(Counts(embedded=1, unchanged=-1))
    values = told(metrics.registry)
    outcomes = {key[2]: value for key, value in values.items() if key[0] == "embedq_items_total"}
    assert outcomes == {"embedded": 6, "reused": 2, "unchanged": 3, "failed": 1}
    assert values["embedq_items_updated_total", "hashing"] == 2
    assert values["embedq_entries_removed_total", "hashing"] == 4


def test_there_is_a_word_for_whatever_follows_from_a_failure() -> None:
    assert set(_FOLLOWS) == set(get_args(Decision))
    assert len(set(_FOLLOWS.values())) == len(_FOLLOWS)


def test_failed_calls_are_counted_by_what_follows_and_retries_and_429s_apart(metrics: WorkerMetrics) -> None:
    model = metrics.of_model("hashing")
    model.call_failed(RateLimited("too many"), TryAgain(1.0))
    model.call_failed(ModelUnavailable("away"), TryAgain(1.0))
    model.call_failed(ModelUnavailable("away"), GiveBack(1.0))
    model.call_failed(ValueError("no"), Bisect())
    model.call_failed(ValueError("no"), Bury())
    values = told(metrics.registry)
    failures = {key[1:]: value for key, value in values.items() if key[0] == "embedq_model_failures_total"}
    # The parser gives labels in the order of their names.
    assert failures == {
        ("RateLimited", "hashing", "retry"): 1,
        ("ModelUnavailable", "hashing", "retry"): 1,
        ("ModelUnavailable", "hashing", "give_back"): 1,
        ("ValueError", "hashing", "halve"): 1,
        ("ValueError", "hashing", "bury"): 1,
    }
    assert values["embedq_model_retries_total", "RateLimited", "hashing"] == 1
    assert values["embedq_model_retries_total", "ModelUnavailable", "hashing"] == 1
    assert values["embedq_model_rate_limited_total", "hashing"] == 1
    assert values["embedq_model_calls_total", "hashing", "failed"] == 5


def test_what_is_in_hand_is_told_while_it_is_whatever_becomes_of_it(metrics: WorkerMetrics) -> None:
    within = {}
    with contextlib.suppress(ValueError), metrics.of_model("hashing").in_hand(7):
        within = told(metrics.registry)
        raise ValueError
    after = told(metrics.registry)
    chunks, items = ("embedq_in_flight_chunks", "hashing"), ("embedq_in_flight_items", "hashing")
    assert (within[chunks], within[items]) == (1, 7)
    assert (after[chunks], after[items]) == (0, 0)


def test_a_model_without_a_batch_size_has_no_fill(metrics: WorkerMetrics) -> None:
    model = metrics.of_model("hashing")
    model.batch_formed(8, 32)
    model.batch_formed(500, None)
    values = told(metrics.registry)
    assert values["embedq_batch_fill_ratio_count", "hashing"] == 1
    assert values["embedq_batch_fill_ratio_sum", "hashing"] == 0.25
