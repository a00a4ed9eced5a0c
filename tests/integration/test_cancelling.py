"""Cancelling a run: what waits is taken out and counted, what is in hand is finished, and nothing of it comes again."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis.exceptions

import embedq_worker.admission
import embedq_worker.service
from embedq.steer.queued import QueuedFor, queued_for
from embedq_core.counts import Counts
from embedq_core.items import Item
from embedq_core.settings import Settings
from embedq_jobs import Queue, QueueLoad, job_id
from embedq_jobs.cancelling import Marked, Removed
from embedq_jobs.names import lease_key
from embedq_jobs.runs import KEEP_SECONDS
from embedq_producer.submission import new_submission, submit
from embedq_store import Store
from embedq_worker.service import ServiceOptions
from support.chunks import RUN, chunk, install, items, run
from support.chunks import submit as submit_chunks
from support.models import FaultyModel, RecordingModel, raising
from support.waiting import BOUND_SECONDS, Eventually
from support.working import GatedModel, burst, nothing_is_left, stored, worker


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker looks for new queues, and whether all are empty, more often than it needs to."""
    monkeypatch.setattr(embedq_worker.service, "LOOK_SECONDS", 0.02)


async def cancel(queue: Queue) -> tuple[Marked, Removed]:
    return await queue.cancelling.cancel(RUN, "recording")


class Rows:
    """A corpus of so many items, one text each; every hundredth is poison."""

    rejected = 0

    def __init__(self, count: int) -> None:
        self._count = count

    def before_waiting(self, wait: object) -> None:
        """There is no pipe to wait for."""

    def __iter__(self) -> Iterator[Item]:
        for number in range(self._count):
            yield Item(f"i{number}", f"{'poison' if number % 100 == 99 else 'text'} {number}")


