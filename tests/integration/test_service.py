"""Workers on a real queue and a real store: which queues they serve, in what batches and order, one or several."""

import asyncio
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from arq.constants import retry_key_prefix

import embedq_store.rows
import embedq_worker.admission
import embedq_worker.chunk_jobs
import embedq_worker.picking
import embedq_worker.service
from embedq_core.counts import Counts
from embedq_core.errors import MissingLibrary, UnknownModel
from embedq_core.items import Item
from embedq_core.limits import Limiter, Limits
from embedq_core.settings import Settings
from embedq_jobs import Chunk, Queue, Starts, job_id
from embedq_jobs.names import lease_key
from embedq_jobs.starts import Begun
from embedq_plugins import get_embedding_model
from embedq_plugins.limiting import LocalLimiter
from embedq_store import Store
from embedq_worker.runner import ModelRunner
from embedq_worker.service import ServiceOptions, serve
from support.chunks import RUN, chunk, install, items, submit
from support.models import RecordingModel, SlowModel, vector_of
from support.waiting import BOUND_SECONDS, Eventually
from support.working import GatedModel, burst, complete, expected, nothing_is_left, stored, until_complete, worker


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker looks for new queues, and whether all are empty, more often than it needs to."""
    monkeypatch.setattr(embedq_worker.service, "LOOK_SECONDS", 0.02)


# --- batches, through the real queue


async def test_two_hundred_submissions_of_one_item_make_at_most_ten_calls(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine they come slowly; and while they come, a batch waits for them.
    for name in ("COMING_LINGER_SECONDS", "MAX_COMING_LINGER_SECONDS"):
        monkeypatch.setattr(f"embedq_worker.batcher.{name}", BOUND_SECONDS / 2)
    model = SlowModel("recording", batch_size=32, seconds=0.05)
    install(monkeypatch, model)
    for number, item in enumerate(items(200)):
        await submit(queue, chunk([item], run=f"run-{number}"))
    await burst(settings, queue, store)
    assert len(model.batches) <= 10
    assert model.inputs == 200
    assert all([await complete(queue, f"run-{number}") for number in range(200)])
    assert await stored(store) == expected(items(200))
    await nothing_is_left(queue)


@pytest.mark.parametrize("chunk_items", [1000, 100, 30])
async def test_a_thousand_items_with_a_batch_size_of_ten_make_a_hundred_calls(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, chunk_items: int
) -> None:
    model = RecordingModel(batch_size=10)
    install(monkeypatch, model)
    starts = range(0, 1000, chunk_items)
    chunks = [chunk(items(1000)[start : start + chunk_items], number) for number, start in enumerate(starts)]
    await submit(queue, *chunks)
    await burst(settings, queue, store)
    assert len(model.batches) == 100
    assert {len(batch) for batch in model.batches} == {10}
    assert (await queue.runs.summary(RUN)).counts == Counts(embedded=1000, calls=100, inputs=1000)


async def test_a_burst_ends_when_the_queue_is_empty_and_at_once_when_it_was(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, RecordingModel())
    await burst(settings, queue, store)
    await submit(queue, chunk(items(30)))
    await burst(settings, queue, store)
    assert await complete(queue)
    await nothing_is_left(queue)


async def test_many_jobs_that_end_together_do_not_run_out_of_connections(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch, RecordingModel(batch_size=500))
    await submit(queue, *(chunk([item], number) for number, item in enumerate(items(500))))
    await burst(settings, queue, store)
    assert (await queue.runs.summary(RUN)).counts.embedded == 500
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# --- stopping, and several workers


async def test_a_worker_that_is_stopped_hands_back_and_the_next_one_finishes_with_nothing_lost_or_paid_twice(
    settings: Settings,
    queue: Queue,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    model = GatedModel()
    install(monkeypatch, model)
    await submit(queue, *(chunk(items(50, first=50 * number), number) for number in range(6)))
    stopped = ModelRunner.stop

    async def stop_and_let_the_call_end(runner: ModelRunner, grace_seconds: float) -> None:
        stopping = asyncio.create_task(stopped(runner, grace_seconds))
        await asyncio.sleep(0)
        model.gate.set()
        await stopping

    monkeypatch.setattr(ModelRunner, "stop", stop_and_let_the_call_end)

    async def a_call_goes_on() -> bool:
        return model.begun >= 1

    async with worker(settings) as stop:
        await eventually(a_call_goes_on)
        stop.set()
    assert model.inputs == 10, "the call that was going on has ended, and no other was begun"
    loads = await queue.loads()
    assert (loads[0].jobs, loads[0].in_progress, loads[0].deferred) == (6, 0, 0), "all is handed back, at once"
    await burst(settings, queue, store)
    assert model.inputs == 300
    assert (await queue.runs.summary(RUN)).counts == Counts(embedded=300, calls=30, inputs=300)
    assert await stored(store) == expected(items(300))
    await nothing_is_left(queue)


async def test_a_worker_does_not_wait_longer_than_the_grace_for_a_model_that_hangs(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    model = GatedModel()
    install(monkeypatch, model)
    await submit(queue, chunk(items(10)))

    async def a_call_goes_on() -> bool:
        return model.begun >= 1

    async with asyncio.timeout(BOUND_SECONDS), worker(settings, ServiceOptions(grace_seconds=0)):
        await eventually(a_call_goes_on)
    assert [(load.jobs, load.in_progress) for load in await queue.loads()] == [(1, 0)]
    model.gate.set()


async def test_a_worker_ends_when_it_is_told_to_though_redis_says_nothing(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, asked, gate = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def silent() -> list[str]:
        asked.set()
        await gate.wait()
        return []

    monkeypatch.setattr(queue, "model_ids", silent)
    serving = asyncio.create_task(serve(settings, ServiceOptions(), queue, store, stop))
    await asked.wait()
    stop.set()
    ended, _ = await asyncio.wait([serving], timeout=BOUND_SECONDS)
    gate.set()
    await serving
    assert ended


async def test_a_call_that_waits_for_its_turn_ends_with_the_worker_and_nothing_is_said(
    settings: Settings,
    queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class LimitedModel(RecordingModel):
        limits = Limits(requests_per_minute=1)
        limiter: Limiter = LocalLimiter(limits)
        asked = 0

        def embed_batch(self, items: Iterable[str | bytes]) -> Iterable[list[float]]:
            self.asked += 1
            self.limiter.wait(1)
            return super().embed_batch(items)

    model = LimitedModel(batch_size=5)
    install(monkeypatch, model)
    await submit(queue, chunk(items(10)))

    async def the_second_call_waits() -> bool:
        return model.asked == 2

    async with asyncio.timeout(BOUND_SECONDS), worker(settings):
        await eventually(the_second_call_waits)
    assert len(model.batches) == 1
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert [(load.jobs, load.in_progress) for load in await queue.loads()] == [(1, 0)]


async def test_stopping_and_starting_all_the_time_loses_and_doubles_nothing(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    model = SlowModel("recording", batch_size=5, seconds=0.003)
    install(monkeypatch, model)
    await submit(queue, *(chunk(items(30, first=30 * number), number) for number in range(12)))
    for round_ in range(6):
        enough = 20 * round_

        async def some_more(enough: int = enough) -> bool:
            return model.inputs > enough or await complete(queue)

        async with worker(settings):
            await eventually(some_more)
    await burst(settings, queue, store)
    assert model.inputs == 360
    assert (await queue.runs.summary(RUN)).counts.embedded == 360
    assert await stored(store) == expected(items(360))
    await nothing_is_left(queue)


async def test_two_workers_on_one_queue_neither_lose_nor_double_anything(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    model = SlowModel("recording", batch_size=8, seconds=0.002)
    install(monkeypatch, model)
    chunks = [chunk(items(10, first=10 * number), number) for number in range(60)]
    async with worker(settings), worker(settings):
        await submit(queue, *chunks)
        await until_complete(queue, eventually)
    assert model.inputs == 600
    assert (await queue.runs.summary(RUN)).counts.embedded == 600
    assert await stored(store) == expected(items(600))
    await nothing_is_left(queue)


async def test_what_a_worker_takes_in_the_moment_in_which_it_is_stopped_goes_back_at_once(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = RecordingModel()
    install(monkeypatch, model)
    await submit(queue, *(chunk(items(5, first=5 * number), number) for number in range(3)))
    begin, stopped = Starts.begin, ModelRunner.stop
    taken, stopping = asyncio.Event(), asyncio.Event()

    async def begin_and_hear_late(self: Starts, *arguments: Any) -> Begun:
        begun = await begin(self, *arguments)
        taken.set()
        await stopping.wait()
        return begun

    async def stop(self: ModelRunner, grace_seconds: float) -> None:
        await stopped(self, grace_seconds)
        stopping.set()

    monkeypatch.setattr(Starts, "begin", begin_and_hear_late)
    monkeypatch.setattr(ModelRunner, "stop", stop)
    async with worker(settings, ServiceOptions()):
        async with asyncio.timeout(BOUND_SECONDS):
            await taken.wait()
    (load,) = await queue.loads()
    assert (load.jobs, load.in_progress, load.deferred, model.inputs) == (3, 0, 0, 0)


async def test_jobs_that_others_have_in_hand_do_not_hide_the_ones_behind_them(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    for module in (embedq_worker.admission, embedq_worker.picking):
        monkeypatch.setattr(module, "MOST_JOBS", 4)
    install(monkeypatch, RecordingModel())
    await submit(queue, *(chunk([item], number) for number, item in enumerate(items(20))))
    theirs = [lease_key(job_id(RUN, number)) for number in range(17)]
    await queue.redis.mset(dict.fromkeys(theirs, b"1"))

    async def the_others_are_done() -> bool:
        return (await queue.runs.summary(RUN)).chunks_done == 3

    async with worker(settings):
        await eventually(the_others_are_done)
        await queue.redis.delete(*theirs)
        await until_complete(queue, eventually)


# --- which queues are served


async def test_a_queue_that_comes_to_be_is_served_within_moments(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    install(monkeypatch, RecordingModel("one"), RecordingModel("other"))
    async with worker(settings):
        for name in ("one", "other"):
            await submit(queue, chunk(items(3), run=name, model_id=name, collection=name))

            async def done(name: str = name) -> bool:
                return await complete(queue, name)

            await eventually(done)


async def test_a_queue_of_an_unknown_model_is_left_alone_with_one_warning(
    settings: Settings,
    queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    install(monkeypatch, RecordingModel("one"), RecordingModel("other"))
    of_plugins = embedq_worker.service.get_embedding_model  # type: ignore[attr-defined]
    monkeypatch.setattr(
        embedq_worker.service,
        "get_embedding_model",
        lambda name: get_embedding_model(name) if name.startswith("http:") else of_plugins(name),
    )
    await submit(queue, chunk(items(3), run="described elsewhere", model_id="http:notes"))
    await submit(queue, chunk(items(3), run="unknown", model_id="nobody-has-this"))
    await submit(queue, chunk(items(3), run="alias", model_id="alias-of-one"))
    async with worker(settings):
        # Each of these is noticed at a later look than the one before.
        for name in ("one", "other"):
            await submit(queue, chunk(items(3), run=name, model_id=name, collection=name))

            async def done(name: str = name) -> bool:
                return await complete(queue, name)

            await eventually(done)
    warned = [record.getMessage() for record in caplog.records if "waits for a worker" in record.getMessage()]
    assert len(warned) == 3
    assert any("http:notes has no address" in message for message in warned)
    assert any("nobody-has-this" in message for message in warned)
    assert any("alias-of-one" in message and "another name of one" in message for message in warned)
    loads = {load.model_id: load.items for load in await queue.loads()}
    assert loads == {"http:notes": 3, "nobody-has-this": 3, "alias-of-one": 3, "one": 0, "other": 0}


async def test_a_queue_of_a_model_whose_library_is_missing_waits_and_nothing_dies(
    settings: Settings,
    queue: Queue,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    needing = RecordingModel("needing")
    needing.library, needing.install = "no_such_library", "pip install no-such-library"
    install(monkeypatch, needing, RecordingModel("other"))
    for name in ("needing", "other"):
        await submit(queue, chunk(items(3), run=name, model_id=name, collection=name))
    async with asyncio.timeout(BOUND_SECONDS):
        await serve(settings, ServiceOptions(burst=True), queue, store, asyncio.Event())
    (warned,) = [record.getMessage() for record in caplog.records if "waits for a worker" in record.getMessage()]
    assert warned.endswith("needing needs no_such_library, which is not installed: pip install no-such-library")
    assert {load.model_id: load.items for load in await queue.loads()} == {"needing": 3, "other": 0}
    assert await store.dead.summary() == []
    with pytest.raises(MissingLibrary):
        await serve(settings, ServiceOptions(models=("needing",)), queue, store, asyncio.Event())


async def test_a_worker_for_one_model_leaves_the_others_alone(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, RecordingModel("one"), RecordingModel("other"))
    for name in ("one", "other"):
        await submit(queue, chunk(items(3), run=name, model_id=name, collection=name))
    options = ServiceOptions(models=("alias-of-one",), burst=True)
    async with asyncio.timeout(BOUND_SECONDS):
        await serve(settings, options, queue, store, asyncio.Event())
    assert {load.model_id: load.items for load in await queue.loads()} == {"one": 0, "other": 3}


async def test_a_worker_for_a_model_that_nobody_has_does_not_start(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, RecordingModel("one"))
    with pytest.raises(UnknownModel):
        await serve(settings, ServiceOptions(models=("two",)), queue, store, asyncio.Event())


async def test_a_model_that_fails_does_not_hold_up_another(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    hanging = GatedModel()
    hanging.model_id = "hanging"
    install(monkeypatch, hanging, RecordingModel("fine"))
    await submit(queue, chunk(items(5), run="hanging", model_id="hanging", collection="hanging"))
    await submit(queue, chunk(items(5), run="fine", model_id="fine", collection="fine"))

    async def done() -> bool:
        return await complete(queue, "fine")

    async with worker(settings):
        await eventually(done)
        assert not await complete(queue, "hanging")
        hanging.gate.set()


# --- order within a run


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
async def test_of_versions_of_an_item_in_several_chunks_the_last_wins_whatever_the_order(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, order: tuple[int, ...]
) -> None:
    monkeypatch.setattr(embedq_worker.chunk_jobs, "AFTER_SECONDS", 0.02)
    install(monkeypatch, RecordingModel())
    versions = [chunk([Item("a", f"version {number}")], number, after=range(number)) for number in range(3)]
    await submit(queue, *(versions[number] for number in order))
    await burst(settings, queue, store)
    assert await stored(store) == expected([Item("a", "version 2")])
    assert (await queue.runs.summary(RUN)).counts.done == 3


async def test_a_chunk_that_waits_for_another_looks_less_and_less_often(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(embedq_worker.chunk_jobs, "AFTER_SECONDS", 0.01)
    monkeypatch.setattr(embedq_worker.chunk_jobs, "LONGEST_AFTER_SECONDS", 3600)
    install(monkeypatch, RecordingModel())
    await submit(queue, chunk([Item("a", "new")], 1, after=[0]))
    await queue.redis.set(retry_key_prefix + job_id(RUN, 1), 10_000)

    async def is_deferred() -> bool:
        return (await queue.loads())[0].deferred == 1

    before = time.time()
    async with worker(settings):
        await eventually(is_deferred)
    (_, due), *_ = await queue.redis.zrange(queue.names.queue("recording"), 0, 0, withscores=True)
    assert 99 < due / 1000 - before < 200


async def test_chunks_of_one_run_go_on_while_another_waits(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedq_worker.chunk_jobs, "AFTER_SECONDS", 0.02)
    install(monkeypatch, RecordingModel())
    waiting: list[Chunk] = [chunk([Item("a", "new")], 1, after=[0]), chunk([Item("a", "old")], 0)]
    await submit(queue, *waiting, *(chunk(items(5, first=5 * number), number) for number in range(2, 8)))
    await burst(settings, queue, store)
    assert (await queue.runs.summary(RUN)).state == "complete"
    assert (await stored(store))["a"] == tuple(vector_of("new"))


# --- copies for searching


@pytest.fixture
def _little_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedq_store.rows, "RESIDENT_BYTES", 100)
    monkeypatch.setattr(embedq_worker.service, "IDLE_SECONDS", 0.0)


def heads(settings: Settings) -> list[Path]:
    return list(settings.database.parent.glob(f"{settings.database.name}.embedq/vectors/*.head"))


@pytest.mark.usefixtures("_little_is_much")
async def test_a_worker_with_nothing_to_do_makes_the_copy_that_a_search_needs(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    install(monkeypatch, RecordingModel())
    async with worker(settings):
        await submit(queue, chunk(items(50)))

        async def copied() -> bool:
            return bool(heads(settings))

        await eventually(copied)


@pytest.mark.usefixtures("_little_is_much")
async def test_so_does_a_burst_at_its_end(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, RecordingModel())
    monkeypatch.setattr(embedq_worker.service, "IDLE_SECONDS", 1000.0)
    await submit(queue, chunk(items(50)))
    await burst(settings, queue, store)
    assert heads(settings)
