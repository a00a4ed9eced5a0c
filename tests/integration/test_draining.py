"""Draining: workers take no new work, finish what is in hand however long it takes, and end by themselves."""

import asyncio
import json
import time

import pytest

import embedq_worker.service
from embedq.ingesting import working
from embedq.steer.draining import run_drain
from embedq_core.errors import WorkerMissing
from embedq_core.settings import Settings
from embedq_jobs import Queue, open_queue
from embedq_producer.terminal import display
from embedq_store import Store
from embedq_worker.service import ServiceOptions, serve
from support.chunks import RUN, chunk, install, items, submit
from support.models import RecordingModel
from support.waiting import BOUND_SECONDS, Eventually
from support.working import GatedModel, burst, complete, nothing_is_left


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker looks for queues and orders, and reports, more often than it needs to."""
    monkeypatch.setattr(embedq_worker.service, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(embedq_worker.service, "DRAIN_LOOK_SECONDS", 0.02)
    monkeypatch.setattr("embedq_worker.heartbeat.HEARTBEAT_SECONDS", 0.02)


async def test_a_worker_that_is_drained_finishes_what_it_has_takes_nothing_new_and_ends_and_the_next_works(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    model = GatedModel(batch_size=10)
    install(monkeypatch, model)
    await submit(queue, chunk(items(30)))
    options = ServiceOptions(grace_seconds=0, lease_seconds=1)

    async def a_call_goes_on() -> bool:
        return model.begun == 1

    async def says_so() -> bool:
        return [report["draining"] for report in await queue.live_workers()] == [True]

    async with open_queue(settings) as its_own:
        serving = asyncio.create_task(serve(settings, options, its_own, store, asyncio.Event()))
        await eventually(a_call_goes_on)
        await queue.drains.order(await queue.live_workers())
        await eventually(says_so)
        await submit(queue, chunk(items(5, first=100), run="later"))
        # A queue that is new is not served either.
        await queue.announce("hashing")
        assert not serving.done()
        model.gate.set()
        async with asyncio.timeout(BOUND_SECONDS):
            await serving
    assert await complete(queue)
    assert (await queue.runs.summary(RUN)).counts.embedded == 30
    assert (await queue.runs.summary("later")).chunks_done == 0
    assert await queue.live_workers() == []
    # The same name, but it began afterwards.
    await burst(settings, queue, store)
    assert await complete(queue, "later")
    await nothing_is_left(queue)


async def test_a_worker_that_is_drained_queues_nothing_for_a_re_embedding(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    model = GatedModel(batch_size=10)
    install(monkeypatch, model, RecordingModel("newer"))
    await submit(queue, chunk(items(3), run="before"))
    model.gate.set()
    await burst(settings, queue, store)
    model.gate.clear()
    await submit(queue, chunk(items(10, first=10)))
    async with open_queue(settings) as its_own:
        serving = asyncio.create_task(serve(settings, ServiceOptions(), its_own, store, asyncio.Event()))
        await eventually(lambda: in_hand(queue))
        await queue.drains.order(await queue.live_workers())
        await eventually(lambda: draining(queue))
        await store.reembeddings.begin("pets", "newer")
        begun = time.time()

        async def there_was_time_for_it() -> bool:
            return all(report["seen"] > begun + 0.5 for report in await queue.live_workers())

        await eventually(there_was_time_for_it)
        model.gate.set()
        async with asyncio.timeout(BOUND_SECONDS):
            await serving
    assert await complete(queue)
    assert await queue.length("newer") == 0


async def in_hand(queue: Queue) -> bool:
    return [report["in_hand"] for report in await queue.live_workers()] == [1]


async def draining(queue: Queue) -> bool:
    return [report["draining"] for report in await queue.live_workers()] == [True]


async def test_a_worker_that_is_drained_still_obeys_a_signal_to_stop(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    model = GatedModel(batch_size=10)
    install(monkeypatch, model)
    await submit(queue, chunk(items(30)))
    stop = asyncio.Event()
    async with open_queue(settings) as its_own:
        serving = asyncio.create_task(serve(settings, ServiceOptions(grace_seconds=0), its_own, store, stop))

        async def a_call_goes_on() -> bool:
            return model.begun == 1

        async def draining() -> bool:
            return [report["draining"] for report in await queue.live_workers()] == [True]

        await eventually(a_call_goes_on)
        await queue.drains.order(await queue.live_workers())
        await eventually(draining)
        stop.set()
        async with asyncio.timeout(BOUND_SECONDS):
            await serving
    model.gate.set()
    assert not await complete(queue), "handed back"
    (load,) = await queue.loads()
    assert (load.jobs, load.in_progress) == (1, 0)


def test_who_waits_hears_of_a_worker_that_vanishes_without_a_word(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMBEDQ_REDIS_URL", str.__str__(settings.redis_url or ""))
    # No report is as young as that.
    monkeypatch.setattr("embedq.steer.draining.WORKER_FRESH_SECONDS", -1.0)

    async def prepare() -> None:
        async with open_queue(settings) as queue:
            value = json.dumps({"host": "host", "pid": 7, "since": 1.5, "seen": time.time(), "models": []})
            await queue.redis.hset(queue.names.workers, "host:7", value)  # type: ignore[misc]  # redis-py's own

    async def order_is_kept() -> None:
        async with open_queue(settings) as queue:
            assert await queue.drains.ordered("host:7", 1.5)
            assert not await queue.drains.ordered("host:7", 2.5), "another one of that name"
            assert not await queue.drains.ordered("host:8", 1.5)
            assert 0 < await queue.redis.ttl(queue.names.drain) <= 3600

    asyncio.run(prepare())
    with pytest.raises(SystemExit) as ended:
        run_drain(None, settings.database, wait=True, as_json=False)
    assert ended.value.code == 1
    assert "host:7 has not been heard of any more" in capsys.readouterr().err
    asyncio.run(order_is_kept())
    with pytest.raises(WorkerMissing, match=r"no worker 'host:77'. Did you mean 'host:7'\? Now there are host:7"):
        run_drain("host:77", settings.database, wait=False, as_json=False)


@pytest.mark.parametrize("draining", [False, True])
async def test_a_worker_that_is_about_to_end_is_no_worker_for_an_ingest(
    settings: Settings, queue: Queue, draining: bool
) -> None:
    report = {"host": "host", "pid": 7, "since": 1.5, "seen": time.time(), "draining": draining}
    await queue.redis.hset(queue.names.workers, "host:7", json.dumps(report))  # type: ignore[misc]  # redis-py's own
    async with asyncio.timeout(BOUND_SECONDS):
        with display("pets") as shown_on:
            async with working(settings, queue, shown_on, asyncio.Event()) as serving:
                assert (serving is not None) is draining
