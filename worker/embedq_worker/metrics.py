"""A worker's metrics, by their names in Prometheus: docs/metrics.md says what each means.

Labels are models, error classes and a few fixed words. Not collections: their names are the users', there may be
one for each of their customers, and each would be a dozen series for as long as the worker lives; the ledger
(`embedq runs`) and the log lines have them. Not items, runs or chunks either.
"""

import platform
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from embedq_core.counts import Counts
from embedq_jobs import QueueLoad
from embedq_store import DeadLetterSummary
from embedq_worker.failures import Bisect, Bury, Decision, GiveBack, TryAgain, is_rate_limit
from embedq_worker.telemetry import ModelTelemetry

# Plugins may make up classes of errors: from so many on, others are one.
MOST_ERRORS: Final = 40
OTHER: Final = "other"

_OUTCOMES: Final = ("embedded", "reused", "unchanged", "failed")
_FOLLOWS: Final[dict[type[Decision], str]] = {
    TryAgain: "retry",
    GiveBack: "give_back",
    Bisect: "halve",
    Bury: "bury",
}
_MODEL_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_COMMIT_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_COMMIT_ROWS: Final = (1, 10, 100, 500, 1000, 2500, 5000, 10_000, 20_000, 40_000)
_FILL: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class ErrorLabels:
    """Names of error classes as values of a label: as they are, as long as there are not too many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: set[str] = set()

    def label(self, error: str) -> str:
        """The value for an error class."""
        with self._lock:
            if error in self._known:
                return error
            if len(self._known) >= MOST_ERRORS:
                return OTHER
            self._known.add(error)
            return error


@dataclass(frozen=True, slots=True)
class Seen:
    """What the queue and the database held when they were last looked at, at `now` in Unix time.

    `loads` None: Redis did not answer. `dead` None: the database could not be read.
    """

    now: float
    loads: tuple[QueueLoad, ...] | None
    dead: tuple[DeadLetterSummary, ...] | None


class Surroundings(Collector):
    """Gauges of what is outside this process, as it was `see`n last; what was seen longer ago than
    `fresh_seconds` is not told: no value is better than one that was right once.

    Scrapes come in threads of their own. What they read is replaced as a whole, never changed.
    """

    def __init__(self, errors: ErrorLabels, fresh_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._errors = errors
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._latest: tuple[float, Seen] | None = None

    def see(self, seen: Seen) -> None:
        """Tell of this from now on."""
        self._latest = (self._clock(), seen)

    def collect(self) -> Iterator[Metric]:
        """The gauges; those of which nothing is known have no values."""
        seen = self._fresh()
        up = GaugeMetricFamily("embedq_redis_up", "Whether Redis answered when it was last asked.")
        if seen is not None:
            up.add_metric([], float(seen.loads is not None))
        yield up
        yield from _queue_gauges(seen.loads or (), seen.now) if seen is not None else _queue_gauges((), 0.0)
        yield self._dead(seen.dead or () if seen is not None else ())

    def _fresh(self) -> Seen | None:
        latest = self._latest
        return None if latest is None or self._clock() - latest[0] > self._fresh_seconds else latest[1]

    def _dead(self, parts: Iterable[DeadLetterSummary]) -> Metric:
        family = GaugeMetricFamily("embedq_dead_letters", "Dead letters in the database.", labels=["error"])
        letters: Tally[str] = Tally()
        for part in parts:
            letters[self._errors.label(part.error)] += part.letters
        for error, count in letters.items():
            family.add_metric([error], count)
        return family


def _queue_gauges(loads: Iterable[QueueLoad], now: float) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("embedq_queue_jobs", "Chunks in the queue of a model.", labels=["model", "state"])
    items = GaugeMetricFamily("embedq_queue_items", "Items of those chunks.", labels=["model"])
    size = GaugeMetricFamily("embedq_queue_bytes", "Bytes of those chunks.", labels=["model"])
    age = GaugeMetricFamily(
        "embedq_queue_oldest_age_seconds", "How long the first of them has been due; 0: none is.", labels=["model"]
    )
    for load in loads:
        for state in ("queued", "in_progress", "deferred", "paused"):
            jobs.add_metric([load.model_id, state], getattr(load, state))
        items.add_metric([load.model_id], load.items)
        size.add_metric([load.model_id], load.bytes)
        age.add_metric([load.model_id], 0.0 if load.oldest is None else max(now - load.oldest, 0.0))
    yield from (jobs, items, size, age)


class WorkerMetrics:
    """The metrics of one worker process, in a registry of their own. It is the process's `Telemetry`."""

    def __init__(self, *, queue_bytes: int, fresh_seconds: float) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self.errors = ErrorLabels()
        self.surroundings = Surroundings(self.errors, fresh_seconds)
        registry.register(self.surroundings)
        ProcessCollector(registry=registry)
        Info("embedq_build", "What runs here.", registry=registry).info(
            {"version": version("embedq"), "python": platform.python_version()}
        )
        self._began = Gauge("embedq_worker_start_time_seconds", "When the worker began (Unix time).", registry=registry)
        self._began.set_to_current_time()
        self._draining = Gauge(
            "embedq_worker_draining", "Whether it takes no more work and is about to end.", registry=registry
        )
        Gauge(
            "embedq_queue_limit_bytes", "Bytes in the queue of a model at which producers hold back.", registry=registry
        ).set(queue_bytes)
        self._commit_seconds = Histogram(
            "embedq_commit_seconds", "Time of a transaction.", buckets=_COMMIT_SECONDS, registry=registry
        )
        self._commit_rows = Histogram(
            "embedq_commit_rows", "Rows in a transaction.", buckets=_COMMIT_ROWS, registry=registry
        )
        self._families = ModelFamilies(registry)
        self._models: dict[str, ModelTelemetry] = {}

    def of_model(self, model_id: str) -> ModelTelemetry:
        """As `embedq_worker.telemetry.Telemetry.of_model`."""
        if model_id not in self._models:
            self._models[model_id] = _ModelMetrics(model_id, self._families, self.errors)
        return self._models[model_id]

    def committed(self, rows: int, seconds: float) -> None:
        """As `embedq_worker.telemetry.Telemetry.committed`."""
        self._commit_rows.observe(rows)
        self._commit_seconds.observe(seconds)

    def draining(self) -> None:
        """As `embedq_worker.telemetry.Telemetry.draining`."""
        self._draining.set(1)


