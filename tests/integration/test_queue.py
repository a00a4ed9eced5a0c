"""The queue in a real Redis: what is put in is there once, and what it weighs is known exactly."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import cast

import pytest
from arq.constants import job_key_prefix
from arq.jobs import Job, JobStatus

from embedq_core.counts import Counts
from embedq_core.errors import QueueError
from embedq_core.settings import load_settings
from embedq_jobs import Chunk, Queue, decode_chunk, job_id, open_queue
from embedq_jobs.names import lease_key, payload_key
from embedq_jobs.queue import EXPIRES_MS, STRAY_MS, QueueLoad
from embedq_jobs.rates import RATE_SECONDS
from support.chunks import RUN, chunk, items, run

YEAR_MS = 365 * 24 * 3600 * 1000


async def load(queue: Queue, model_id: str = "recording") -> QueueLoad:
    return {load.model_id: load for load in await queue.loads()}[model_id]


async def fields(queue: Queue, key: str) -> dict[bytes, bytes]:
    return await cast("Awaitable[dict[bytes, bytes]]", queue.redis.hgetall(key))


async def record(queue: Queue, done: Chunk) -> None:
    await queue.runs.record(done.run, done.number, done.model_id, Counts(embedded=len(done.items)))


async def finish(queue: Queue, done: Chunk) -> None:
    """What a worker and arq do when a chunk is done."""
    await record(queue, done)
    job = job_id(done.run, done.number)
    await queue.redis.delete(payload_key(job), lease_key(job))
    await queue.redis.zrem(queue.names.queue(done.model_id), job)


async def test_what_is_put_is_for_arq_a_queued_job_like_any_other(queue: Queue) -> None:
    before = time.time()
    assert await queue.put(chunk(items(3)))
    job = Job(job_id(RUN, 0), queue.redis, queue.names.queue("recording"), queue.redis.job_deserializer)
    assert await job.status() is JobStatus.queued
    info = await job.info()
    assert info is not None
    assert info.function == "embed_chunk"
    assert decode_chunk(info.args[0]) == chunk(items(3))
    assert before - 1 <= info.enqueue_time.timestamp() <= time.time()
    assert [found.job_id for found in await queue.redis.queued_jobs(queue_name="embedq:recording")] == [job_id(RUN, 0)]


async def test_arq_would_drop_a_job_after_a_day_and_ours_stays_for_years(queue: Queue) -> None:
    await queue.put(chunk(items(1)))
    left = await queue.redis.pttl(payload_key(job_id(RUN, 0)))
    assert 9 * YEAR_MS < left <= EXPIRES_MS
    assert queue.redis.expires_extra_ms == EXPIRES_MS


async def test_a_chunk_that_waits_is_not_queued_again(queue: Queue) -> None:
    assert await queue.put(chunk(items(3)))
    before, before_run = await load(queue), await fields(queue, queue.names.run(RUN))
    assert not await queue.put(chunk(items(5)))
    assert await load(queue) == before
    assert await fields(queue, queue.names.run(RUN)) | {b"chunks": b"1", b"items": b"3"} == before_run


async def test_a_chunk_that_is_done_is_not_queued_again(queue: Queue) -> None:
    await queue.put(chunk(items(3)))
    await finish(queue, chunk(items(3)))
    assert not await queue.put(chunk(items(3)))
    assert (await load(queue)).jobs == 0


async def test_a_payload_whose_producer_died_before_the_rest_goes_by_itself(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = "return redis.error_reply('no further')"
    monkeypatch.setattr("embedq_jobs.queue._ENQUEUE", refusing)
    monkeypatch.setattr(
        "embedq_jobs.queue._ENQUEUE_SHA", hashlib.sha1(refusing.encode(), usedforsecurity=False).hexdigest()
    )
    with pytest.raises(QueueError, match="no further"):
        await queue.put(chunk(items(3)))
    key = payload_key(job_id(RUN, 0))
    assert 0 < await queue.redis.pttl(key) <= STRAY_MS
    monkeypatch.undo()
    assert await queue.put(chunk(items(3)))
    assert await queue.redis.pttl(key) > 9 * YEAR_MS
    assert (await load(queue)).items == 3


async def test_what_a_chunk_that_is_done_is_put_with_takes_no_room(queue: Queue) -> None:
    await queue.put(chunk(items(3)))
    await finish(queue, chunk(items(3)))
    await queue.put(chunk(items(3)))
    assert not await queue.redis.exists(payload_key(job_id(RUN, 0)))


async def test_a_payload_that_was_lost_is_given_back_and_counts_once(queue: Queue) -> None:
    await queue.put(chunk(items(3)))
    await queue.redis.delete(payload_key(job_id(RUN, 0)))
    before = await load(queue)
    assert not await queue.put(chunk(items(3)))
    assert await queue.redis.pttl(payload_key(job_id(RUN, 0))) > 9 * YEAR_MS
    assert await load(queue) == before


async def test_of_many_who_put_the_same_chunk_at_once_one_does(queue: Queue) -> None:
    answers = await asyncio.gather(*(queue.put(chunk(items(2))) for _ in range(20)))
    assert sorted(answers) == [False] * 19 + [True]
    assert (await load(queue)).items == 2


async def test_the_ledger_is_exact_while_chunks_come_and_go(queue: Queue) -> None:
    chunks = [chunk(items(number + 1), number) for number in range(10)]
    for each in chunks:
        await queue.put(each)
    sizes = [int(await queue.redis.strlen(payload_key(job_id(RUN, number)))) for number in range(10)]
    found = await load(queue)
    assert (found.jobs, found.items, found.bytes) == (10, 55, sum(sizes))
    assert await queue.bytes_queued("recording") == sum(sizes)
    for each in chunks[:4]:
        await finish(queue, each)
    found = await load(queue)
    assert (found.jobs, found.items, found.bytes) == (6, 45, sum(sizes[4:]))
    for each in chunks[4:]:
        await finish(queue, each)
    assert await load(queue) == QueueLoad("recording", 0, 0, 0, 0, 0, None)
    assert await fields(queue, queue.names.load("recording")) == {b"bytes": b"0", b"items": b"0"}


async def test_a_chunk_that_is_done_twice_is_taken_off_the_ledger_once(queue: Queue) -> None:
    await queue.put(chunk(items(3)))
    await queue.put(chunk(items(4), 1))
    for _ in range(3):
        await record(queue, chunk(items(3)))
    assert (await load(queue)).items == 4


async def test_an_empty_queue_weighs_nothing(queue: Queue) -> None:
    assert await queue.bytes_queued("recording") == 0
    assert await queue.loads() == []
    assert await queue.model_ids() == []
    assert (await queue.rates()).per_second(60) == 0


async def test_a_model_that_is_announced_has_a_queue_with_nothing_in_it(queue: Queue) -> None:
    await queue.announce("recording")
    assert await queue.model_ids() == ["recording"]
    assert await load(queue) == QueueLoad("recording", 0, 0, 0, 0, 0, None)


async def test_each_model_has_a_queue_of_its_own(queue: Queue) -> None:
    await queue.put(chunk(items(1), model_id="b"))
    await queue.put(chunk(items(2), 1, model_id="a"))
    assert await queue.model_ids() == ["a", "b"]
    assert [(found.model_id, found.items) for found in await queue.loads()] == [("a", 2), ("b", 1)]


async def test_prefixes_keep_queues_apart_in_one_redis(queue: Queue, redis_url: str, tmp_path: Path) -> None:
    await queue.put(chunk(items(1)))
    other_settings = load_settings(database=tmp_path / "other.db", redis_url=redis_url, queue="other")
    async with open_queue(other_settings) as other:
        assert await other.loads() == []
        assert await other.collection_model("pets") is None


async def test_a_load_tells_what_is_in_hand_what_waits_and_what_is_deferred(queue: Queue) -> None:
    for number in range(4):
        await queue.put(chunk(items(1), number))
    await queue.redis.set(lease_key(job_id(RUN, 0)), b"1", px=60_000)
    await queue.redis.zadd(queue.names.queue("recording"), {job_id(RUN, 3): (time.time() + 60) * 1000})
    found = await load(queue)
    assert (found.jobs, found.in_progress, found.queued, found.deferred) == (4, 1, 2, 1)


async def test_the_oldest_is_the_time_since_which_a_job_is_due(queue: Queue) -> None:
    before = time.time()
    await queue.put(chunk(items(1)))
    await queue.put(chunk(items(1), 1))
    oldest = (await load(queue)).oldest
    assert oldest is not None
    assert before - 0.01 <= oldest <= time.time()
    queue_key = queue.names.queue("recording")
    await queue.redis.zadd(queue_key, {job_id(RUN, number): (time.time() + 60) * 1000 for number in (0, 1)})
    assert (await load(queue)).oldest is None, "what is deferred is not late"


async def test_the_speed_is_that_of_the_spans_that_have_ended(queue: Queue) -> None:
    now = int(time.time()) // RATE_SECONDS
    # The next span may begin while this test runs: it is as empty as the one that runs.
    for back, done in [(0, 10**9), (1, 500), (2, 0), (3, 100)]:
        await queue.redis.set(queue.names.done(now - back), done)
    assert (await queue.rates()).per_second(60) in ((600) / (3 * RATE_SECONDS), (10**9 + 600) / (4 * RATE_SECONDS))


async def test_quiet_time_before_the_work_began_says_nothing_about_the_speed(queue: Queue) -> None:
    now = int(time.time()) // RATE_SECONDS
    await queue.redis.mset({queue.names.done(now - back): 100 for back in (1, 2)})
    assert (await queue.rates()).per_second(60) in (100 / RATE_SECONDS, 200 / (3 * RATE_SECONDS))


async def test_items_done_count_towards_the_speed_once_however_often_it_is_said(queue: Queue) -> None:
    await queue.put(chunk(items(30)))
    await queue.runs.progress(RUN, 0, Counts(embedded=10))
    await queue.runs.progress(RUN, 0, Counts(embedded=25))
    await queue.runs.progress(RUN, 0, Counts(embedded=25))
    await record(queue, chunk(items(30)))
    await record(queue, chunk(items(30)))
    await queue.runs.progress(RUN, 0, Counts(embedded=5))
    done = await queue.redis.keys("embedq:done:*")
    assert sum([int(await queue.redis.get(key) or 0) for key in done]) == 30
    assert all([0 < await queue.redis.ttl(key) <= 3600 for key in done])


async def test_the_model_of_a_collection_is_remembered_until_it_is_forgotten(queue: Queue) -> None:
    assert await queue.collection_model("pets") is None
    await queue.set_collection_model("pets", "recording")
    assert await queue.collection_model("pets") == "recording"
    await queue.forget_collection("pets")
    assert await queue.collection_model("pets") is None


async def test_names_may_hold_anything(queue: Queue) -> None:
    model_id, collection = "sentence-transformers/all MiniLM:v2 ☃", 'Häuser: \'n "more"\n'
    await queue.put(chunk(items(1), collection=collection, model_id=model_id))
    await queue.set_collection_model(collection, model_id)
    assert await queue.model_ids() == [model_id]
    assert await queue.collection_model(collection) == model_id
    job = await queue.redis.get(job_key_prefix + job_id(RUN, 0))
    assert job is not None


async def test_hundreds_of_commands_at_once_wait_for_each_other_and_none_fails(queue: Queue) -> None:
    await queue.runs.open(run())
    answers = await asyncio.gather(*(queue.put(chunk(items(1), number)) for number in range(600)))
    assert answers == [True] * 600
    await asyncio.gather(*(record(queue, chunk(items(1), number)) for number in range(600)))
    assert (await queue.runs.summary(RUN)).counts == Counts(embedded=600)


@pytest.mark.parametrize("field", ["bytes", "items", "nonsense"])
async def test_a_ledger_that_somebody_has_tampered_with_stops_nobody(queue: Queue, field: str) -> None:
    await queue.put(chunk(items(1)))
    await queue.redis.hset(queue.names.load("recording"), job_id(RUN, 0), field)  # type: ignore[misc]  # redis-py's own
    await record(queue, chunk(items(1)))
    assert await queue.runs.done(RUN, [0])
