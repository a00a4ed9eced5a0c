"""Workers whose model is behind HTTP: through the real queue, whatever the server does, and within its limits."""

import asyncio
import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import embedq_worker.failures
import embedq_worker.limiting
import embedq_worker.service
from embedq_core.errors import ModelUnavailable
from embedq_core.items import Item
from embedq_core.limits import Limits
from embedq_core.settings import Settings
from embedq_core.vectors import encode
from embedq_jobs import Queue, open_queue
from embedq_plugins.http.model import HttpModel
from embedq_plugins.http.options import HttpOptions
from embedq_store import Store
from embedq_worker.limiting import SharedLimiter
from embedq_worker.service import ServiceOptions, serve
from support.chunks import RUN, chunk, install, items, submit
from support.embedding_server import Answer, Call, embedding_server, refusing, well
from support.models import vector_of
from support.serving import start_worker
from support.waiting import BOUND_SECONDS, Eventually

ITEMS, BATCH, PER_SECOND = 10_000, 100, 50

# How much later than its time a call may arrive on a busy machine; the next one comes at once.
LATE_SECONDS = 0.2


class Storm:
    """Behaves well, but for a stall, a storm of 429, and a death, each once."""

    def __init__(self) -> None:
        self.accepted: list[Call] = []
        self.storm_until = 0.0
        self.during_storm = 0
        self.dying = threading.Event()
        self.released = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, call: Call) -> Answer:
        if call.number == 10:
            # Longer than the worker waits.
            self.released.wait(BOUND_SECONDS)
        with self._lock:
            if call.number == 25:
                self.storm_until = call.begun + 0.3
            if call.begun < self.storm_until:
                self.during_storm += 1
                left = self.storm_until - call.begun
                return refusing(429, "slow down", retry_after=f"{left:.3f}")
            if call.number == 60:
                self.dying.set()
            self.accepted.append(call)
        return well(call)


def test_a_stall_a_storm_and_a_death_lose_nothing_break_no_limit_and_leave_batches_full(
    settings: Settings, tmp_path: Path
) -> None:
    storm, file = Storm(), tmp_path / "settings.toml"
    with embedding_server(storm) as server:
        file.write_text(
            f'[models.remote]\nkind = "http"\nmodel = "m"\nbase_url = "{server.url}"\nbatch_size = {BATCH}\n'
            f"concurrency = 4\nrequests_per_minute = {60 * PER_SECOND}\ntimeout_seconds = 0.5\n"
        )
        workers = [start_worker(settings, 5, EMBEDQ_SETTINGS=str(file)) for _ in range(2)]
        mending = threading.Thread(target=_mend, args=(storm.dying, server.kill, server.start))
        mending.start()
        try:
            contents = items(ITEMS)
            asyncio.run(_submitted_and_done(settings, contents))
        finally:
            storm.released.set()
            storm.dying.set()
            mending.join(BOUND_SECONDS)
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.join(BOUND_SECONDS)
                worker.close()
        begun = sorted(call.begun for call in server.calls)
    with contextlib.closing(sqlite3.connect(settings.database)) as db:
        stored = dict(db.execute("SELECT id, embedding FROM embeddings"))
        assert db.execute("SELECT count(*) FROM embedq_dead").fetchone() == (0,)
    assert stored == {item.id: encode(vector_of(item.content)) for item in contents}
    assert len(begun) - 1 <= (begun[-1] - begun[0] + LATE_SECONDS) * PER_SECOND
    for earlier, later in zip(begun, begun[20:], strict=False):
        assert later - earlier > 20 / PER_SECOND - LATE_SECONDS
    in_hand = 2 * 4
    assert storm.during_storm <= in_hand + 1, "who is asked for patience is patient, in every worker"
    sizes = [len(call.texts) for call in storm.accepted]
    assert sum(sizes) <= ITEMS + in_hand * BATCH, "only what was in hand at the death is paid for again"
    assert sum(sizes) / len(sizes) >= 0.95 * BATCH


def _mend(dying: threading.Event, kill: Callable[[], None], start: Callable[[], None]) -> None:
    """Kill the endpoint when it is time, and start it again when its absence has been noticed."""
    if dying.wait(BOUND_SECONDS):
        kill()
        time.sleep(0.2)  # no condition to wait for: the workers are other processes
        start()


async def _submitted_and_done(settings: Settings, contents: Sequence[Any]) -> None:
    cut = [contents[start : start + 2048] for start in range(0, len(contents), 2048)]
    async with open_queue(settings) as queue:
        await submit(queue, *(chunk(part, number, model_id="remote") for number, part in enumerate(cut)))
        async with asyncio.timeout(BOUND_SECONDS):
            while not (await queue.runs.summary(RUN)).complete:  # noqa: ASYNC110 - it is in other processes
                await asyncio.sleep(0.02)
        summary = await queue.runs.summary(RUN)
        assert (summary.counts.embedded, summary.counts.failed) == (ITEMS, 0)


# --- one worker, in this process


