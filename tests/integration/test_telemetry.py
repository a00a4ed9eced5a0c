"""Workers that are measured: what they tell is what happened, and what the ledger says."""

import asyncio
import logging
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from embedq_core.counts import Counts
from embedq_core.errors import RateLimited
from embedq_core.items import Item
from embedq_core.limits import Limits
from embedq_core.settings import Settings, load_settings
from embedq_jobs import Queue, open_queue
from embedq_plugins.limiting import LocalLimiter
from embedq_store import Store
from embedq_worker.exposition import look, watched
from embedq_worker.metrics import WorkerMetrics
from embedq_worker.service import ServiceOptions, serve
from embedq_worker.telemetry import Telemetry
from embedq_worker.work_done import Work, WorkDone
from support.chunks import RUN, chunk, install, items, submit
from support.models import FaultyModel, RecordingModel, raising
from support.servers import MortalRedis
from support.waiting import BOUND_SECONDS, Eventually


def new_metrics() -> WorkerMetrics:
    return WorkerMetrics(queue_bytes=1 << 20, fresh_seconds=15)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(name, labels)
    assert found is not None, (name, labels)
    return found


async def burst(
    settings: Settings, queue: Queue, store: Store, metrics: WorkerMetrics, telemetry: Telemetry | None = None
) -> None:
    """Work until the queue is empty, measured; `telemetry` is what the worker tells, the metrics where it is None."""
    async with asyncio.timeout(BOUND_SECONDS), watched(metrics, queue, store):
        await serve(settings, ServiceOptions(burst=True), queue, store, asyncio.Event(), telemetry or metrics)


async def test_the_metrics_of_a_run_and_what_the_worker_says_at_its_end_are_its_counts_in_the_ledger(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, model := FaultyModel(raising, "recording", batch_size=10))
    bad, copied = Item("bad", "poison"), Item("copied", items(1)[0].content)
    await submit(queue, chunk([*items(35), copied, bad]), chunk(items(20, 100), 1))
    await submit(queue, chunk(items(5), run="20261231-235959-again"))
    metrics = new_metrics()
    work_done = WorkDone(metrics)
    await burst(settings, queue, store, metrics, work_done)
    await look(metrics, queue, store)
    counts = (await queue.runs.summary(RUN)).counts + (await queue.runs.summary("20261231-235959-again")).counts
    # Which of two runs at once comes first with an equal text is chance; their sum is not.
    assert counts.done == 62
    told = {
        outcome: value(metrics.registry, "embedq_items_total", model="recording", outcome=outcome)
        for outcome in ("embedded", "reused", "unchanged", "failed")
    }
    assert told == {outcome: getattr(counts, outcome) for outcome in told}
    assert value(metrics.registry, "embedq_dead_letters_total", model="recording", error="ValueError") == 1
    assert value(metrics.registry, "embedq_dead_letters", error="ValueError") == 1
    assert value(metrics.registry, "embedq_chunks_total", model="recording") == 3
    calls = {
        result: value(metrics.registry, "embedq_model_calls_total", model="recording", result=result)
        for result in ("returned", "failed")
    }
    assert sum(calls.values()) == counts.calls == len(model.batches)
    assert calls["failed"] == sum(any(text == "poison" for text in batch) for batch in model.batches)
    assert value(metrics.registry, "embedq_model_call_seconds_count", model="recording") == calls["returned"]
    # As batches were formed, before the bad one was halved.
    assert value(metrics.registry, "embedq_batch_fill_ratio_sum", model="recording") == pytest.approx(
        counts.inputs / 10
    )
    assert value(metrics.registry, "embedq_commit_rows_sum") >= 60
    commits = value(metrics.registry, "embedq_commit_seconds_count")
    assert commits == value(metrics.registry, "embedq_commit_rows_count")
    assert value(metrics.registry, "embedq_queue_items", model="recording") == 0
    assert value(metrics.registry, "embedq_in_flight_items", model="recording") == 0
    assert value(metrics.registry, "embedq_worker_draining") == 1
    (work,) = work_done.report(settings, 1.0).models.values()
    assert work == msgspec.structs.replace(Work.of(counts), chunks=3, failed_calls=int(calls["failed"]))


async def test_what_is_found_again_is_counted_as_unchanged_and_costs_no_call(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, RecordingModel(batch_size=10))
    for attempt in ("first", "again"):
        metrics = new_metrics()
        with_metadata = [Item(item.id, item.content, f'{{"attempt": "{attempt}"}}') for item in items(20)]
        await submit(queue, chunk(with_metadata, run=f"20261231-235959-{attempt}"))
        await burst(settings, queue, store, metrics)
    assert value(metrics.registry, "embedq_items_total", model="recording", outcome="unchanged") == 20
    assert value(metrics.registry, "embedq_items_updated_total", model="recording") == 20
    assert value(metrics.registry, "embedq_items_total", model="recording", outcome="embedded") == 0
    assert value(metrics.registry, "embedq_model_calls_total", model="recording", result="returned") == 0


