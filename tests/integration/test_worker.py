"""Workers that are killed, and a Redis that is: nothing is lost, nothing is doubled, the work goes on by itself."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from embedq_core.counts import Counts
from embedq_core.settings import Settings, load_settings
from embedq_jobs import Queue, job_id, open_queue
from embedq_jobs.names import lease_key
from embedq_store import Store
from embedq_worker.picking import ChunkWorker
from embedq_worker.service import ServiceOptions, serve
from support import forked
from support.chunks import RUN, chunk, install, items, submit
from support.models import SlowModel
from support.servers import MortalRedis
from support.slow_worker import start_slow_worker
from support.started import Started
from support.waiting import BOUND_SECONDS, Eventually

LEASE_SECONDS = 0.6
# With leases of 15 seconds even.
PROMISED_SECONDS = 20


class WorkerProcess:
    """A worker in a process of its own."""

    def __init__(self, settings: Settings, log: Path, seconds: float, lease: float = LEASE_SECONDS) -> None:
        self.process = start_slow_worker(settings, log, seconds, lease)
        self._log = log

    @property
    def inputs(self) -> list[str]:
        """What the model was given so far."""
        return self._log.read_text().splitlines() if self._log.exists() else []


@contextlib.contextmanager
def worker_process(
    settings: Settings, log: Path, seconds: float = 0.05, lease: float = LEASE_SECONDS
) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(settings, log, seconds, lease)
    try:
        yield worker
    finally:
        worker.process.kill()
        worker.process.join(BOUND_SECONDS)


def stored(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database)) as db:
        try:
            return int(db.execute("SELECT count(*) FROM embeddings").fetchone()[0])
        except sqlite3.OperationalError:  # not made yet
            return 0


async def until_complete(queue: Queue, eventually: Eventually) -> None:
    async def done() -> bool:
        return (await queue.runs.summary(RUN)).complete

    await eventually(done)


# --- workers


async def test_the_chunk_of_a_worker_that_was_killed_is_taken_over_and_what_was_committed_is_not_paid_again(
    settings: Settings, queue: Queue, tmp_path: Path, eventually: Eventually
) -> None:
    await submit(queue, chunk(items(40)))

    async def some_are_stored() -> bool:
        return stored(settings.database) >= 12

    with worker_process(settings, tmp_path / "first") as first:
        await eventually(some_are_stored)
        first.process.kill()
        first.process.join(BOUND_SECONDS)
        killed = time.monotonic()
        committed = stored(settings.database)
    assert committed < 40
    assert await queue.redis.pttl(lease_key(job_id(RUN, 0))) <= LEASE_SECONDS * 1000, "the lease of the dead ends"
    with worker_process(settings, tmp_path / "second", seconds=0) as second:
        await until_complete(queue, eventually)
        assert time.monotonic() - killed < PROMISED_SECONDS
    assert len(second.inputs) == 40 - committed
    assert stored(settings.database) == 40
    counts = (await queue.runs.summary(RUN)).counts
    assert (counts.embedded, counts.done, counts.unchanged) == (40, 40, 0)


async def test_workers_that_are_killed_one_after_the_other_lose_nothing(
    settings: Settings, queue: Queue, tmp_path: Path, eventually: Eventually
) -> None:
    await submit(queue, *(chunk(items(20, first=20 * number), number) for number in range(6)))
    for round_ in range(2):  # a third would make the chunks suspect
        enough = stored(settings.database) + 12

        async def some_more(enough: int = enough) -> bool:
            return stored(settings.database) >= enough

        with worker_process(settings, tmp_path / str(round_), seconds=0.02, lease=0.2) as worker:
            await eventually(some_more)
            worker.process.kill()

    async def the_queue_is_empty() -> bool:
        # A job leaves arq's queue right after its counts are in the ledger.
        return [(load.jobs, load.items, load.bytes) for load in await queue.loads()] == [(0, 0, 0)]

    with worker_process(settings, tmp_path / "last", seconds=0, lease=0.2):
        await until_complete(queue, eventually)
        await eventually(the_queue_is_empty)
    assert stored(settings.database) == 120
    counts = (await queue.runs.summary(RUN)).counts
    assert (counts.done, counts.failed, counts.embedded) == (120, 0, 120)


async def test_two_processes_on_one_queue_pay_for_each_text_once(
    settings: Settings, queue: Queue, tmp_path: Path, eventually: Eventually
) -> None:
    await submit(queue, *(chunk(items(10, first=10 * number), number) for number in range(30)))
    with (
        worker_process(settings, tmp_path / "one", seconds=0.002, lease=15) as one,
        worker_process(settings, tmp_path / "other", seconds=0.002, lease=15) as other,
    ):
        await until_complete(queue, eventually)
    assert sorted([*one.inputs, *other.inputs]) == sorted(str(item.content) for item in items(300))
    assert stored(settings.database) == 300


async def test_sigterm_hands_back_at_once_and_the_process_ends_well(
    settings: Settings, queue: Queue, tmp_path: Path, eventually: Eventually
) -> None:
    await submit(queue, *(chunk(items(20, first=20 * number), number) for number in range(3)))
    with worker_process(settings, tmp_path / "first", lease=15) as first:

        async def working() -> bool:
            return len(first.inputs) >= 4

        await eventually(working)
        first.process.terminate()
        await asyncio.to_thread(first.process.join, BOUND_SECONDS)
        assert first.process.exitcode == 0
    committed = stored(settings.database)
    assert committed == len(first.inputs), "what was begun has been committed"
    assert [(load.jobs > 0, load.in_progress) for load in await queue.loads()] == [(True, 0)]
    with worker_process(settings, tmp_path / "second", seconds=0) as second:
        await until_complete(queue, eventually)
    assert len(second.inputs) == 60 - committed
    assert (await queue.runs.summary(RUN)).counts.embedded == 60


# --- Redis


@pytest.fixture
def mortal_redis() -> Iterator[MortalRedis]:
    with tempfile.TemporaryDirectory(prefix="embedq-test-") as folder:
        server = MortalRedis(Path(folder))
        try:
            yield server
        finally:
            server.kill()


class ServingModel(SlowModel):
    """Slow enough for things to happen meanwhile."""

    def __init__(self) -> None:
        super().__init__("recording", batch_size=5, seconds=0.01)

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterator[list[float]]:
        return iter(list(super().embed_batch(items)))


async def test_when_redis_is_killed_and_comes_back_the_work_goes_on_by_itself(
    mortal_redis: MortalRedis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    monkeypatch.setattr("embedq_worker.chunk_jobs.STORE_SECONDS", 0.05)
    model = ServingModel()
    install(monkeypatch, model)
    settings = load_settings(database=tmp_path / "embeddings.db", redis_url=mortal_redis.url)
    stop = asyncio.Event()
    async with open_queue(settings) as queue, await Store.open(settings.database) as store:
        await submit(queue, *(chunk(items(25, first=25 * number), number) for number in range(20)))
        serving = asyncio.create_task(serve(settings, ServiceOptions(lease_seconds=0.5), queue, store, stop))
        for enough in (50, 200):

            async def some_more(enough: int = enough) -> bool:
                return model.inputs >= enough

            await eventually(some_more)
            mortal_redis.kill()
            await asyncio.to_thread(mortal_redis.start)
        await until_complete(queue, eventually)
        assert not serving.done()
        stop.set()
        await serving
        assert (await queue.runs.summary(RUN)).counts.done == 500
        assert [(load.jobs, load.items) for load in await queue.loads()] == [(0, 0)]
    assert model.inputs == 500
    assert stored(settings.database) == 500


async def test_a_worker_says_once_that_redis_is_away_and_waits_for_it(
    mortal_redis: MortalRedis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    install(monkeypatch, ServingModel())
    # Each attempt to come back takes longer than this, as with a server from which nothing at all is heard.
    monkeypatch.setattr("embedq_worker.lane.RECONNECT_SECONDS", (0.001,))
    attempts, main = list[float](), ChunkWorker.main

    async def counted(self: ChunkWorker) -> None:
        attempts.append(time.monotonic())
        await main(self)

    monkeypatch.setattr(ChunkWorker, "main", counted)
    settings = load_settings(database=tmp_path / "embeddings.db", redis_url=mortal_redis.url)
    stop = asyncio.Event()
    async with open_queue(settings) as queue, await Store.open(settings.database) as store:
        await submit(queue, chunk(items(5)))
        serving = asyncio.create_task(serve(settings, ServiceOptions(), queue, store, stop))
        await until_complete(queue, eventually)
        mortal_redis.kill()

        async def said() -> bool:
            return "waiting for it to come back" in caplog.text and len(attempts) > 3

        await eventually(said)
        await asyncio.to_thread(mortal_redis.start)
        await submit(queue, chunk(items(5, first=5), run="afterwards"))

        async def done() -> bool:
            return (await queue.runs.summary("afterwards")).complete

        await eventually(done)
        stop.set()
        await serving
    assert caplog.text.count("waiting for it to come back") == 1
    assert str(mortal_redis.socket) in caplog.text


async def test_a_worker_can_be_stopped_while_redis_is_away(
    mortal_redis: MortalRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr("embedq_worker.heartbeat.GOODBYE_SECONDS", 0.1)
    model = ServingModel()
    install(monkeypatch, model)
    settings = load_settings(database=tmp_path / "embeddings.db", redis_url=mortal_redis.url)
    stop = asyncio.Event()
    async with open_queue(settings) as queue, await Store.open(settings.database) as store:
        await submit(queue, chunk(items(100)))
        serving = asyncio.create_task(serve(settings, ServiceOptions(lease_seconds=0.5), queue, store, stop))

        async def working() -> bool:
            return model.inputs >= 10

        await eventually(working)
        mortal_redis.kill()
        stop.set()
        async with asyncio.timeout(BOUND_SECONDS):
            await serving
    assert stored(settings.database) == model.inputs, "what was paid for is kept"
    await asyncio.to_thread(mortal_redis.start)
    async with open_queue(settings) as queue, await Store.open(settings.database) as store:
        async with asyncio.timeout(BOUND_SECONDS):
            await serve(settings, ServiceOptions(burst=True), queue, store, asyncio.Event())
        assert (await queue.runs.summary(RUN)).counts == Counts(embedded=100, calls=20, inputs=100)
    assert model.inputs == 100


async def test_when_the_memory_of_redis_is_full_it_is_said_and_the_work_goes_on_when_there_is_room(
    mortal_redis: MortalRedis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    install(monkeypatch, ServingModel())
    settings = load_settings(database=tmp_path / "embeddings.db", redis_url=mortal_redis.url)
    stop = asyncio.Event()
    async with open_queue(settings) as queue, await Store.open(settings.database) as store:
        await submit(queue, chunk(items(20)))
        await queue.redis.config_set("maxmemory", 1)
        serving = asyncio.create_task(serve(settings, ServiceOptions(), queue, store, stop))

        async def said() -> bool:
            return "is out of memory: raise its maxmemory, or let workers catch up; waiting" in caplog.text

        await eventually(said)
        await queue.redis.config_set("maxmemory", 0)
        await until_complete(queue, eventually)
        stop.set()
        await serving
    assert stored(settings.database) == 20


async def test_a_burst_outlives_a_redis_that_goes_and_comes(
    mortal_redis: MortalRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr("embedq_worker.chunk_jobs.STORE_SECONDS", 0.05)
    model = ServingModel()
    install(monkeypatch, model)
    settings = load_settings(database=tmp_path / "embeddings.db", redis_url=mortal_redis.url)
    options = ServiceOptions(burst=True, lease_seconds=0.5)
    async with open_queue(settings) as queue, await Store.open(settings.database) as store:
        await submit(queue, *(chunk(items(25, first=25 * number), number) for number in range(6)))
        serving = asyncio.create_task(serve(settings, options, queue, store, asyncio.Event()))

        async def working() -> bool:
            return model.inputs >= 10

        await eventually(working)
        mortal_redis.kill()
        await asyncio.to_thread(mortal_redis.start)
        async with asyncio.timeout(BOUND_SECONDS):
            await serving
        assert (await queue.runs.summary(RUN)).counts.done == 150
    assert stored(settings.database) == model.inputs == 150


# --- several processes under one


def command_line(settings: Settings, directory: Path, *arguments: str) -> Started:
    assert settings.redis_url is not None
    environment = {
        **os.environ,
        "EMBEDQ_DATABASE": str(settings.database),
        "EMBEDQ_REDIS_URL": str.__str__(settings.redis_url),
    }
    return Started(forked.embedq, arguments, directory, environment)


async def pids(queue: Queue) -> set[int]:
    return {int(json.loads(report)["pid"]) for report in await queue.worker_reports()}


async def test_a_process_that_is_killed_is_replaced_and_all_end_with_the_one_above_them(
    settings: Settings, queue: Queue, tmp_path: Path, eventually: Eventually
) -> None:
    above = command_line(settings, tmp_path, "worker", "--processes", "2")
    try:

        async def two_work() -> bool:
            return len(await pids(queue)) == 2

        await eventually(two_work)
        before = await pids(queue)
        os.kill(min(before), signal.SIGKILL)

        async def another_works() -> bool:
            return bool(await pids(queue) - before)

        await eventually(another_works)
    finally:
        above.terminate()
        _, said = await asyncio.to_thread(above.communicate)
    assert above.returncode == 0, said
    assert await pids(queue) == {min(before)}, "all others have said good-bye"


def test_a_worker_that_can_t_start_is_not_started_again_and_again(settings: Settings, tmp_path: Path) -> None:
    process = command_line(settings, tmp_path, "worker", "--processes", "2", "-m", "no-such-model")
    _, said = process.communicate(timeout=BOUND_SECONDS)
    assert process.returncode == 2
    assert 1 <= said.count("there is no model 'no-such-model'") <= 2
