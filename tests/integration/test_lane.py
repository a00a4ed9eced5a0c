"""A worker on a real queue and a real store: what is queued is stored or dead, once, whatever happens in between."""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import logging
import os
import socket
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
from arq.constants import job_key_prefix, result_key_prefix, retry_key_prefix

import embedq_worker.picking
import embedq_worker.service
from embedq_core.counts import Counts
from embedq_core.errors import DatabaseUnusable, MissingLibrary, UnknownModel
from embedq_core.items import Item
from embedq_core.settings import Settings
from embedq_jobs import Chunk, Queue, encode_chunk, job_id, open_queue
from embedq_jobs.codec import dump_job
from embedq_jobs.names import lease_key, payload_key
from embedq_store import DeadLetter, Store
from embedq_worker.pipeline import process
from embedq_worker.runner import ModelRunner
from embedq_worker.service import ServiceOptions, serve
from support.chunks import RUN, chunk, install, items, submit
from support.models import FaultyModel, RecordingModel, SlowModel, raising, vector_of
from support.waiting import Eventually

BURST = ServiceOptions(burst=True)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker looks for new queues, and whether all are empty, more often than it needs to."""
    monkeypatch.setattr(embedq_worker.service, "LOOK_SECONDS", 0.02)


class GatedModel(RecordingModel):
    """Holds every call until the gate is open."""

    def __init__(self, batch_size: int | None = 10) -> None:
        super().__init__("recording", batch_size)
        self.gate = threading.Event()
        self.begun = 0

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterable[list[float]]:
        self.begun += 1
        assert self.gate.wait(20)
        return super().embed_batch(items)


@asynccontextmanager
async def worker(
    settings: Settings,
    options: ServiceOptions = ServiceOptions(lease_seconds=1),  # noqa: B008 - frozen
) -> AsyncIterator[asyncio.Event]:
    """A worker with connections of its own; it stops with the block, or when its event is set."""
    stop = asyncio.Event()
    async with (
        open_queue(settings) as queue,
        await Store.open(settings.database, busy_seconds=settings.busy_seconds) as store,
    ):
        serving = asyncio.create_task(serve(settings, options, queue, store, stop))
        try:
            yield stop
        finally:
            stop.set()
            async with asyncio.timeout(20):
                await serving


async def burst(settings: Settings, queue: Queue, store: Store) -> None:
    """Work until the queue is empty."""
    async with asyncio.timeout(30):
        await serve(settings, BURST, queue, store, asyncio.Event())


async def complete(queue: Queue, run: str = RUN) -> bool:
    return (await queue.runs.summary(run)).complete


async def until_complete(queue: Queue, eventually: Eventually) -> None:
    async def done() -> bool:
        return await complete(queue)

    await eventually(done)


async def nothing_is_left(queue: Queue) -> None:
    """Neither in the queue nor in the ledger nor in arq's own keys."""
    for load in await queue.loads():
        assert (load.jobs, load.bytes, load.items) == (0, 0, 0), load
    assert await queue.redis.keys("arq:*") == []


async def stored(store: Store, collection: str = "pets") -> dict[str, tuple[float, ...]]:
    key = (await store.collection(collection)).id
    ids = [entry.id for entry in await store.similar(key, [1.0] * 8, number=100_000)]
    assert await store.count(key) == len(ids)
    return {each: await store.vector(key, each) for each in ids}


def expected(some: Iterable[Item]) -> dict[str, tuple[float, ...]]:
    return {item.id: tuple(vector_of(item.content)) for item in some}


# --- batches, through the real queue


