"""A chunk that was queued for the model that its collection had is handed on to the one it has: once, and whole."""

import asyncio
import contextlib
from types import SimpleNamespace
from typing import cast

import pytest

import embedq_worker.reembedding
import embedq_worker.service
from embedq_core.counts import Counts
from embedq_core.errors import ReembeddingMissing
from embedq_core.settings import Settings
from embedq_jobs import Chunk, Queue, decode_chunk, job_id
from embedq_jobs.codec import load_job
from embedq_jobs.names import lease_key, payload_key
from embedq_store import Store
from embedq_worker.burst import Burst
from embedq_worker.lane import Lane
from embedq_worker.service import ServiceOptions
from support.chunks import RUN, chunk, install, items, run, submit
from support.models import RecordingModel, vector_of
from support.serving import start_worker
from support.waiting import BOUND_SECONDS, Eventually
from support.working import GatedModel, burst, complete, nothing_is_left, worker

OLD, NEW = "recording", "recording-10"


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedq_worker.service, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(embedq_worker.reembedding, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(embedq_worker.reembedding, "IDLE_SECONDS", 0.02)


async def switched(settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch) -> RecordingModel:
    """Thirty pets that were embedded with the old model, and are now with the new one, which is returned."""
    new = RecordingModel(NEW)
    install(monkeypatch, RecordingModel(OLD), new)
    await submit(queue, chunk(items(30), run="first"))
    await store.create_collection("pets", OLD)
    await burst(settings, queue, store)
    await store.reembeddings.begin("pets", NEW)
    await burst(settings, queue, store)
    assert (await store.collection("pets")).model_id == NEW
    new.batches.clear()
    return new


async def payload(queue: Queue, number: int = 0) -> Chunk:
    raw = await queue.redis.get(payload_key(job_id(RUN, number)))
    assert isinstance(raw, bytes)
    return decode_chunk(load_job(raw)["a"][0])


async def load(queue: Queue, model_id: str) -> tuple[int, int]:
    """Jobs and items in the queue of a model, as its ledger has them."""
    (found,) = [each for each in await queue.loads() if each.model_id == model_id]
    return found.jobs, found.items


def moved(each: Chunk) -> Chunk:
    return Chunk(each.run, each.number, each.collection, NEW, each.store, each.after, each.items)


# --- in Redis


async def test_a_chunk_keeps_its_job_its_place_and_its_run_in_the_other_queue(queue: Queue) -> None:
    each = chunk(items(3))
    await submit(queue, each)
    due = await queue.redis.zscore(queue.names.queue(OLD), job_id(RUN, 0))
    assert await queue.forwarding.forward(moved(each), OLD)
    assert (await load(queue, OLD), await load(queue, NEW)) == ((0, 0), (1, 3))
    assert await queue.bytes_queued(OLD) == 0
    assert await queue.bytes_queued(NEW) == len(await queue.redis.get(payload_key(job_id(RUN, 0))) or b"")
    assert await queue.redis.zscore(queue.names.queue(NEW), job_id(RUN, 0)) == due
    assert await payload(queue) == moved(each)
    assert (await queue.runs.summary(RUN)).chunks == 1
    assert await queue.collection_model("pets") == NEW


async def test_handing_on_twice_is_handing_on_once(queue: Queue) -> None:
    each = chunk(items(3))
    await submit(queue, each)
    for _ in range(2):
        assert await queue.forwarding.forward(moved(each), OLD)
    assert (await load(queue, OLD), await load(queue, NEW)) == ((0, 0), (1, 3))


async def test_a_chunk_that_goes_back_after_a_rollback_takes_the_place_of_an_entry_that_was_left_there(
    queue: Queue,
) -> None:
    each = chunk(items(3))
    await submit(queue, each)
    assert await queue.forwarding.forward(moved(each), OLD)
    # As arq leaves it when it puts off a job for a worker that had stalled meanwhile.
    await queue.redis.zincrby(queue.names.queue(OLD), 1, job_id(RUN, 0))
    assert await queue.forwarding.forward(each, NEW)
    assert (await load(queue, OLD), await load(queue, NEW)) == ((1, 3), (0, 0))
    assert await payload(queue) == each
    assert not await queue.forwarding.retract(moved(each), OLD)


async def test_a_chunk_that_is_done_is_not_handed_on(queue: Queue) -> None:
    each = chunk(items(3))
    await submit(queue, each)
    await queue.runs.record(RUN, 0, OLD, Counts(embedded=3))
    assert not await queue.forwarding.forward(moved(each), OLD)
    assert NEW not in await queue.model_ids()


async def test_a_producer_that_sends_it_again_does_not_queue_it_again(queue: Queue) -> None:
    each = chunk(items(3))
    await submit(queue, each)
    await queue.forwarding.forward(moved(each), OLD)
    assert not await queue.put(each)
    assert (await load(queue, OLD), await load(queue, NEW)) == ((0, 0), (1, 3))
    assert await payload(queue) == moved(each)
    assert (await queue.runs.summary(RUN)).chunks == 1


async def test_a_burst_is_not_over_while_a_chunk_goes_from_one_queue_to_another(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = chunk(items(3))
    await submit(queue, each)
    idle = cast("Lane", SimpleNamespace(jobs_in_hand=0, unmended=None))
    length = Queue.length

    async def handed_on_after_a_look(self: Queue, model_id: str) -> int:
        found = await length(self, model_id)
        await queue.forwarding.forward(moved(each), OLD)
        return found

    monkeypatch.setattr(Queue, "length", handed_on_after_a_look)
    assert not await Burst(queue, {NEW: idle, OLD: idle}).is_over()


# --- in a worker


async def test_a_chunk_for_the_old_model_goes_to_the_new_one_and_is_counted_once(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = await switched(settings, queue, store, monkeypatch)
    # A producer that can't see the database, and has not heard of the switch.
    await queue.set_collection_model("pets", OLD)
    await submit(queue, chunk(items(5, first=28)))
    await burst(settings, queue, store)
    assert (await queue.runs.summary(RUN)).counts == Counts(unchanged=2, embedded=3, calls=1, inputs=3)
    assert await complete(queue)
    assert new.inputs == 3
    assert await store.count((await store.collection("pets")).id) == 33
    assert await store.dead.letters() == []
    assert await queue.collection_model("pets") == NEW
    await nothing_is_left(queue)


async def test_where_no_worker_has_the_new_model_it_waits_in_that_queue(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await switched(settings, queue, store, monkeypatch)
    install(monkeypatch, RecordingModel(OLD))
    await submit(queue, chunk(items(5, first=30)))
    await burst(settings, queue, store)
    assert (await load(queue, OLD), await load(queue, NEW)) == ((0, 0), (1, 5))
    assert not await complete(queue)
    assert await queue.redis.exists(lease_key(job_id(RUN, 0))) == 0


async def test_a_chunk_in_hand_at_the_moment_of_the_switch_is_handed_on(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    old, new = GatedModel(batch_size=None), RecordingModel(NEW)
    install(monkeypatch, old, new)
    await store.create_collection("pets", OLD)

    async def in_hand() -> bool:
        return old.begun > 0

    async with worker(settings):
        await submit(queue, chunk(items(3)))
        await eventually(in_hand)
        record = await store.reembeddings.begin("pets", NEW)
        # There is nothing to embed anew, so that the worker may be quicker.
        with contextlib.suppress(ReembeddingMissing):
            await store.reembeddings.switch(record)
        old.gate.set()

        async def done() -> bool:
            return await complete(queue)

        await eventually(done)
    assert (await queue.runs.summary(RUN)).counts == Counts(embedded=3, calls=1, inputs=3)
    key = (await store.collection("pets")).id
    assert {each.id: await store.vector(key, each.id) for each in items(3)} == {
        each.id: tuple(vector_of(each.content)) for each in items(3)
    }
    assert new.inputs == 3
    assert await store.dead.letters() == []
    await nothing_is_left(queue)


async def test_a_chunk_of_a_cancelled_run_is_not_handed_on_to_where_nobody_might_take_it_out(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    old = GatedModel(batch_size=None)
    install(monkeypatch, old, RecordingModel(NEW))
    await store.create_collection("pets", OLD)

    async def in_hand() -> bool:
        return old.begun > 0

    async def settled() -> bool:
        return (await queue.runs.summary(RUN)).settled

    async with worker(settings, ServiceOptions(models=(OLD,), lease_seconds=1)):
        await submit(queue, chunk(items(3)))
        await eventually(in_hand)
        await store.reembeddings.switch(await store.reembeddings.begin("pets", NEW))
        await queue.cancelling.cancel(RUN, OLD)
        old.gate.set()
        await eventually(settled)
    assert (await queue.runs.summary(RUN)).counts == Counts(cancelled=3)
    await nothing_is_left(queue)


async def test_an_entry_that_comes_back_into_the_old_queue_is_removed_and_buries_nothing(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await switched(settings, queue, store, monkeypatch)
    each = chunk(items(5, first=30))
    await submit(queue, each)
    await queue.forwarding.forward(moved(each), OLD)
    # As arq leaves it when it puts off a job for a worker that had stalled meanwhile.
    await queue.redis.zincrby(queue.names.queue(OLD), 1, job_id(RUN, 0))
    install(monkeypatch, RecordingModel(OLD))
    await burst(settings, queue, store)
    assert await load(queue, NEW) == (1, 5)
    install(monkeypatch, RecordingModel(OLD), RecordingModel(NEW))
    await burst(settings, queue, store)
    assert (await queue.runs.summary(RUN)).counts.embedded == 5
    assert await store.dead.letters() == []
    await nothing_is_left(queue)


async def test_chunks_of_a_re_embedding_that_was_cancelled_cost_nothing(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = RecordingModel(NEW)
    install(monkeypatch, RecordingModel(OLD), new)
    await store.create_collection("pets", OLD)
    await store.reembeddings.begin("pets", NEW)
    await queue.runs.open(run(model_id=NEW))
    await queue.put(chunk(items(5), collection="pets@next", model_id=NEW))
    await queue.runs.close(RUN, 1, skipped=0, duplicates=0)
    await store.reembeddings.cancel("pets")
    await burst(settings, queue, store)
    assert (await queue.runs.summary(RUN)).counts == Counts(unchanged=5)
    assert new.inputs == 0
    assert [info.name for info in await store.collections()] == ["pets"]
    await nothing_is_left(queue)


# --- killed in the middle


async def test_a_worker_that_is_killed_when_it_has_handed_on_a_chunk_loses_and_doubles_nothing(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = await switched(settings, queue, store, monkeypatch)
    await submit(queue, chunk(items(5, first=30)))
    process = start_worker(settings, 0.2, kill_after_handing_on=True)
    await asyncio.to_thread(process.join, BOUND_SECONDS)
    assert process.exitcode == -9
    assert (await load(queue, OLD), await load(queue, NEW)) == ((0, 0), (1, 5))
    await burst(settings, queue, store)
    assert (await queue.runs.summary(RUN)).counts == Counts(embedded=5, calls=1, inputs=5)
    assert new.inputs == 5
    assert await store.count((await store.collection("pets")).id) == 35
    assert await store.dead.letters() == []
    await nothing_is_left(queue)


async def test_a_worker_that_is_killed_at_the_switch_leaves_it_to_the_next_one(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    new = RecordingModel(NEW)
    install(monkeypatch, RecordingModel(OLD), new)
    await submit(queue, chunk(items(30)))
    await burst(settings, queue, store)
    await store.reembeddings.begin("pets", NEW)
    process = start_worker(settings, 0.2, kill_at="UPDATE collections SET name")
    await asyncio.to_thread(process.join, BOUND_SECONDS)
    assert process.exitcode == -9
    assert (await store.collection("pets")).model_id == OLD

    async def switched_now() -> bool:
        return (await store.collection("pets")).model_id == NEW

    async with worker(settings):
        await eventually(switched_now)
    assert new.inputs == 0, "the one that was killed had embedded all"
    await nothing_is_left(queue)
