"""Items that kill whoever embeds them: they end as dead letters, the others are stored, and the work goes on."""

import asyncio
import contextlib
import math
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from typing import cast

import pytest

from embedq_core.errors import ModelMisconfigured
from embedq_core.items import Item
from embedq_core.priority import Priority
from embedq_core.settings import Settings
from embedq_jobs import Queue, job_id, parse_job_id
from embedq_jobs.names import lease_key
from embedq_jobs.scores import high_score
from embedq_jobs.starts import Begun
from embedq_plugins import EmbeddingModel
from embedq_store import Store
from embedq_worker.leases import LEASE_SECONDS
from embedq_worker.quarantine import SUSPECT_LOSSES, Quarantine
from embedq_worker.runner import Fault, ModelRunner, TransientFailure
from embedq_worker.service import ServiceOptions, serve
from support.chunks import RUN, chunk, install, items, submit
from support.command_line import TESTS
from support.deadly_plugin import DeadlyModel
from support.models import FaultyModel, RecordingModel, vector_of
from support.serving import start_worker
from support.waiting import BOUND_SECONDS, Eventually
from support.working import burst

PLUGIN = str(TESTS / "support" / "deadly_plugin.py")


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which deadly models write down what they are given, in this process and in its children."""
    path = tmp_path / "inputs"
    path.touch()
    monkeypatch.setenv("EMBEDQ_TEST_INPUTS", str(path))
    monkeypatch.setenv("EMBEDQ_PLUGINS", PLUGIN)
    return path


def given(inputs: Path) -> Counter[str]:
    """How often each content was given to a model."""
    return Counter(line.partition(" ")[2] for line in inputs.read_text().splitlines())


def processes(inputs: Path) -> set[str]:
    """The processes in which a model was called."""
    return {line.partition(" ")[0] for line in inputs.read_text().splitlines()}


def is_there(process: int) -> bool:
    """Whether a process lives."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # In a container nobody may wait for what has lost its parent.
    status = Path(f"/proc/{process}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


# --- real workers, really killed


async def test_items_that_kill_their_worker_end_as_dead_letters_and_all_others_are_stored(
    settings: Settings, queue: Queue, store: Store, inputs: Path, eventually: Eventually
) -> None:
    killers = [Item("k1", "kill 1", '{"a": 1}'), Item("k2", "abort 2")]
    good = items(62)
    mixed = [*good[:10], *killers, *good[10:40]]
    await submit(queue, chunk(mixed, model_id="deadly"), chunk(good[40:], 1, model_id="deadly"))

    async def complete() -> bool:
        return (await queue.runs.summary(RUN)).complete

    deaths = []
    worker = start_worker(settings, 0.3)

    async def complete_or_dead() -> bool:
        return worker.exitcode is not None or await complete()

    try:
        while not await complete():
            await eventually(complete_or_dead)
            if worker.exitcode is not None:
                deaths.append(worker.exitcode)
                worker = start_worker(settings, 0.3)
        # The one that was there at the end is well.
        worker.terminate()
        await asyncio.to_thread(worker.join, BOUND_SECONDS)
        assert worker.exitcode == 0
    finally:
        worker.kill()
        worker.join()
    assert len(deaths) == SUSPECT_LOSSES, deaths
    letters = {letter.id: letter for letter in await store.dead.letters()}
    assert {key: (letter.content, letter.metadata) for key, letter in letters.items()} == {
        item.id: (item.content, item.metadata) for item in killers
    }
    assert {letter.error for letter in letters.values()} == {"KilledWorker"}
    assert "signal SIGKILL" in letters["k1"].message
    assert "signal SIGABRT" in letters["k2"].message
    key = (await store.collection("pets")).id
    assert await store.count(key) == 62
    for item in good:
        assert await store.vector(key, item.id) == tuple(vector_of(item.content))
    counts = (await queue.runs.summary(RUN)).counts
    assert (counts.embedded, counts.failed, counts.done) == (62, 2, 64)
    # With each worker that died, once a level of halving, and the killers once more: alone, in a new process.
    most = SUSPECT_LOSSES + 1 + math.log2(8) + 1
    assert all(times <= most for times in given(inputs).values()), given(inputs)
    assert await queue.redis.exists(queue.names.starts(RUN)) == 0


@contextlib.asynccontextmanager
async def serving(settings: Settings, queue: Queue, store: Store) -> AsyncIterator[None]:
    """A worker in this process."""
    stop = asyncio.Event()
    task = asyncio.create_task(serve(settings, ServiceOptions(lease_seconds=5, grace_seconds=0.1), queue, store, stop))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(BOUND_SECONDS):
            await task


async def lose(queue: Queue, number: int, times: int = SUSPECT_LOSSES) -> None:
    """As if workers had died with a chunk."""
    await cast("Awaitable[int]", queue.redis.hincrby(queue.names.starts(RUN), str(number), times))


async def test_other_chunks_and_other_models_go_on_beside_a_chunk_in_quarantine(
    settings: Settings,
    queue: Queue,
    store: Store,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    install(monkeypatch, DeadlyModel(), RecordingModel())
    gate = tmp_path / "gate"
    suspect = [Item("waiting", f"wait {gate}"), *items(4095)]
    await submit(
        queue,
        chunk(suspect, model_id="deadly"),
        *(chunk(items(9, 5000 + 10 * n), n, model_id="deadly") for n in (1, 2)),
    )
    await submit(queue, chunk(items(5), run="other", collection="birds"))
    await lose(queue, 0)

    async def all_others() -> bool:
        return (await queue.runs.summary(RUN)).chunks_done == 2 and (await queue.runs.summary("other")).complete

    async def in_quarantine() -> bool:
        return any(str(gate) in content for content in given(inputs))

    async def complete() -> bool:
        return (await queue.runs.summary(RUN)).complete

    async with serving(settings, queue, store):
        await eventually(in_quarantine)
        await eventually(all_others)
        (apart,) = processes(inputs) - {str(os.getpid())}
        # Who stops all processes of a service, or of a terminal, means the worker.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(int(apart), number)
        gate.touch()
        await eventually(complete)
        assert processes(inputs) == {apart, str(os.getpid())}
        assert str(os.getpid()) in processes(inputs)
    assert (await queue.runs.summary(RUN)).counts.embedded == 4096 + 18
    assert await queue.redis.exists(queue.names.starts(RUN)) == 0


async def test_a_burst_leaves_a_suspect_chunk_too_whose_model_has_to_be_mended(
    settings: Settings, queue: Queue, store: Store, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedq_worker.lane.UNMENDED_SECONDS", 0.05)
    monkeypatch.setattr("embedq_worker.failures.MEND_SECONDS", 0.3)
    install(monkeypatch, DeadlyModel())
    key = tmp_path / "key"
    await submit(queue, chunk([Item("a", f"key {key}")], model_id="deadly"))
    await lose(queue, 0)
    with pytest.raises(ModelMisconfigured, match="deadly: the key is wrong; 1 chunk stays queued until"):
        await burst(settings, queue, store)
    assert str(os.getpid()) not in processes(inputs)
    key.touch()
    await burst(settings, queue, store)
    assert (await queue.runs.summary(RUN)).counts.embedded == 1


async def test_a_chunk_that_two_workers_died_with_is_not_suspect(
    settings: Settings,
    queue: Queue,
    store: Store,
    inputs: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    install(monkeypatch, DeadlyModel())
    await submit(queue, chunk(items(20), model_id="deadly"))
    await lose(queue, 0, SUSPECT_LOSSES - 1)

    async def complete() -> bool:
        return (await queue.runs.summary(RUN)).complete

    async with serving(settings, queue, store):
        await eventually(complete)
    assert processes(inputs) == {str(os.getpid())}


async def test_stopping_ends_a_quarantine_that_does_not_end_and_the_chunk_goes_back(
    settings: Settings,
    queue: Queue,
    store: Store,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    install(monkeypatch, DeadlyModel())
    await submit(queue, chunk([Item("1", f"wait {tmp_path / 'never'}")], model_id="deadly"))
    await lose(queue, 0)

    async def in_quarantine() -> bool:
        return any("never" in content for content in given(inputs))

    async with serving(settings, queue, store):
        await eventually(in_quarantine)
    (process,) = processes(inputs)
    assert not is_there(int(process))
    assert [(load.jobs, load.in_progress) for load in await queue.loads()] == [(1, 0)]
    assert await store.dead.letters() == []
    assert await begin(queue, 0, model_id="deadly") == {0: SUSPECT_LOSSES}, "the hand-back was orderly"


async def test_the_process_apart_ends_with_its_worker_whatever_it_is_doing(
    settings: Settings, queue: Queue, inputs: Path, tmp_path: Path, eventually: Eventually
) -> None:
    await submit(queue, chunk([Item("1", f"wait {tmp_path / 'never'}")], model_id="deadly"))
    await lose(queue, 0)
    worker = start_worker(settings, 5)

    async def in_quarantine() -> bool:
        return len(processes(inputs)) == 1

    async def gone() -> bool:
        return not is_there(int(min(processes(inputs))))

    try:
        await eventually(in_quarantine)
    finally:
        worker.kill()
        worker.join(BOUND_SECONDS)
    await eventually(gone)


# --- the count of attempts that never ended


async def test_attempts_that_ended_are_no_losses_however_they_ended(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr("embedq_worker.failures.PATIENCE", 1)
    monkeypatch.setattr("embedq_worker.chunk_jobs.BUG_SECONDS", 0.01)
    monkeypatch.setattr("embedq_worker.failures.FIRST_DELAY_SECONDS", 0.01)
    ways = iter([ConnectionError("away"), TimeoutError(), ConnectionError("away")])

    def fail(_: list[str | bytes]) -> None:
        for error in ways:
            raise error

    model = FaultyModel(fail)
    install(monkeypatch, model)
    await submit(queue, chunk(items(3), model_id="faulty"), chunk([], 1, model_id="faulty", after=[0]))

    async def complete() -> bool:
        return (await queue.runs.summary(RUN)).complete

    async with serving(settings, queue, store):
        await eventually(complete)
    assert len(model.batches) == 4, "handed back three times, and never embedded apart"
    assert await queue.redis.exists(queue.names.starts(RUN)) == 0


async def begin(queue: Queue, *numbers: int, model_id: str = "recording") -> dict[int, int]:
    """Begin attempts at chunks: of each that was to be had, how many earlier ones never ended."""
    begun = await queue.starts.begin(model_id, [job_id(RUN, number) for number in numbers], LEASE_SECONDS)
    return {parse_job_id(job)[1]: start.losses for job, start in begun.started.items()}


async def let_go(queue: Queue, number: int) -> None:
    """The lease of a chunk ends: it was handed back, or nobody renewed it."""
    await queue.redis.delete(lease_key(job_id(RUN, number)))


async def test_attempts_that_go_on_or_went_down_with_their_worker_are_losses_to_the_next(queue: Queue) -> None:
    await submit(queue, chunk(items(1)), chunk(items(1, 1), 1))
    job = job_id(RUN, 0)
    assert await begin(queue, 0, 1) == {0: 0, 1: 0}
    await let_go(queue, 0)
    assert await begin(queue, 0) == {0: 1}
    await queue.starts.end(job)
    await let_go(queue, 0)
    assert await begin(queue, 0) == {0: 1}
    # The first was only slow: whoever is done says so, and the other's end counts for nothing more.
    await queue.starts.forget(job)
    await queue.starts.end(job)
    await queue.starts.end(job_id(RUN, 1))
    assert await queue.redis.exists(queue.names.starts(RUN)) == 0


async def test_of_workers_that_are_after_a_chunk_at_once_one_gets_it_and_takes_none_for_dead(queue: Queue) -> None:
    await submit(queue, *(chunk(items(1, number), number) for number in range(3)))
    got = await asyncio.gather(*(begin(queue, 0, 1, 2) for _ in range(2 * SUSPECT_LOSSES)))
    assert [found for found in got if found] == [{0: 0, 1: 0, 2: 0}]


async def test_an_attempt_whose_beginning_is_asked_for_twice_begins_once(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command whose answer was lost is sent again."""
    await submit(queue, chunk(items(1)))
    monkeypatch.setattr("embedq_jobs.starts.secrets.token_hex", lambda _: "0123456789abcdef")
    assert await begin(queue, 0) == {0: 0}
    assert await begin(queue, 0) == {0: 0}
    await let_go(queue, 0)
    assert await begin(queue, 0) == {0: 1}, "it was counted once"


async def test_what_is_done_put_off_or_cancelled_begins_no_attempt(queue: Queue) -> None:
    await submit(queue, *(chunk(items(1, number), number) for number in range(2)))
    await submit(queue, chunk(items(1), run="another"), priority=Priority.HIGH)
    later, name = int(time.time() * 1000) + 60_000, queue.names.queue("recording")
    await queue.redis.zadd(name, {job_id(RUN, 0): later, job_id("another", 0): high_score(later)})
    await queue.redis.hset(queue.names.run(RUN), "cancelled", "1")  # type: ignore[misc]  # redis-py's own
    jobs = [job_id(RUN, 0), job_id(RUN, 1), job_id(RUN, 2), job_id("another", 0)]
    assert await queue.starts.begin("recording", jobs, LEASE_SECONDS) == Begun({}, [job_id(RUN, 1)])
    assert await queue.redis.keys("arq:in-progress:*") == []
    assert await queue.redis.exists(queue.names.starts(RUN)) == 0


async def test_the_count_is_kept_no_longer_than_the_run(queue: Queue) -> None:
    await submit(queue, chunk(items(1)))
    await begin(queue, 0)
    assert 29 * 24 * 3600 < await queue.redis.ttl(queue.names.starts(RUN)) <= 30 * 24 * 3600


# --- the process apart


class Answer:
    """What a quarantine gave for some contents."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[float, ...]] = {}
        self.faults: dict[int, Fault] = {}
        self.calls = 0


async def embed(runner: ModelRunner, contents: Sequence[str | bytes]) -> Answer:
    answer = Answer()
    async with asyncio.timeout(BOUND_SECONDS), contextlib.aclosing(runner.embed(contents)) as pieces:
        async for piece in pieces:
            answer.calls += piece.calls
            answer.faults |= {piece.start + offset: fault for offset, fault in piece.faults.items()}
            for offset, row in enumerate(piece.matrix):
                if offset not in piece.faults:
                    answer.rows[piece.start + offset] = tuple(row.tolist())
    return answer


async def quarantined(contents: Sequence[str | bytes], model: EmbeddingModel | None = None) -> Answer:
    quarantine = Quarantine(DeadlyModel() if model is None else model)
    try:
        async with quarantine.entered() as runner:
            return await embed(runner, contents)
    finally:
        await quarantine.stop(5)


async def test_what_the_process_apart_returns_is_what_the_model_returns(inputs: Path) -> None:
    contents: list[str | bytes] = ["print", "text", b"\x00\xff", "über", "nan", "refuse"]
    answer = await quarantined(contents)
    assert answer.rows == {number: tuple(vector_of(contents[number])) for number in range(4)}
    assert {index: (fault.error, fault.message) for index, fault in answer.faults.items()} == {
        4: ("BadVectors", "the model returned NaN or infinity, or a number beyond 32-bit floats"),
        5: ("LookupError", "this item is refused"),
    }
    assert len(processes(inputs)) == 1


async def test_a_line_that_goes_dead_in_the_process_apart_is_tried_again_and_blamed_on_no_item(
    inputs: Path, tmp_path: Path
) -> None:
    answer = await quarantined([f"unreachable {tmp_path / 'once'}", "leave"])
    assert list(answer.rows) == [0]
    assert [fault.error for fault in answer.faults.values()] == ["SystemExit"]
    assert len(processes(inputs)) == 1


async def test_an_item_that_is_harmless_in_a_process_that_did_nothing_before_is_stored(inputs: Path) -> None:
    answer = await quarantined(["text", "tired"], DeadlyModel(batch_size=1))
    assert (sorted(answer.rows), answer.faults) == ([0, 1], {})
    assert len(processes(inputs)) == 2


@pytest.mark.usefixtures("inputs")
async def test_a_dead_process_whose_own_children_live_on_is_seen_to_be_dead(tmp_path: Path) -> None:
    child = tmp_path / "child"
    answer = await quarantined([f"orphan {child}"])
    os.kill(int(child.read_text()), signal.SIGKILL)
    assert [(fault.error, "exit code 5" in fault.message) for fault in answer.faults.values()] == [
        ("KilledWorker", True)
    ]


async def test_calls_that_a_model_allows_at_once_share_one_process(inputs: Path) -> None:
    quarantine = Quarantine(DeadlyModel("deadly-whole", batch_size=None, concurrency=4))
    try:
        async with quarantine.entered() as runner:
            answers = await asyncio.gather(*(embed(runner, [f"text {n}"]) for n in range(4)))
    finally:
        await quarantine.stop(5)
    assert [answer.rows[0] for answer in answers] == [tuple(vector_of(f"text {n}")) for n in range(4)]
    assert len(processes(inputs)) == 1


@pytest.mark.usefixtures("inputs")
async def test_a_model_that_can_t_be_loaded_apart_kills_no_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedq_worker.failures.PATIENCE", 1)
    with pytest.raises(TransientFailure, match="could not be started: there is no model 'recording-elsewhere'"):
        await quarantined(["text"], RecordingModel("recording-elsewhere"))
