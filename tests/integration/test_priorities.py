"""High runs go ahead of a backfill that is queued and in hand, and the backfill still moves."""

import dataclasses
import time
from collections.abc import Awaitable
from typing import cast

import pytest

import embedq_worker.picking
import embedq_worker.service
from embedq_core.priority import Priority
from embedq_core.settings import Settings
from embedq_jobs import Queue, Scope, job_id
from embedq_jobs.health import queue_facts
from embedq_jobs.names import lease_key
from embedq_jobs.scores import high_score
from embedq_store import Store
from support.chunks import RUN, chunk, install, items, run, submit
from support.models import RecordingModel, SlowModel
from support.waiting import Eventually
from support.working import burst, complete, nothing_is_left, until_complete, worker

PETS = Scope("collection", "pets")
URGENT, MORE = "20261231-235959-x7kqc", "20261231-235959-x7kqd"


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker looks for new queues, and whether all are empty, more often than it needs to."""
    monkeypatch.setattr(embedq_worker.service, "LOOK_SECONDS", 0.02)


def of_backfill(model: RecordingModel, since: int = 0) -> int:
    """How many contents of the backfill the model was given in its batches, from number `since` on."""
    return sum(str(content).startswith("backfill") for batch in model.batches[since:] for content in batch)


async def test_a_high_run_is_done_while_most_of_a_backfill_is_to_do_which_goes_on_meanwhile(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    model = SlowModel("recording", batch_size=32, seconds=0.03)
    install(monkeypatch, model)
    backfill = [chunk(items(2000, 2000 * number, "backfill"), number) for number in range(10)]
    await submit(queue, *backfill)

    async def in_hand_and_queued() -> bool:
        (load,) = await queue.loads()
        return len(model.batches) > 2 and load.in_progress > 1 and load.queued > 1

    async with worker(settings):
        await eventually(in_hand_and_queued)
        await submit(queue, chunk(items(200, 100_000, "urgent"), run=URGENT), priority=Priority.HIGH)
        await until_complete(queue, eventually, URGENT)
        assert of_backfill(model) < 10_000, "more than half of it is still to do, and the model never waits"
        # More high chunks than are needed to keep the model busy: the backfill gets its share all the same.
        begun = len(model.batches)
        more = [chunk(items(200, 200_000 + 200 * number, "more"), number, run=MORE) for number in range(3)]
        await submit(queue, *more, priority=Priority.HIGH)
        await until_complete(queue, eventually, MORE)
        given = sum(map(len, model.batches[begun:]))
        assert of_backfill(model, begun) > given / 5
        assert not await complete(queue)
    assert all(len(batch) == 32 for batch in model.batches), "and no batch was short"


async def test_a_high_chunk_that_is_put_off_stays_high_and_is_not_due_before(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    install(monkeypatch, RecordingModel())
    await queue.runs.open(run(priority=Priority.HIGH))
    await queue.put(chunk(items(3), 1, after=[0]))
    name, job = queue.names.queue("recording"), job_id(RUN, 1)
    put = await queue.redis.zscore(name, job)
    assert put is not None
    assert put < 0

    async def put_off() -> bool:
        score = await queue.redis.zscore(name, job)
        return score is not None and score > put and not await queue.redis.exists(lease_key(job))

    before = int(time.time() * 1000)
    async with worker(settings):
        await eventually(put_off)
        score = await queue.redis.zscore(name, job)
        assert score is not None
        assert high_score(before) < score < high_score(before + 60_000), "a moment ahead, and among the high ones"
    assert not await complete(queue)
    await queue.put(chunk(items(3), 0))
    await queue.runs.close(RUN, 2, skipped=0, duplicates=0)
    await burst(settings, queue, store)
    assert await complete(queue)
    await nothing_is_left(queue)


async def test_thousands_of_high_chunks_hide_no_others(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """Each poll reads so many of each priority; the high ones here are in the hands of other workers."""
    monkeypatch.setattr(embedq_worker.picking, "READ_LIMIT", 4)
    model = RecordingModel()
    install(monkeypatch, model)
    await queue.runs.open(run(URGENT, priority=Priority.HIGH))
    for number in range(8):
        await queue.put(chunk(items(1, number, "urgent"), number, run=URGENT))
        await queue.redis.set(lease_key(job_id(URGENT, number)), b"1")
    await submit(queue, chunk(items(5)))
    async with worker(settings):
        await until_complete(queue, eventually)
    assert model.inputs == 5


async def test_what_is_due_and_since_when_is_told_of_both_priorities(queue: Queue) -> None:
    now = time.time()
    await queue.runs.open(run(URGENT, priority=Priority.HIGH))
    await queue.put(chunk(items(1), run=URGENT))
    await queue.put(chunk(items(1), 1, run=URGENT))
    await submit(queue, chunk(items(2)), chunk(items(2), 1))
    name = queue.names.queue("recording")
    later = int(now * 1000) + 60_000
    await queue.redis.zadd(name, {job_id(URGENT, 1): high_score(later), job_id(RUN, 1): later})
    await queue.redis.set(lease_key(job_id(URGENT, 0)), b"1")
    (load,) = await queue.loads()
    assert (load.jobs, load.in_progress, load.deferred, load.queued) == (4, 1, 2, 1)
    assert load.high == 2, "one in hand, one that is not due yet"
    await queue.pausing.pause(PETS)
    await queue.pausing.set_aside("recording", [job_id(URGENT, 1), job_id(RUN, 1)], await queue.pauses())
    (load,) = await queue.loads()
    assert (load.paused, load.high) == (2, 2), "one that is set aside is high still"
    await queue.pausing.resume([PETS], ["recording"])
    assert load.oldest == pytest.approx(now, abs=5)
    await queue.redis.zadd(name, {job_id(URGENT, 0): high_score(int(now * 1000) - 90_000)})
    (load,) = await queue.loads()
    assert load.oldest == pytest.approx(now - 90, abs=5), "the oldest of both"
    await queue.redis.delete(lease_key(job_id(URGENT, 0)))
    facts = await queue_facts(queue, "recording")
    assert facts.oldest_due == pytest.approx(90, abs=5)


async def test_the_ledger_says_how_urgent_a_run_is_and_one_of_an_earlier_version_is_normal(queue: Queue) -> None:
    await queue.runs.open(run(URGENT, priority=Priority.HIGH))
    assert (await queue.runs.summary(URGENT)).run.priority is Priority.HIGH
    await queue.runs.open(dataclasses.replace(run(), priority=Priority.HIGH))
    await cast("Awaitable[int]", queue.redis.hdel(queue.names.run(RUN), "priority"))
    assert (await queue.runs.summary(RUN)).run.priority is Priority.NORMAL
    await queue.put(chunk(items(1)))
    score = await queue.redis.zscore(queue.names.queue("recording"), job_id(RUN, 0))
    assert score is not None
    assert score > 0