async def test_what_waits_is_taken_out_and_counted_and_what_belongs_to_others_stays(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedq_jobs.cancelling.AT_ONCE", 2)
    await submit_chunks(queue, *(chunk(items(10, first=10 * number), number) for number in range(5)))
    await submit_chunks(queue, chunk(items(7), run=f"{RUN}x"))
    # One was handed back a moment ago, and had come half the way.
    await queue.redis.zincrby(queue.names.queue("recording"), 60_000, job_id(RUN, 3))
    await queue.runs.progress(RUN, 3, Counts(embedded=3, failed=1, calls=2, inputs=4))
    assert await cancel(queue) == (Marked.now, Removed(5, 46))
    summary = await queue.runs.summary(RUN)
    assert (summary.state, summary.settled, summary.complete) == ("cancelled", True, False)
    assert summary.counts == Counts(embedded=3, failed=1, calls=2, inputs=4, cancelled=46)
    assert (summary.counts.done, summary.counts.ended, summary.items) == (4, 50, 50)
    assert summary.finished is not None
    (load,) = await queue.loads()
    assert (load.jobs, load.items, load.deferred) == (1, 7, 0)
    assert await queue.redis.keys("arq:*") == [f"arq:job:{RUN}x:0".encode()]
    for key in (queue.names.run(RUN), queue.names.chunks(RUN)):
        assert KEEP_SECONDS - 60 < await queue.redis.ttl(key) <= KEEP_SECONDS
    assert await cancel(queue) == (Marked.before, Removed(0, 0)), "again is no harm"
    assert await queue.runs.summary(RUN) == summary
    assert KEEP_SECONDS - 60 < await queue.redis.ttl(queue.names.run(RUN)) <= KEEP_SECONDS


async def test_a_run_that_is_complete_stays_so(queue: Queue) -> None:
    await submit_chunks(queue, chunk(items(3)))
    await queue.runs.record(RUN, 0, "recording", Counts(embedded=3))
    assert await cancel(queue) == (Marked.over, Removed(0, 0))
    assert (await queue.runs.summary(RUN)).state == "complete"


async def test_a_redis_that_is_full_can_be_relieved_by_cancelling(queue: Queue) -> None:
    await submit_chunks(queue, *(chunk(items(10), number) for number in range(3)))
    await queue.redis.config_set("maxmemory", 1)
    try:
        assert await cancel(queue) == (Marked.now, Removed(3, 30))
    finally:
        await queue.redis.config_set("maxmemory", 0)
    assert (await queue.runs.summary(RUN)).counts.cancelled == 30


async def test_a_pick_up_that_is_going_on_fails_and_one_that_came_before_is_left_alone(queue: Queue) -> None:
    await submit_chunks(queue, chunk(items(5), 0), chunk(items(5), 1))
    await queue.redis.psetex(lease_key(job_id(RUN, 1)), 60_000, b"1")
    # As arq picks a job up.
    async with queue.redis.pipeline(transaction=True) as pipe:
        await pipe.watch(lease_key(job_id(RUN, 0)))
        assert not await pipe.exists(lease_key(job_id(RUN, 0)))
        assert await cancel(queue) == (Marked.now, Removed(1, 5))
        pipe.multi()  # type: ignore[no-untyped-call]  # redis-py's own
        pipe.psetex(lease_key(job_id(RUN, 0)), 60_000, b"1")
        with pytest.raises(redis.exceptions.WatchError):
            await pipe.execute()
    summary = await queue.runs.summary(RUN)
    assert (summary.state, summary.settled, summary.counts.cancelled) == ("cancelled", False, 5)
    await queue.runs.record(RUN, 1, "recording", Counts(embedded=5))
    summary = await queue.runs.summary(RUN)
    assert (summary.settled, summary.counts) == (True, Counts(embedded=5, cancelled=5))


async def test_nothing_of_it_is_queued_again(queue: Queue) -> None:
    await queue.runs.open(run())
    await queue.put(chunk(items(5), 0))
    assert await cancel(queue) == (Marked.now, Removed(1, 5))
    assert not (await queue.place(chunk(items(5), 0))).cancelled, "the queue has had it"
    placed = await queue.place(chunk(items(5), 1))
    assert (placed.new, placed.cancelled) == (False, True)
    assert not await queue.put(chunk(items(5), 1))
    assert not await queue.runs.beat(RUN)
    summary = await queue.runs.summary(RUN)
    assert (summary.items, summary.settled) == (5, True)
    await nothing_is_left(queue)


async def test_what_is_in_hand_is_finished_and_what_is_handed_back_then_is_cancelled_when_it_is_met(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    model = GatedModel(batch_size=10)
    install(monkeypatch, model)
    # The second waits for one that never comes, and is handed back for ever.
    await submit_chunks(queue, chunk(items(10), 0), chunk(items(10, first=10), 1, after=[7]))

    async def both_were_in_hand() -> bool:
        return model.begun == 1 and await queue.redis.get(f"arq:retry:{RUN}:1") is not None

    async with worker(settings):
        await eventually(both_were_in_hand)
        await cancel(queue)
        model.gate.set()

        async def settled() -> bool:
            return (await queue.runs.summary(RUN)).settled

        await eventually(settled)
    summary = await queue.runs.summary(RUN)
    assert summary.counts == Counts(embedded=10, calls=1, inputs=10, cancelled=10)
    assert len(await stored(store)) == 10
    await nothing_is_left(queue)
    assert await store.dead.letters() == []


async def test_what_a_worker_leaves_of_it_costs_nothing_more(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    model = GatedModel(batch_size=10)
    install(monkeypatch, model)
    await submit_chunks(queue, chunk(items(30), 0), chunk(items(30, first=30), 1))
    await submit_chunks(queue, chunk(items(5, text="other"), run="another", collection="other"))

    async def a_call_goes_on() -> bool:
        return model.begun == 1 and await queue.redis.exists(lease_key(job_id(RUN, 0))) == 1

    async with worker(settings, ServiceOptions(grace_seconds=0)):
        await eventually(a_call_goes_on)
        await cancel(queue)
    model.gate.set()
    model.begun = 0
    await burst(settings, queue, store)
    assert model.begun == 1, "for the other run"
    summary = await queue.runs.summary(RUN)
    assert (summary.settled, summary.counts) == (True, Counts(cancelled=60))
    assert await queue.redis.exists(queue.names.starts(RUN)) == 0
    await nothing_is_left(queue)


async def test_what_one_that_had_stalled_hands_back_when_it_is_long_gone_is_cleared_away(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, RecordingModel())
    await submit_chunks(queue, chunk(items(5)))
    await cancel(queue)
    before = await queue.runs.summary(RUN)
    # As arq puts a job off.
    await queue.redis.zincrby(queue.names.queue("recording"), 5000, job_id(RUN, 0))
    await burst(settings, queue, store)
    assert await queue.runs.summary(RUN) == before
    assert await store.dead.letters() == []
    await nothing_is_left(queue)


async def test_with_two_workers_and_a_producer_that_sends_every_item_ends_in_one_way(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    model = FaultyModel(raising, "recording", batch_size=10)
    install(monkeypatch, model)
    monkeypatch.setattr(embedq_worker.admission, "MOST_JOBS", 4)
    submission = new_submission("pets", "recording", "a test")
    small = replace(settings, chunk_items=10, queue_bytes=20_000, inflight_bytes=4_000)
    async with worker(small), worker(small):
        sending = asyncio.create_task(submit(submission, Rows(1_000_000), queue, small, store=True))

        async def under_way() -> bool:
            return submission.chunks > 50 and (await queue.runs.summary(submission.run.id)).counts.failed > 0

        await eventually(under_way)
        marked, _ = await queue.cancelling.cancel(submission.run.id, "recording")
        assert marked is Marked.now
        async with asyncio.timeout(BOUND_SECONDS):
            await sending

        async def settled() -> bool:
            return (await queue.runs.summary(submission.run.id)).settled

        await eventually(settled)
    assert submission.cancelled
    summary = await queue.runs.summary(submission.run.id)
    assert (summary.state, summary.items, summary.chunks) == ("cancelled", submission.items, submission.chunks)
    counts, dead = summary.counts, await store.dead.letters()
    assert counts.ended == summary.items == 10 * summary.chunks
    key = (await store.collection("pets")).id
    assert await store.count(key) == counts.embedded
    assert len(dead) == counts.failed > 0
    assert max(Counter(letter.id for letter in dead).values()) == 1
    assert counts.cancelled > 0
    assert (await queue.loads())[0] == QueueLoad("recording", 0, 0, 0, 0, 0, None)
    await nothing_is_left(queue)


async def test_a_producer_that_holds_back_hears_of_it_though_the_queue_stays_full(
    settings: Settings, queue: Queue, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedq_producer.submission.BEAT_SECONDS", 0.05)
    await submit_chunks(queue, chunk(items(10), run="another"))
    submission = new_submission("pets", "recording", "a test")
    sending = asyncio.create_task(submit(submission, Rows(30), queue, replace(settings, queue_bytes=1), store=True))

    async def holding() -> bool:
        return submission.holding

    await eventually(holding)
    await queue.cancelling.cancel(submission.run.id, "recording")
    async with asyncio.timeout(BOUND_SECONDS):
        await sending
    assert (submission.cancelled, submission.items) == (True, 0)
    summary = await queue.runs.summary(submission.run.id)
    assert (summary.state, summary.settled, summary.counts) == ("cancelled", True, Counts())


async def test_a_run_is_finished_though_its_producer_has_sent_what_redis_has_lost(queue: Queue) -> None:
    await queue.runs.open(run())
    await queue.put(chunk(items(10)))
    await queue.redis.psetex(lease_key(job_id(RUN, 0)), 60_000, b"1")
    await queue.cancelling.cancel(RUN, "recording")
    await queue.runs.close(RUN, 2, skipped=1, duplicates=0)
    await queue.runs.record(RUN, 0, "recording", Counts(embedded=10))
    summary = await queue.runs.summary(RUN)
    assert (summary.finished is None, summary.skipped, summary.outcome) == (False, 1, "cancelled")
    assert await queue.redis.ttl(queue.names.run(RUN)) > 0


async def test_of_a_collection_only_what_is_in_hand_is_queued_still(queue: Queue) -> None:
    await submit_chunks(queue, chunk(items(10)), chunk(items(7, first=10), 1))
    await queue.redis.psetex(lease_key(job_id(RUN, 1)), 60_000, b"1")
    await cancel(queue)
    assert await queued_for(queue, "pets") == QueuedFor([RUN], 7)
    assert await queued_for(queue, "plants") == QueuedFor([], 0)