@contextlib.asynccontextmanager
async def working(settings: Settings, monkeypatch: pytest.MonkeyPatch, model: HttpModel) -> AsyncIterator[None]:
    """A worker with `model`, which looks often."""
    install(monkeypatch, model)
    monkeypatch.setattr(embedq_worker.service, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr("embedq_worker.heartbeat.HEARTBEAT_SECONDS", 0.05)
    stop = asyncio.Event()
    async with open_queue(settings) as queue, await Store.open(settings.database) as store:
        serving = asyncio.create_task(serve(settings, ServiceOptions(lease_seconds=1), queue, store, stop))
        try:
            yield
        finally:
            stop.set()
            async with asyncio.timeout(BOUND_SECONDS):
                await serving
            model.close()


async def test_a_wrong_key_buries_nothing_is_said_once_and_shown_and_work_goes_on_when_it_is_mended(
    settings: Settings,
    queue: Queue,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    eventually: Eventually,
) -> None:
    monkeypatch.setattr(embedq_worker.failures, "MEND_SECONDS", 0.3)
    monkeypatch.setenv("MY_KEY", "right")
    with embedding_server(lambda _: refusing(401, "Incorrect API key provided: right")) as server:
        options = HttpOptions(model="m", base_url=server.url, key_env="MY_KEY", batch_size=10, concurrency=1)
        await submit(queue, *(chunk(items(50, 50 * number), number, model_id="remote") for number in range(4)))
        async with working(settings, monkeypatch, HttpModel("remote", options)):

            async def shown() -> bool:
                reports = await queue.live_workers()
                return any("refuses the key in MY_KEY" in str(report["troubles"].get("remote")) for report in reports)

            async def tried_twice() -> bool:
                return len(server.calls) >= 2

            await eventually(shown)
            await eventually(tried_twice)
            assert len(server.calls) <= 3, "one call each time, whatever waits"
            assert await store.dead.summary() == []
            server.behave = well

            async def complete() -> bool:
                return (await queue.runs.summary(RUN)).complete

            await eventually(complete)
            assert (await queue.runs.summary(RUN)).counts.embedded == 200

            async def forgotten() -> bool:
                return not any(report["troubles"] for report in await queue.live_workers())

            await eventually(forgotten)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert 1 <= len(errors) <= 3
    assert all("it refuses the key in MY_KEY: check it; what is queued is kept" in error for error in errors)


async def test_a_text_that_is_too_long_is_a_dead_letter_with_the_reason_and_costs_the_others_nothing(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    def behave(call: Call) -> Answer:
        too_long = any(len(text) > 1000 for text in call.texts)
        return refusing(400, "maximum context length is 250 tokens") if too_long else well(call)

    with embedding_server(behave) as server:
        contents = [*items(30), Item("long", "x" * 2000), *items(30, 30)]
        options = HttpOptions(model="m", base_url=server.url, max_input_tokens=250, batch_size=64, encoding="base64")
        await submit(queue, chunk(contents, model_id="remote"))
        async with working(settings, monkeypatch, HttpModel("remote", options)):

            async def complete() -> bool:
                return (await queue.runs.summary(RUN)).complete

            await eventually(complete)
        (letter,) = await store.dead.letters()
        assert (letter.id, letter.error) == ("long", "ContentRefused")
        assert "maximum context length is 250 tokens (about 501 tokens; the model takes 250:" in letter.message
        assert sorted(len(call.texts) for call in server.calls) == [1, 1, 30, 30], "and one plain text"


# --- the limiter that workers share


async def test_threads_of_several_workers_take_turns(queue: Queue) -> None:
    limits = Limits(requests_per_minute=6000)
    limiters = [SharedLimiter(limits, queue.pace("remote")) for _ in range(2)]
    began = time.monotonic()
    await asyncio.gather(*(asyncio.to_thread(limiters[number % 2].wait, 1) for number in range(21)))
    assert time.monotonic() - began >= 0.2
    await asyncio.to_thread(limiters[0].hold, 0.2)
    await asyncio.to_thread(limiters[1].wait, 1)
    assert time.monotonic() - began >= 0.4


async def test_while_redis_does_not_answer_a_worker_keeps_the_limit_by_itself(queue: Queue) -> None:
    limiter = SharedLimiter(Limits(1200, 1200), queue.pace("remote"))
    await queue.redis.set(queue.names.limit("remote"), "of another type")
    began = time.monotonic()
    for _ in range(3):
        await asyncio.to_thread(limiter.wait, 1)
    assert time.monotonic() - began >= 0.1
    await asyncio.to_thread(limiter.correct, 1, 10)
    await asyncio.to_thread(limiter.hold, 30)
    waiting = asyncio.create_task(asyncio.to_thread(limiter.wait, 1))
    limiter.close()
    async with asyncio.timeout(BOUND_SECONDS):
        with pytest.raises(ModelUnavailable, match="stopping"):
            await waiting


async def test_a_redis_that_is_slow_and_a_worker_that_has_ended_keep_no_call_waiting(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedq_worker.limiting, "_PATIENCE_SECONDS", 0.05)

    def in_a_loop_that_is_stuck() -> SharedLimiter:
        """As long as nothing goes on in it, Redis does not answer."""

        async def main() -> SharedLimiter:
            async with open_queue(settings) as queue:
                limiter = SharedLimiter(Limits(), queue.pace("remote"))
                waiting = threading.Thread(target=limiter.wait, args=(1,))
                waiting.start()
                waiting.join(BOUND_SECONDS)
                assert not waiting.is_alive()
                # What was given up ends before the connections do.
                assert await queue.length("remote") == 0
                return limiter

        return asyncio.run(main())

    limiter = await asyncio.to_thread(in_a_loop_that_is_stuck)
    with pytest.raises(ModelUnavailable, match="the worker has stopped"):
        limiter.wait(1)


async def test_a_stop_does_not_wait_for_a_turn_and_what_waited_goes_back(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    with embedding_server() as server:
        options = HttpOptions(model="m", base_url=server.url, requests_per_minute=1, batch_size=5)
        model = HttpModel("remote", options)
        before = model.limiter
        await submit(queue, chunk(items(20), model_id="remote"))
        async with working(settings, monkeypatch, model):

            async def one() -> bool:
                return len(server.calls) == 1 and await queue.bytes_queued("remote") > 0

            await eventually(one)
            assert isinstance(model.limiter, SharedLimiter)
        assert model.limiter is before
        assert len(server.calls) == 1
        assert await queue.length("remote") == 1
