"""Chunks that were queued weeks ago are still there. Time is moved, not waited for."""

import asyncio
import time
from types import SimpleNamespace

import pytest
from arq.constants import retry_key_prefix

from embedq_core.counts import Counts
from embedq_core.settings import Settings
from embedq_jobs import Queue, job_id
from embedq_jobs.names import lease_key, payload_key
from embedq_store import Store
from embedq_worker.service import ServiceOptions, serve
from support.chunks import RUN, chunk, install, items, run
from support.models import RecordingModel
from support.waiting import BOUND_SECONDS

DAY = 24 * 3600
WEEKS = 8 * 7 * DAY
YEARS = 5 * 365 * DAY


async def let_pass(queue: Queue, seconds: int) -> None:
    """What `seconds` do to Redis: each key lives so much less long, and those whose time is up are gone."""
    for key in await queue.redis.keys("*"):
        left = await queue.redis.pttl(key)
        if left >= 0:
            await queue.redis.pexpire(key, left - seconds * 1000)  # in the past: deleted at once


async def put_long_ago(queue: Queue, monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """Queue chunks of one run, weeks ago."""
    with monkeypatch.context() as moved:
        clock = SimpleNamespace(time=lambda: time.time() - WEEKS)
        moved.setattr("embedq_jobs.queue.time", clock)
        moved.setattr("embedq_jobs.runs.time", clock)
        moved.setattr("embedq_jobs.summaries.time", clock)
        await queue.runs.open(run(started=clock.time()))
        await queue.set_collection_model("pets", "recording")
        for number in numbers:
            await queue.put(chunk(items(10, first=10 * number), number))


async def work_off(settings: Settings, queue: Queue, store: Store) -> None:
    async with asyncio.timeout(BOUND_SECONDS):
        await serve(settings, ServiceOptions(burst=True), queue, store, asyncio.Event())


async def test_chunks_outlive_weeks_in_the_queue_and_count_as_if_they_had_come_today(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = RecordingModel()
    install(monkeypatch, model)
    await put_long_ago(queue, monkeypatch, 0, 1)
    await work_off(settings, queue, store)
    await put_long_ago(queue, monkeypatch, 2, 3)
    await queue.runs.close(RUN, 4, skipped=0, duplicates=0)
    # One of them was in hand when its worker died, after some attempts: arq's own keys for that have an end.
    job = job_id(RUN, 2)
    await queue.redis.psetex(lease_key(job), 15_000, b"1")
    await queue.redis.setex(retry_key_prefix + job, 88_400, b"3")
    await queue.runs.progress(RUN, 2, Counts(embedded=5))

    await let_pass(queue, WEEKS)

    assert await queue.redis.exists(lease_key(job), retry_key_prefix + job, queue.names.partial(RUN)) == 0
    (load,) = await queue.loads()
    assert (load.jobs, load.queued, load.items) == (2, 2, 20)
    assert load.oldest is not None
    assert load.oldest < time.time() - WEEKS + DAY
    assert await queue.collection_model("pets") == "recording"
    summary = await queue.runs.summary(RUN)
    assert (summary.items, summary.chunks_done, summary.counts.done) == (40, 2, 20)

    await work_off(settings, queue, store)

    summary = await queue.runs.summary(RUN)
    assert (summary.state, summary.counts.embedded) == ("complete", 40)
    assert model.inputs == 40
    assert await store.count((await store.collection("pets")).id) == 40
    assert [(left.jobs, left.bytes) for left in await queue.loads()] == [(0, 0)]


async def test_what_an_unfinished_run_needs_has_no_end_and_payloads_have_one_in_years(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_long_ago(queue, monkeypatch, 0, 1)
    await queue.runs.record(RUN, 0, "recording", Counts(embedded=10))
    await queue.runs.close(RUN, 2, skipped=0, duplicates=0)
    names = queue.names
    ends = {key.decode(): await queue.redis.ttl(key) for key in await queue.redis.keys("*")}
    assert min(ends.pop(payload_key(job_id(RUN, number))) for number in (0, 1)) > YEARS
    speed = {key for key in ends if key.startswith(f"{names.prefix}:done:")}
    assert {key: end for key, end in ends.items() if key not in speed} == {
        names.queue("recording"): -1,
        names.load("recording"): -1,
        names.models: -1,
        names.collections: -1,
        names.runs: -1,
        names.run(RUN): -1,
        names.chunks(RUN): -1,
    }


async def test_a_chunk_that_was_picked_up_a_hundred_times_runs_like_any_other(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """arq counts pick-ups and forgets the count after a day: neither ends a job."""
    install(monkeypatch, RecordingModel())
    await put_long_ago(queue, monkeypatch, 0, 1)
    await queue.redis.setex(retry_key_prefix + job_id(RUN, 0), 88_400, b"100")
    await queue.runs.close(RUN, 2, skipped=0, duplicates=0)
    await work_off(settings, queue, store)
    assert (await queue.runs.summary(RUN)).counts.embedded == 20
