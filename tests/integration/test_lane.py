"""A lane and its jobs: what can't be read, arq's edges, a database in trouble. Nothing is lost or paid for twice."""

import asyncio
import contextlib
import dataclasses
import gc
import itertools
import json
import logging
import os
import socket
import sqlite3
import time
from typing import Any

import pytest
import redis.exceptions
from arq.constants import job_key_prefix, result_key_prefix, retry_key_prefix

import embedq_worker.chunk_jobs
import embedq_worker.picking
import embedq_worker.pipeline
import embedq_worker.service
from embedq_core.counts import Counts
from embedq_core.errors import DatabaseUnusable
from embedq_core.items import Item
from embedq_core.settings import Settings
from embedq_jobs import Queue, encode_chunk, job_id
from embedq_jobs.codec import dump_job
from embedq_jobs.names import lease_key, payload_key
from embedq_store import DeadLetter, Store
from embedq_worker.leases import Leases
from embedq_worker.pipeline import process
from embedq_worker.service import ServiceOptions, serve
from support.chunks import RUN, chunk, install, items, submit
from support.models import FaultyModel, RecordingModel, raising
from support.waiting import BOUND_SECONDS, Eventually
from support.working import GatedModel, burst, complete, expected, nothing_is_left, stored, until_complete, worker


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker looks for new queues, and whether all are empty, more often than it needs to."""
    monkeypatch.setattr(embedq_worker.service, "LOOK_SECONDS", 0.02)


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
    (letter,) = await store.dead.letters()
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
    (letter,) = await store.dead.letters()
    assert (letter.run, letter.chunk, letter.content) == ("bytes", -1, b"what is this?")
    noted = await queue.redis.keys(f"{queue.names.run('bytes')}*")
    assert noted, "that it is done, as of any chunk"
    assert [key for key in noted if await queue.redis.ttl(key) < 0] == [], "but not for ever: it belongs to no run"
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
    (letter,) = await store.dead.letters()
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
    assert await store.dead.letters() == []
    assert (await queue.runs.summary(RUN)).counts == Counts(embedded=5, calls=1, inputs=5)
    await nothing_is_left(queue)


async def test_an_item_that_the_model_refuses_is_dead_and_the_run_ends(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, FaultyModel(raising, "recording", batch_size=16))
    await submit(queue, chunk([*items(50), Item("bad", "poison")]))
    await burst(settings, queue, store)
    assert [letter.id for letter in await store.dead.letters()] == ["bad"]
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
    monkeypatch.setattr(embedq_worker.chunk_jobs, "BUG_SECONDS", 0.01)
    install(monkeypatch, RecordingModel())
    await submit(queue, chunk(items(5)))
    working, payloads = getattr(embedq_worker.chunk_jobs, where), list[int]()

    def fails_once(*arguments: object, **options: object) -> object:
        if not payloads:
            payloads.append(1)
            raise error
        return working(*arguments, **options)

    monkeypatch.setattr(embedq_worker.chunk_jobs, where, fails_once)
    await burst(settings, queue, store)
    assert payloads == [1]
    assert (await queue.runs.summary(RUN)).counts.embedded == 5
    assert await store.dead.letters() == []


async def test_several_jobs_that_can_t_be_handed_back_at_once_are_done_again_and_asyncio_complains_of_none(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """Of the errors of jobs that end in one moment, the worker that begins again has raised the first only."""
    monkeypatch.setattr("embedq_worker.lane.RECONNECT_SECONDS", (0.05,))
    install(monkeypatch, RecordingModel())
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    finish_job, both = embedq_worker.picking.ChunkWorker.finish_job, asyncio.Barrier(2)
    refused = list[str]()

    async def refuse_two(self: embedq_worker.picking.ChunkWorker, job: str, *arguments: Any) -> None:
        if len(refused) < 2:
            refused.append(job)
            await both.wait()
            raise redis.exceptions.ConnectionError("the connection was lost")
        await finish_job(self, job, *arguments)

    monkeypatch.setattr(embedq_worker.picking.ChunkWorker, "finish_job", refuse_two)
    await submit(queue, chunk(items(5)), chunk(items(5, first=5), 1))
    async with worker(settings, ServiceOptions(lease_seconds=0.5)):

        async def all_is_handed_back() -> bool:
            return len(refused) == 2 and [load.jobs for load in await queue.loads()] == [0]

        await eventually(all_is_handed_back)
    gc.collect()
    assert complaints == []
    assert await stored(store) == expected(items(10))


async def test_a_chunk_that_is_put_off_twice_since_an_answer_was_lost_is_due_as_if_once(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """However old it is; and one that is done by then does not come back."""
    install(monkeypatch, RecordingModel())
    finish_job = embedq_worker.picking.ChunkWorker.finish_job

    async def twice(self: embedq_worker.picking.ChunkWorker, *arguments: Any) -> None:
        await finish_job(self, *arguments)
        await finish_job(self, *arguments)

    monkeypatch.setattr(embedq_worker.picking.ChunkWorker, "finish_job", twice)
    await submit(queue, chunk(items(5), 1, after=[0]))
    name, job, day_ms = queue.names.queue("recording"), job_id(RUN, 1), 24 * 3600 * 1000
    now_ms = int(time.time() * 1000)
    await queue.redis.zadd(name, {job: now_ms - day_ms})

    async def put_off() -> bool:
        score = await queue.redis.zscore(name, job)
        return score is not None and score >= now_ms

    async with worker(settings):
        await eventually(put_off)
        score = await queue.redis.zscore(name, job)
        assert score is not None
        assert score < now_ms + day_ms / 2
        await queue.runs.record(RUN, 0, "recording", Counts(embedded=5))

        async def done_and_gone() -> bool:
            return await queue.runs.done(RUN, [1]) and await queue.redis.zcard(name) == 0

        await eventually(done_and_gone)
    assert await queue.redis.zcard(name) == 0


async def test_burying_that_fails_is_tried_again(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedq_worker.chunk_jobs, "BUG_SECONDS", 0.01)
    install(monkeypatch, RecordingModel())
    await submit(queue, chunk(items(5)))
    await queue.redis.set(payload_key(job_id(RUN, 0)), b"noise")
    tried = list[int]()

    def fails_once(*arguments: object, **fields: object) -> DeadLetter:
        tried.append(1)
        if len(tried) == 1:
            raise ZeroDivisionError
        return DeadLetter(*arguments, **fields)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(embedq_worker.chunk_jobs, "DeadLetter", fails_once)
    await burst(settings, queue, store)
    assert [letter.content for letter in await store.dead.letters()] == [b"noise"]


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

    monkeypatch.setattr("embedq_worker.leases.RENEWALS", 100)
    options = ServiceOptions(lease_seconds=10)
    async with worker(settings, options), worker(settings, options):
        await eventually(has_been_renewed_twice)
        assert max(seen) <= 10_000
        assert min(seen) > 0, "it never ran out, so that no other worker took the job"
        model.gate.set()
        await until_complete(queue, eventually)
    assert model.begun == 1


async def test_leases_are_renewed_on_though_a_renewal_failed_in_a_way_that_nobody_thought_of(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr("embedq_worker.leases.RENEWALS", 100)
    monkeypatch.setattr("embedq_worker.background.AGAIN_SECONDS", 0.01)
    model, renewals, renew = GatedModel(), list[int](), Leases.renew
    install(monkeypatch, model)
    await submit(queue, chunk(items(10)))

    async def fails_first(self: Leases) -> None:
        renewals.append(1)
        if len(renewals) == 1:
            raise ZeroDivisionError
        await renew(self)

    async def renewed_on() -> bool:
        return len(renewals) > 2

    monkeypatch.setattr(Leases, "renew", fails_first)
    async with worker(settings, ServiceOptions(lease_seconds=10)):
        await eventually(renewed_on)
        model.gate.set()
        await until_complete(queue, eventually)


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


async def test_a_redis_that_says_nothing_of_how_far_a_chunk_has_come_keeps_no_vectors_from_the_store(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, gate = 0, asyncio.Event()

    async def silent(*_: object) -> None:
        nonlocal asked
        asked += 1
        await gate.wait()

    install(monkeypatch, RecordingModel())
    monkeypatch.setattr(embedq_worker.pipeline, "FLUSH_SECONDS", -1.0)
    monkeypatch.setattr(embedq_worker.chunk_jobs, "REPORT_SECONDS", 0.05)
    monkeypatch.setattr(queue.runs, "progress", silent)
    await submit(queue, chunk(items(30)))
    working = asyncio.create_task(burst(settings, queue, store))
    ended, _ = await asyncio.wait([working], timeout=BOUND_SECONDS)
    gate.set()
    await working
    assert ended
    assert asked
    assert await stored(store) == expected(items(30))


# --- a database in trouble


async def test_a_locked_database_is_waited_for_and_nothing_is_lost_or_paid_twice(
    settings: Settings,
    queue: Queue,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("embedq_worker.outbox.WRITE_AGAIN_SECONDS", 0.02)
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
    monkeypatch.setattr(embedq_worker.chunk_jobs, "STORE_SECONDS", 0.02)
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

    async def broken(*_: object, **__: object) -> Counts:
        raise DatabaseUnusable("is corrupt")

    monkeypatch.setattr(embedq_worker.chunk_jobs, "process", broken)
    async with asyncio.timeout(BOUND_SECONDS):
        with pytest.raises(DatabaseUnusable):
            await serve(settings, ServiceOptions(), queue, store, asyncio.Event())
    assert [(load.jobs, load.in_progress) for load in await queue.loads()] == [(1, 0)]
    monkeypatch.setattr(embedq_worker.chunk_jobs, "process", process)
    await queue.redis.zadd(queue.names.queue("recording"), {job_id(RUN, 0): 1})
    await burst(settings, queue, store)
    assert await stored(store) == expected(items(10))


# --- memory


async def test_the_bytes_that_a_worker_has_in_hand_are_bounded_and_said_with_their_bound(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr("embedq_worker.heartbeat.HEARTBEAT_SECONDS", 0.02)
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


async def test_a_worker_says_what_each_of_its_models_does(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr("embedq_worker.heartbeat.HEARTBEAT_SECONDS", 0.02)

    def fault(batch: list[str | bytes]) -> None:
        if "text 7" in batch:
            raise ValueError(batch)

    install(monkeypatch, FaultyModel(fault, "recording", batch_size=10))
    await submit(queue, chunk(items(25)))
    async with worker(settings):

        async def told() -> bool:
            return [report["done"] for report in await queue.live_workers()] == [1]

        await eventually(told)
        (report,) = await queue.live_workers()
    serving = report["serving"]["recording"]
    recent = serving["recent"]
    # The item that is refused is found by halves: among 10, 5, 3, and alone.
    assert recent["errors"] == {"ValueError": 4}
    assert recent["inputs"] == serving["inputs"] == 24
    assert serving["calls"] == recent["calls"] + 4
    assert recent["model_seconds"] > 0
    assert (serving["batch_size"], serving["in_hand"], serving["in_hand_items"]) == (10, 0, 0)