class ModelFamilies:
    """The metrics that every model has."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(name, meaning, ["model", *labels], registry=registry)

        def gauge(name: str, meaning: str) -> Gauge:
            return Gauge(name, meaning, ["model"], registry=registry)

        def histogram(name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, meaning, ["model"], buckets=buckets, registry=registry)

        self.chunks_in_hand = gauge("embedq_in_flight_chunks", "Chunks that the worker has in hand.")
        self.items_in_hand = gauge("embedq_in_flight_items", "Items of those chunks.")
        self.chunks = counter("embedq_chunks_total", "Chunks that are done.")
        self.items = counter("embedq_items_total", "Items that are done, by what became of them.", "outcome")
        self.updated = counter(
            "embedq_items_updated_total", "Unchanged items whose metadata or content was brought up to date."
        )
        self.removed = counter("embedq_entries_removed_total", "Entries left over from earlier versions, removed.")
        self.dead = counter("embedq_dead_letters_total", "Items that became dead letters.", "error")
        self.fill = histogram("embedq_batch_fill_ratio", "Contents of a batch, of those it has room for.", _FILL)
        self.calls = counter("embedq_model_calls_total", "Calls of the model that have ended.", "result")
        self.seconds = histogram("embedq_model_call_seconds", "Time of a call that returned.", _MODEL_SECONDS)
        self.inputs = counter("embedq_model_inputs_total", "Contents that the model returned vectors for.")
        self.failures = counter(
            "embedq_model_failures_total", "Calls that failed, by error class and what followed.", "error", "then"
        )
        self.retries = counter("embedq_model_retries_total", "Batches that were tried again as they were.", "error")
        self.limited = counter("embedq_model_rate_limited_total", "Calls that were refused as too many (429).")
        self.waited = counter("embedq_rate_limit_wait_seconds_total", "Time that calls waited to keep the limits.")
        self.trouble = gauge("embedq_model_in_trouble", "Whether the latest call could not reach or use the model.")


class _ModelMetrics:
    """The metrics of one model: all series with fixed labels are there from the start, at 0."""

    def __init__(self, model_id: str, families: ModelFamilies, errors: ErrorLabels) -> None:
        self._model_id = model_id
        self._families = families
        self._errors = errors
        self._chunks_in_hand = families.chunks_in_hand.labels(model_id)
        self._items_in_hand = families.items_in_hand.labels(model_id)
        self._chunks = families.chunks.labels(model_id)
        self._items = {outcome: families.items.labels(model_id, outcome) for outcome in _OUTCOMES}
        self._updated = families.updated.labels(model_id)
        self._removed = families.removed.labels(model_id)
        self._fill = families.fill.labels(model_id)
        self._returned = families.calls.labels(model_id, "returned")
        self._failed = families.calls.labels(model_id, "failed")
        self._seconds = families.seconds.labels(model_id)
        self._inputs = families.inputs.labels(model_id)
        self._limited = families.limited.labels(model_id)
        self._waited = families.waited.labels(model_id)
        self._trouble = families.trouble.labels(model_id)

    def in_hand(self, items: int) -> AbstractContextManager[object]:
        return self._in_hand(items)

    @contextmanager
    def _in_hand(self, items: int) -> Iterator[None]:
        self._chunks_in_hand.inc()
        self._items_in_hand.inc(items)
        try:
            yield
        finally:
            self._chunks_in_hand.dec()
            self._items_in_hand.dec(items)

    def batch_formed(self, contents: int, batch_size: int | None) -> None:
        if batch_size:
            self._fill.observe(contents / batch_size)

    def call_returned(self, contents: int, seconds: float) -> None:
        self._returned.inc()
        self._inputs.inc(contents)
        self._seconds.observe(seconds)

    def call_failed(self, error: BaseException, decision: Decision) -> None:
        label = self._errors.label(type(error).__name__)
        self._failed.inc()
        self._families.failures.labels(self._model_id, label, _FOLLOWS[type(decision)]).inc()
        if isinstance(decision, TryAgain):
            self._families.retries.labels(self._model_id, label).inc()
        if is_rate_limit(error):
            self._limited.inc()

    def in_trouble(self, trouble: bool) -> None:
        self._trouble.set(trouble)

    def waited(self, seconds: float) -> None:
        self._waited.inc(seconds)

    def settled(self, counts: Counts) -> None:
        # A counter never goes back. A chunk's counts do, where another has changed what an earlier attempt had stored.
        for outcome, series in self._items.items():
            series.inc(max(getattr(counts, outcome), 0))
        self._updated.inc(max(counts.updated, 0))
        self._removed.inc(max(counts.removed, 0))

    def died(self, error: str, letters: int) -> None:
        self._families.dead.labels(self._model_id, self._errors.label(error)).inc(letters)

    def chunk_done(self) -> None:
        self._chunks.inc()