async def test_two_workers_that_share_a_chunk_tell_its_counts_together(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    gate = threading.Event()

    def stuck(_: object) -> None:
        """The second call of all does not end before its worker is gone."""
        if len(model.batches) == 2:
            assert gate.wait(BOUND_SECONDS)

    install(monkeypatch, model := FaultyModel(stuck, "recording", batch_size=10))
    await submit(queue, chunk(items(30)))
    first, second, stop = new_metrics(), new_metrics(), asyncio.Event()
    serving = asyncio.create_task(serve(settings, ServiceOptions(grace_seconds=0), queue, store, stop, first))

    async def is_stuck() -> bool:
        return len(model.batches) == 2

    try:
        await eventually(is_stuck)
        stop.set()
        await serving
    finally:
        gate.set()
    await burst(settings, queue, store, second)
    embedded = [
        value(metrics.registry, "embedq_items_total", model="recording", outcome="embedded")
        for metrics in (first, second)
    ]
    assert embedded == [10, 20]
    assert (await queue.runs.summary(RUN)).counts.embedded == 30
    assert value(second.registry, "embedq_items_total", model="recording", outcome="unchanged") == 0
    assert value(first.registry, "embedq_chunks_total", model="recording") == 0


class _Refusing(RecordingModel):
    """Refuses the first call as one too many, and keeps to a limit."""

    def __init__(self) -> None:
        super().__init__(batch_size=10)
        self.limits = Limits(requests_per_minute=1200)
        self.limiter = LocalLimiter(self.limits)
        self._refused = False

    def embed_batch(self, items: Iterable[str | bytes]) -> Any:
        batch = list(items)
        self.limiter.wait(0)
        if not self._refused:
            self._refused = True
            raise RateLimited("slowly", 0.0)
        return super().embed_batch(batch)


async def test_retries_429s_and_waiting_for_a_limit_are_told_and_logged_with_the_run(
    settings: Settings,
    queue: Queue,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "embedq.worker")
    install(monkeypatch, _Refusing())
    metrics = new_metrics()
    await submit(queue, chunk(items(30)))
    await burst(settings, queue, store, metrics)
    assert (await queue.runs.summary(RUN)).counts == Counts(embedded=30, calls=3, inputs=30)
    assert value(metrics.registry, "embedq_model_retries_total", model="recording", error="RateLimited") == 1
    assert value(metrics.registry, "embedq_model_rate_limited_total", model="recording") == 1
    assert value(metrics.registry, "embedq_model_in_trouble", model="recording") == 0
    waited = value(metrics.registry, "embedq_rate_limit_wait_seconds_total", model="recording")
    # The calls after the one that was let through late: twice 50 ms, the time of the calls themselves not counted.
    assert 0.05 < waited < 5
    (refused,) = [record for record in caplog.records if "slowly" in record.getMessage()]
    assert {"run": RUN, "model": "recording"}.items() <= vars(refused).items()
    (done,) = [record for record in caplog.records if "30 items for 'pets'" in record.getMessage()]
    assert {"run": RUN, "chunk": 0, "collection": "pets", "model": "recording"}.items() <= vars(done).items()


async def test_a_chunk_that_can_t_be_read_is_a_dead_letter_in_the_metrics_too(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, RecordingModel())
    await submit(queue, chunk(items(3)))
    await queue.redis.delete(f"arq:job:{RUN}:0")
    metrics = new_metrics()
    await burst(settings, queue, store, metrics)
    assert value(metrics.registry, "embedq_dead_letters_total", model="recording", error="ChunkLost") == 1
    assert value(metrics.registry, "embedq_items_total", model="recording", outcome="failed") == 3


async def test_numbers_of_a_redis_that_is_away_are_not_told_and_come_back_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedq_jobs.connection.ATTEMPTS", 0)
    metrics = new_metrics()
    with tempfile.TemporaryDirectory(prefix="embedq-test-") as folder:
        redis = MortalRedis(Path(folder))
        async with (
            await Store.open(tmp_path / "embeddings.db") as store,
            open_queue(load_settings(redis_url=redis.url)) as queue,
        ):
            try:
                await submit(queue, chunk(items(3)))
                await look(metrics, queue, store)
                assert value(metrics.registry, "embedq_queue_items", model="recording") == 3
                redis.kill()
                await look(metrics, queue, store)
                assert value(metrics.registry, "embedq_redis_up") == 0
                assert metrics.registry.get_sample_value("embedq_queue_items", {"model": "recording"}) is None
                redis.start()
                await look(metrics, queue, store)
                assert value(metrics.registry, "embedq_redis_up") == 1
                assert value(metrics.registry, "embedq_queue_items", model="recording") == 3
            finally:
                redis.kill()