async def test_two_hundred_submissions_of_one_item_make_at_most_ten_calls(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
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

    async with asyncio.timeout(15), worker(settings, ServiceOptions(grace_seconds=0)):
        await eventually(a_call_goes_on)
    assert [(load.jobs, load.in_progress) for load in await queue.loads()] == [(1, 0)]
    model.gate.set()


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


async def test_jobs_that_others_have_in_hand_do_not_hide_the_ones_behind_them(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(embedq_worker.picking, "MAX_JOBS", 4)
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
    assert len(warned) == 2
    assert any("nobody-has-this" in message for message in warned)
    assert any("alias-of-one" in message and "another name of one" in message for message in warned)
    loads = {load.model_id: load.items for load in await queue.loads()}
    assert loads == {"nobody-has-this": 3, "alias-of-one": 3, "one": 0, "other": 0}


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
    async with asyncio.timeout(10):
        await serve(settings, BURST, queue, store, asyncio.Event())
    (warned,) = [record.getMessage() for record in caplog.records if "waits for a worker" in record.getMessage()]
    assert warned.endswith("needing needs no_such_library, which is not installed: pip install no-such-library")
    assert {load.model_id: load.items for load in await queue.loads()} == {"needing": 3, "other": 0}
    assert await store.dead_summary() == []
    with pytest.raises(MissingLibrary):
        await serve(settings, ServiceOptions(models=("needing",)), queue, store, asyncio.Event())


async def test_a_worker_for_one_model_leaves_the_others_alone(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, RecordingModel("one"), RecordingModel("other"))
    for name in ("one", "other"):
        await submit(queue, chunk(items(3), run=name, model_id=name, collection=name))
    options = ServiceOptions(models=("alias-of-one",), burst=True)
    async with asyncio.timeout(10):
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
    monkeypatch.setattr(embedq_worker.lane, "AFTER_SECONDS", 0.02)
    install(monkeypatch, RecordingModel())
    versions = [chunk([Item("a", f"version {number}")], number, after=range(number)) for number in range(3)]
    await submit(queue, *(versions[number] for number in order))
    await burst(settings, queue, store)
    assert await stored(store) == expected([Item("a", "version 2")])
    assert (await queue.runs.summary(RUN)).counts.done == 3


# --- what can't be read


@pytest.mark.parametrize(
    "raw",
    [
        b"\x80\x04junk",
        b"\xff" * 100,
        dump_job({"f": "no such function", "a": [b"x"], "k": {}, "et": 1}),
        dump_job({"f": "embed_chunk", "a": [], "k": {}, "et": 1}),
        dump_job({"f": "embed_chunk", "a": [b"x"], "k": {}, "et": 2**62}),
        dump_job({"f": "embed_chunk", "a": [b"x"], "k": {}, "et": 1, "t": 2**40}),
        dump_job({"f": "embed_chunk", "a": [encode_chunk(chunk(items(1), 99))], "k": {}, "et": 1}),
        dump_job({"f": "embed_chunk", "a": [encode_chunk(chunk(items(1), 1, model_id="x"))], "k": {}, "et": 1}),
    ],
    ids=["pickle", "noise", "function", "arguments", "moment", "chunk", "another chunk", "another model"],
)
async def test_a_chunk_that_can_t_be_read_is_buried_byte_for_byte_and_holds_nothing_up(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, raw: bytes
) -> None:
    install(monkeypatch, RecordingModel())
    await submit(queue, chunk(items(5), 0), chunk(items(7, first=5), 1))
    await queue.redis.set(payload_key(job_id(RUN, 1)), raw)
    await burst(settings, queue, store)
    summary = await queue.runs.summary(RUN)
    assert summary.state == "complete"
    assert (summary.counts.embedded, summary.counts.failed) == (5, 7), "as many as were queued"
    (letter,) = await store.dead_letters()
    assert (letter.run, letter.chunk, letter.error) == (RUN, 1, "ChunkUndecodable")
    assert isinstance(letter.content, bytes)
    assert letter.content in raw
    assert letter.content
    assert len(await stored(store)) == 5
    await nothing_is_left(queue)


async def test_a_job_that_is_none_of_ours_is_buried_too(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, RecordingModel())
    await submit(queue, chunk(items(5)))
    await queue.redis.set(payload_key("bytes"), b"what is this?")
    await queue.redis.zadd(queue.names.queue("recording"), {"bytes": 1})
    await burst(settings, queue, store)
    (letter,) = await store.dead_letters()
    assert (letter.run, letter.chunk, letter.content) == ("bytes", -1, b"what is this?")
    assert await complete(queue)


async def test_a_chunk_that_redis_has_lost_is_reported_and_its_run_ends(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, RecordingModel())
    await submit(queue, chunk(items(5), 0), chunk(items(7, first=5), 1))
    await queue.redis.delete(payload_key(job_id(RUN, 1)))
    await burst(settings, queue, store)
    summary = await queue.runs.summary(RUN)
    assert summary.state == "complete"
    assert (summary.counts.embedded, summary.counts.failed) == (5, 7)
    (letter,) = await store.dead_letters()
    assert (letter.error, letter.content) == ("ChunkLost", None)
    assert "submit its source again" in letter.message
    await nothing_is_left(queue)


async def test_an_entry_of_a_chunk_that_is_done_is_cleared_away_and_nothing_is_reported(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, RecordingModel())
    await submit(queue, chunk(items(5)))
    await burst(settings, queue, store)
    await queue.redis.zadd(queue.names.queue("recording"), {job_id(RUN, 0): 1})
    await burst(settings, queue, store)
    assert await store.dead_letters() == []
    assert (await queue.runs.summary(RUN)).counts == Counts(embedded=5, calls=1, inputs=5)
    await nothing_is_left(queue)


async def test_an_item_that_the_model_refuses_is_dead_and_the_run_ends(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, FaultyModel(raising, "recording", batch_size=16))
    await submit(queue, chunk([*items(50), Item("bad", "poison")]))
    await burst(settings, queue, store)
    assert [letter.id for letter in await store.dead_letters()] == ["bad"]
    assert (await queue.runs.summary(RUN)).counts.failed == 1
    assert await stored(store) == expected(items(50))


# --- arq's edges (docs/design.md)


async def test_nothing_is_kept_of_a_job_that_is_done(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, RecordingModel())
    await submit(queue, chunk(items(5)))
    await burst(settings, queue, store)
    for prefix in (job_key_prefix, result_key_prefix, retry_key_prefix):
        assert await queue.redis.exists(prefix + job_id(RUN, 0)) == 0
    assert not await queue.put(chunk(items(5))), "and yet it is known to be done"


async def test_a_job_that_was_picked_up_a_million_times_is_still_done(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, RecordingModel())
    await submit(queue, chunk(items(5)))
    await queue.redis.set(retry_key_prefix + job_id(RUN, 0), 1_000_000)
    await burst(settings, queue, store)
    assert (await queue.runs.summary(RUN)).counts.embedded == 5


ERRORS = [RuntimeError("a bug"), KeyError("x"), asyncio.CancelledError(), OSError("disk"), TimeoutError()]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("where", ["process", "decode_chunk"])
async def test_whatever_goes_wrong_the_payload_stays_and_the_job_comes_again(
    settings: Settings,
    queue: Queue,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    where: str,
) -> None:
    monkeypatch.setattr(embedq_worker.lane, "BUG_SECONDS", 0.01)
    install(monkeypatch, RecordingModel())
    await submit(queue, chunk(items(5)))
    working, payloads = getattr(embedq_worker.lane, where), list[int]()

    def fails_once(*arguments: object) -> object:
        if not payloads:
            payloads.append(1)
            raise error
        return working(*arguments)

    monkeypatch.setattr(embedq_worker.lane, where, fails_once)
    await burst(settings, queue, store)
    assert payloads == [1]
    assert (await queue.runs.summary(RUN)).counts.embedded == 5
    assert await store.dead_letters() == []


async def test_burying_that_fails_is_tried_again(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedq_worker.lane, "BUG_SECONDS", 0.01)
    install(monkeypatch, RecordingModel())
    await submit(queue, chunk(items(5)))
    await queue.redis.set(payload_key(job_id(RUN, 0)), b"noise")
    tried = list[int]()

    def fails_once(*arguments: object, **fields: object) -> DeadLetter:
        tried.append(1)
        if len(tried) == 1:
            raise ZeroDivisionError
        return DeadLetter(*arguments, **fields)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(embedq_worker.lane, "DeadLetter", fails_once)
    await burst(settings, queue, store)
    assert [letter.content for letter in await store.dead_letters()] == [b"noise"]


async def test_a_lease_is_short_and_renewed_for_as_long_as_the_work_goes_on(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    model = GatedModel()
    install(monkeypatch, model)
    await submit(queue, chunk(items(10)))
    lease, seen = lease_key(job_id(RUN, 0)), list[int]()

    async def has_been_renewed_twice() -> bool:
        left = await queue.redis.pttl(lease)
        if model.begun:
            seen.append(left)
        return sum(later > earlier for earlier, later in itertools.pairwise(seen)) >= 2

    options = ServiceOptions(lease_seconds=0.3)
    async with worker(settings, options), worker(settings, options):
        await eventually(has_been_renewed_twice)
        assert max(seen) <= 300
        assert min(seen) > 0, "it never ran out, so that no other worker took the job"
        model.gate.set()
        await until_complete(queue, eventually)
    assert model.begun == 1


async def test_by_default_a_lease_is_good_for_fifteen_seconds(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    model = GatedModel()
    install(monkeypatch, model)
    await submit(queue, chunk(items(10)))

    async def begun() -> bool:
        return model.begun >= 1

    async with worker(settings, ServiceOptions()):
        await eventually(begun)
        assert 5_000 < await queue.redis.pttl(lease_key(job_id(RUN, 0))) <= 15_000
        model.gate.set()


async def test_each_worker_has_a_health_key_and_a_report_of_its_own(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    install(monkeypatch, RecordingModel())
    await submit(queue, chunk(items(10)))
    me = f"{socket.gethostname()}:{os.getpid()}"
    await queue.redis.set(queue.names.health("elsewhere:1:recording"), b"healthy")

    async def healthy() -> bool:
        return bool(await queue.redis.exists(queue.names.health(f"{me}:recording")))

    async with worker(settings):
        await eventually(healthy)
        assert 0 < await queue.redis.ttl(queue.names.health(f"{me}:recording")) <= 16
        (report,) = await queue.worker_reports()
        assert f'"pid": {os.getpid()}'.encode() in report
    assert await queue.worker_reports() == [], "a worker that ends says so"
    assert await queue.redis.get(queue.names.health("elsewhere:1:recording")) == b"healthy"


async def test_no_log_line_shows_any_content(
    settings: Settings,
    queue: Queue,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    install(monkeypatch, RecordingModel())
    await submit(queue, chunk([Item("a", "my secret diary")]))
    await burst(settings, queue, store)
    assert "1 embedded" in caplog.text
    assert "diary" not in caplog.text


# --- a database in trouble


async def test_a_locked_database_is_waited_for_and_nothing_is_lost_or_paid_twice(
    settings: Settings,
    queue: Queue,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("embedq_worker.pipeline.WRITE_AGAIN_SECONDS", 0.02)
    model = RecordingModel()
    install(monkeypatch, model)
    await submit(queue, chunk(items(10)))

    async def has_failed() -> bool:
        return "the vectors are kept" in caplog.text

    with contextlib.closing(sqlite3.connect(settings.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with worker(dataclasses.replace(settings, busy_seconds=0.02)):
            await eventually(has_failed)
            other.execute("ROLLBACK")
            await until_complete(queue, eventually)
    assert model.inputs == 10
    assert await stored(store) == expected(items(10))


async def test_a_database_that_can_t_be_read_for_a_moment_costs_a_retry_and_no_job(
    settings: Settings,
    queue: Queue,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(embedq_worker.lane, "STORE_SECONDS", 0.02)
    install(monkeypatch, RecordingModel())
    await submit(queue, chunk(items(10)))

    async def has_failed_twice() -> bool:
        return caplog.text.count("trying again") >= 2

    async with worker(settings):
        with contextlib.closing(sqlite3.connect(settings.database, isolation_level=None)) as other:
            other.execute("ALTER TABLE embedq_chunks RENAME TO elsewhere")
            await submit(queue, chunk(items(10), run="again"))
            await eventually(has_failed_twice)
            other.execute("ALTER TABLE elsewhere RENAME TO embedq_chunks")
        await until_complete(queue, eventually)

        async def again() -> bool:
            return await complete(queue, "again")

        await eventually(again)
    assert await stored(store) == expected(items(10))


async def test_a_database_that_is_broken_ends_the_worker_and_the_job_stays(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, RecordingModel())
    await submit(queue, chunk(items(10)))

    async def broken(*_: object) -> Counts:
        raise DatabaseUnusable("is corrupt")

    monkeypatch.setattr(embedq_worker.lane, "process", broken)
    async with asyncio.timeout(10):
        with pytest.raises(DatabaseUnusable):
            await serve(settings, ServiceOptions(), queue, store, asyncio.Event())
    assert [(load.jobs, load.in_progress) for load in await queue.loads()] == [(1, 0)]
    monkeypatch.setattr(embedq_worker.lane, "process", process)
    await queue.redis.zadd(queue.names.queue("recording"), {job_id(RUN, 0): 1})
    await burst(settings, queue, store)
    assert await stored(store) == expected(items(10))


async def test_a_chunk_that_waits_for_another_looks_less_and_less_often(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(embedq_worker.lane, "AFTER_SECONDS", 0.01)
    monkeypatch.setattr(embedq_worker.lane, "LONGEST_AFTER_SECONDS", 3600)
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
    monkeypatch.setattr(embedq_worker.lane, "AFTER_SECONDS", 0.02)
    install(monkeypatch, RecordingModel())
    waiting: list[Chunk] = [chunk([Item("a", "new")], 1, after=[0]), chunk([Item("a", "old")], 0)]
    await submit(queue, *waiting, *(chunk(items(5, first=5 * number), number) for number in range(2, 8)))
    await burst(settings, queue, store)
    assert (await queue.runs.summary(RUN)).state == "complete"
    assert (await stored(store))["a"] == tuple(vector_of("new"))


# --- memory


async def test_the_bytes_that_a_worker_has_in_hand_are_bounded_and_said_with_their_bound(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(embedq_worker.service, "HEARTBEAT_SECONDS", 0.02)
    model = GatedModel(batch_size=None)
    install(monkeypatch, model)
    await submit(queue, *(chunk(items(10, first=10 * number), number) for number in range(20)))
    total = await queue.bytes_queued("recording")
    reports: list[dict[str, int]] = []

    async def several_are_in_hand() -> bool:
        reports.extend(json.loads(report) for report in await queue.worker_reports())
        return bool(reports) and reports[-1]["in_hand"] > 1

    limit = total // 4
    async with worker(dataclasses.replace(settings, inflight_bytes=limit)):
        await eventually(several_are_in_hand)
        model.gate.set()
        await until_complete(queue, eventually)

        async def nothing_is_in_hand() -> bool:
            reports.extend(json.loads(report) for report in await queue.worker_reports())
            return reports[-1]["in_hand_bytes"] == 0

        await eventually(nothing_is_in_hand)
    assert 0 < max(report["in_hand_bytes"] for report in reports) <= limit
    assert reports[-1]["in_hand_bytes_limit"] == limit
