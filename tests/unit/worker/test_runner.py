"""One model: full batches across requests, in real threads, and what becomes of errors."""

import asyncio
import contextlib
import itertools
import math
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedq_core.errors import ModelMisconfigured, ModelUnavailable, RateLimited
from embedq_core.vectors import Matrix
from embedq_plugins import EmbeddingModel
from embedq_worker.failures import MEND_SECONDS, PATIENCE
from embedq_worker.runner import Fault, ModelRunner, Stopping, TransientFailure
from support.models import FaultyModel, RecordingModel, raising, vector_of
from support.waiting import BOUND_SECONDS

TEXTS = [f"text {number}" for number in range(1000)]


@contextlib.asynccontextmanager
async def running(model: EmbeddingModel) -> AsyncIterator[ModelRunner]:
    """A runner that waits for nothing before it tries again."""
    runner = ModelRunner(model, sleep=lambda _: asyncio.sleep(0))
    try:
        yield runner
    finally:
        await runner.stop(5)


class Answer:
    """What `embed` gave for a request, put together."""

    def __init__(self, count: int) -> None:
        self.rows: list[list[float] | None] = [None] * count
        self.faults: dict[int, Fault] = {}
        self.calls = 0

    def add(self, start: int, matrix: Matrix, faults: dict[int, Fault], calls: int) -> None:
        for offset, row in enumerate(matrix):
            assert self.rows[start + offset] is None, "each content is answered once"
            self.rows[start + offset] = row.tolist()
        self.faults |= {start + offset: fault for offset, fault in faults.items()}
        self.calls += calls


async def embed(runner: ModelRunner, contents: list[str], answer: Answer | None = None) -> Answer:
    answer = answer or Answer(len(contents))
    async with asyncio.timeout(BOUND_SECONDS), contextlib.aclosing(runner.embed(contents)) as pieces:
        async for piece in pieces:
            answer.add(piece.start, piece.matrix, piece.faults, piece.calls)
    return answer


class GatedModel(RecordingModel):
    """A call ends when it is let go, so that a test can look while it goes on."""

    def __init__(self, batch_size: int | None = 1, concurrency: int = 1) -> None:
        super().__init__("gated", batch_size)
        self.concurrency = concurrency
        self.gate = threading.Event()
        self.at_once = self.most_at_once = 0

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterable[list[float]]:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.gate.wait(BOUND_SECONDS)
        with self._lock:
            self.at_once -= 1
        return super().embed_batch(items)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_SECONDS):
        while not condition():  # noqa: ASYNC110 - the condition comes true in another thread
            await asyncio.sleep(0.001)


# --- batches


async def test_each_content_gets_its_own_vector_whatever_batch_it_was_in() -> None:
    async with running(RecordingModel(batch_size=7)) as runner:
        answer = await embed(runner, TEXTS[:100])
    assert answer.rows == [vector_of(text) for text in TEXTS[:100]]
    assert not answer.faults


@pytest.fixture
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives within one step of the event loop goes together, however long the machine takes for it."""
    monkeypatch.setattr("embedq_worker.batcher.MAX_LINGER_SECONDS", BOUND_SECONDS)


@pytest.mark.usefixtures("_no_hurry")
async def test_batches_are_full_across_requests() -> None:
    model = RecordingModel(batch_size=32)
    async with running(model) as runner:
        answers = await asyncio.gather(*(embed(runner, [text]) for text in TEXTS[:200]))
    assert [len(batch) for batch in model.batches] == [32] * 6 + [8]
    assert [answer.rows[0] for answer in answers] == [vector_of(text) for text in TEXTS[:200]]


@pytest.mark.usefixtures("_no_hurry")
async def test_a_call_is_counted_once_among_the_requests_that_share_it() -> None:
    model = RecordingModel(batch_size=32)
    async with running(model) as runner:
        answers = await asyncio.gather(*(embed(runner, TEXTS[start : start + 7]) for start in range(0, 210, 7)))
    assert sum(answer.calls for answer in answers) == len(model.batches) == math.ceil(210 / 32)


async def test_without_a_batch_size_a_request_is_one_call() -> None:
    model = RecordingModel(batch_size=None)
    async with running(model) as runner:
        await asyncio.gather(embed(runner, TEXTS[:100]), embed(runner, TEXTS[100:103]))
    assert [len(batch) for batch in model.batches] == [100, 3]


async def test_nothing_to_embed_is_no_call() -> None:
    model = RecordingModel()
    async with running(model) as runner:
        assert (await embed(runner, [])).rows == []
        assert len((await embed(runner, ["after it"])).rows) == 1
    assert model.batches == [["after it"]]


@given(st.none() | st.integers(1, 9), st.lists(st.integers(0, 20), max_size=8))
@settings(max_examples=40)
def test_whatever_the_sizes_all_are_answered_and_nothing_is_embedded_twice(
    batch_size: int | None, sizes: list[int]
) -> None:
    model = RecordingModel(batch_size=batch_size)

    async def main() -> list[Answer]:
        async with running(model) as runner:
            requests = [[f"{number}.{index}" for index in range(size)] for number, size in enumerate(sizes)]
            return await asyncio.gather(*(embed(runner, request) for request in requests))

    answers = asyncio.run(main())
    assert [[*answer.rows] for answer in answers] == [
        [vector_of(f"{number}.{index}") for index in range(size)] for number, size in enumerate(sizes)
    ]
    assert model.inputs == sum(sizes)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_as_many_calls_go_on_at_once_as_the_model_likes(concurrency: int) -> None:
    model = GatedModel(batch_size=2, concurrency=concurrency)
    async with running(model) as runner:
        embedding = asyncio.create_task(embed(runner, TEXTS[:20]))
        await until(lambda: model.at_once == concurrency)
        assert runner.busy
        model.gate.set()
        await embedding
    assert model.most_at_once == concurrency
    assert not runner.busy


async def test_the_event_loop_runs_on_while_the_model_works() -> None:
    model = GatedModel()
    async with running(model) as runner:
        embedding = asyncio.create_task(embed(runner, ["a"]))
        await until(lambda: model.at_once == 1)
        assert not embedding.done()
        model.gate.set()
        assert (await embedding).rows == [vector_of("a")]


async def test_the_speed_of_the_model_is_known_after_the_first_batch() -> None:
    async with running(RecordingModel()) as runner:
        assert runner.items_per_second == 0
        await embed(runner, TEXTS[:10])
        assert runner.items_per_second > 0


class ReturningModel(EmbeddingModel):
    """Returns whatever its function makes of the batch."""

    model_id = "returning"

    def __init__(self, function: Callable[[list[Any]], Any]) -> None:
        self._function = function

    def embed_batch(self, items: Iterable[str | bytes]) -> Any:
        return self._function(list(items))


def lazily(batch: list[str]) -> Iterator[list[float]]:
    assert threading.current_thread() is not threading.main_thread(), "a generator is consumed in the thread"
    for text in batch:
        yield vector_of(text)


@pytest.mark.parametrize(
    "function",
    [
        lazily,
        lambda batch: [vector_of(text) for text in batch],
        lambda batch: map(vector_of, batch),
        lambda batch: tuple(tuple(vector_of(text)) for text in batch),
        lambda batch: (iter(vector_of(text)) for text in batch),
        lambda batch: np.array([vector_of(text) for text in batch]),
        lambda batch: np.array([vector_of(text) for text in batch], dtype=np.float64, order="F"),
        lambda batch: (np.array(vector_of(text), dtype=np.float32) for text in batch),
    ],
)
async def test_a_model_may_return_lists_generators_or_arrays(function: Callable[[list[Any]], Any]) -> None:
    async with running(ReturningModel(function)) as runner:
        answer = await embed(runner, TEXTS[:5])
    assert answer.rows == [vector_of(text) for text in TEXTS[:5]]


# --- errors


def poisonous(places: Iterable[int], count: int) -> list[str]:
    bad = set(places)
    return [f"poison {number}" if number in bad else f"text {number}" for number in range(count)]


@pytest.mark.parametrize("places", [[0], [63], [17], [5, 6], [0, 31, 32, 63], [1, 9, 17, 25, 33, 41, 49, 57]])
async def test_bisection_finds_the_bad_items_and_spares_the_others(places: list[int]) -> None:
    model = FaultyModel(raising, batch_size=64)
    async with running(model) as runner:
        answer = await embed(runner, poisonous(places, 64))
    assert sorted(answer.faults) == places
    assert [row for index, row in enumerate(answer.rows) if index not in places] == [
        vector_of(f"text {index}") for index in range(64) if index not in places
    ]
    k, n = len(places), 64
    assert len(model.batches) <= 2 * k * math.log2(n) + 3
    assert answer.calls == len(model.batches)


@given(st.data(), st.integers(1, 40), st.integers(1, 20))
@settings(max_examples=40)
def test_bisection_buries_exactly_the_bad_whatever_requests_share_a_batch(
    data: st.DataObject, count: int, batch_size: int
) -> None:
    places = data.draw(st.sets(st.integers(0, count - 1), max_size=5))
    cuts = sorted(data.draw(st.sets(st.integers(1, count), max_size=4)) | {0, count})
    contents = poisonous(places, count)

    async def main() -> list[Answer]:
        async with running(FaultyModel(raising, batch_size=batch_size)) as runner:
            requests = [contents[start:stop] for start, stop in itertools.pairwise(cuts)]
            return await asyncio.gather(*(embed(runner, request) for request in requests))

    answers = asyncio.run(main())
    found = {start + index for start, answer in zip(cuts, answers, strict=False) for index in answer.faults}
    assert found == places
    assert all(row is not None for answer in answers for row in answer.rows)


async def test_a_fault_says_which_error_it_was_what_it_said_and_how_often_it_was_tried() -> None:
    async with running(FaultyModel(raising, batch_size=8)) as runner:
        answer = await embed(runner, poisonous([3], 8))
    assert answer.faults == {3: Fault("ValueError", "this model can't take poison", 4)}


@pytest.mark.parametrize("change", [-1, 1])
async def test_vectors_that_can_t_be_attributed_are_never_attributed(change: int) -> None:
    def fault(batch: list[str | bytes]) -> list[list[float]] | None:
        if not any("bad" in str(item) for item in batch):
            return None
        return [vector_of(item) for item in batch[1:]] if change < 0 else [vector_of(item) for item in [*batch, "x"]]

    async with running(FaultyModel(fault, batch_size=4)) as runner:
        answer = await embed(runner, ["a", "bad", "c", "d"])
    assert [fault.error for fault in answer.faults.values()] == ["WrongVectorCount"]
    assert [answer.rows[index] for index in (0, 2, 3)] == [vector_of(text) for text in "acd"]


async def test_rows_that_can_t_be_stored_are_faults_of_their_own_and_cost_no_further_call() -> None:
    def fault(batch: list[str | bytes]) -> list[list[float]]:
        return [[float("nan")] * 8 if "nan" in str(item) else vector_of(item) for item in batch]

    model = FaultyModel(fault, batch_size=4)
    async with running(model) as runner:
        answer = await embed(runner, ["a", "nan", "c", "d"])
    assert list(answer.faults) == [1]
    assert answer.faults[1].error == "BadVectors"
    assert len(model.batches) == 1


class Flaky(RecordingModel):
    """Fails with `error` as often as it is told, then works."""

    def __init__(self, error: BaseException, times: int, batch_size: int | None = 4) -> None:
        super().__init__("flaky", batch_size)
        self.error = error
        self.left = times

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterable[list[float]]:
        batch = list(super().embed_batch(items))
        if self.left:
            self.left -= 1
            raise self.error
        return batch


async def test_a_transient_error_is_tried_again_with_the_batch_whole() -> None:
    model = Flaky(ConnectionResetError("gone"), times=4)
    async with running(model) as runner:
        answer = await embed(runner, TEXTS[:4])
    assert model.batches == [TEXTS[:4]] * 5
    assert not answer.faults


async def test_delays_before_trying_again_are_those_that_were_decided() -> None:
    delays = list[float]()

    async def sleep(seconds: float) -> None:
        delays.append(seconds)

    runner = ModelRunner(Flaky(TimeoutError(), times=4), sleep=sleep)
    await embed(runner, TEXTS[:4])
    await runner.stop(5)
    assert [low <= delay <= 2 * low for low, delay in zip([0.25, 0.5, 1.0, 2.0], delays, strict=True)] == [True] * 4


async def test_when_patience_ends_every_request_in_the_batch_is_given_back() -> None:
    async with running(Flaky(TimeoutError("slow"), times=5, batch_size=2)) as runner:
        one, other = await asyncio.gather(embed(runner, ["a"]), embed(runner, ["b"]), return_exceptions=True)
        assert isinstance(one, TransientFailure)
        assert isinstance(other, TransientFailure)
        assert one.seconds > 0
        assert "TimeoutError: slow" in str(one)
        assert not (await embed(runner, ["a", "b"])).faults, "the next attempt is served as any other"


async def test_a_model_that_somebody_has_to_mend_gives_all_back_and_is_not_called_for_a_while() -> None:
    model = Flaky(ModelMisconfigured("a wrong key"), times=1, batch_size=2)
    async with running(model) as runner:
        answers = await asyncio.gather(*(embed(runner, TEXTS[:3]) for _ in range(3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [TransientFailure] * 3
        with pytest.raises(TransientFailure, match="a wrong key") as caught:
            await embed(runner, ["a"])
        assert 0 < caught.value.seconds <= MEND_SECONDS
        assert len(model.batches) == 1
        assert runner.out_of_order
        assert runner.trouble == "a wrong key"


async def test_since_when_it_has_to_be_mended_is_known_until_a_call_ends_otherwise() -> None:
    def fault(batch: list[str | bytes]) -> None:
        if "refused" in batch:
            raise ModelMisconfigured("a wrong key")
        if "lost" in batch:
            raise ModelUnavailable("gone")

    async with running(FaultyModel(fault, batch_size=1)) as runner:
        for answer in ("well", "lost"):
            assert runner.unmended(0) is None
            with pytest.raises(TransientFailure, match="a wrong key"):
                await embed(runner, ["refused"])
            assert runner.unmended(0) == "a wrong key"
            assert runner.unmended(3600) is None
            runner._to_mend = None
            with contextlib.suppress(TransientFailure):
                await embed(runner, [answer])
        assert runner.unmended(0) is None


async def test_what_calls_return_that_were_going_on_beside_one_that_fails_is_kept() -> None:
    slow = threading.Event()

    class Beside(RecordingModel):
        concurrency = 2

        def embed_batch(self, items: Iterable[str | bytes]) -> Iterable[list[float]]:
            batch = list(items)
            if TEXTS[0] in batch:
                raise ModelMisconfigured("the quota is used up")
            assert slow.wait(BOUND_SECONDS)
            return super().embed_batch(batch)

    model, answer = Beside(batch_size=2), Answer(6)
    async with running(model) as runner:
        embedding = asyncio.create_task(embed(runner, TEXTS[:6], answer))
        await until(lambda: runner.out_of_order)
        slow.set()
        with pytest.raises(TransientFailure, match="quota"):
            await embedding
    assert model.batches == [TEXTS[2:4]]
    assert answer.rows[2:4] == [vector_of(text) for text in TEXTS[2:4]], "they were paid for"


async def test_a_model_that_asks_for_patience_is_given_it_with_the_batch_whole() -> None:
    model = Flaky(RateLimited("slow down", 1.0), times=3 * PATIENCE)
    async with running(model) as runner:
        assert not (await embed(runner, TEXTS[:4])).faults
        assert model.batches == [TEXTS[:4]] * (3 * PATIENCE + 1)
        assert runner.trouble is None


async def test_batches_hold_no_more_tokens_than_the_model_likes() -> None:
    model = RecordingModel(batch_size=10)
    model.batch_tokens = 6
    async with running(model) as runner:
        assert not (await embed(runner, ["xxxxxxxx"] * 5)).faults
    assert [len(batch) for batch in model.batches] == [2, 2, 1]


async def test_a_text_whose_tokens_can_t_be_counted_is_sent_alone_and_holds_up_nobody() -> None:
    class Uncountable(RecordingModel):
        batch_tokens = 6

        def count_tokens(self, item: str | bytes) -> int:
            if item == "odd":
                raise ValueError("no tokenizer for this")
            return super().count_tokens(item)

    model = Uncountable(batch_size=10)
    async with running(model) as runner:
        assert not (await embed(runner, ["xxxx", "odd", "xxxx", "xxxx"])).faults
    assert model.batches == [["xxxx"], ["odd"], ["xxxx", "xxxx"]]


async def test_what_came_before_a_transient_failure_is_handed_out_and_the_rest_is_not_embedded() -> None:
    def fault(batch: list[str | bytes]) -> None:
        if "text 2" in batch:
            raise ConnectionError

    model, answer = FaultyModel(fault, batch_size=2), Answer(100)
    async with running(model) as runner:
        with pytest.raises(TransientFailure):
            await embed(runner, TEXTS[:100], answer)
        assert sum(row is not None for row in answer.rows) == 2
        await embed(runner, ["another"])
    assert model.batches[-1] == ["another"]
    assert model.inputs < 20, "what nobody waits for any more is not paid for"


async def test_who_goes_away_leaves_nothing_behind_to_be_embedded() -> None:
    model = GatedModel(batch_size=2)
    async with running(model) as runner:
        embedding = asyncio.create_task(embed(runner, TEXTS[:100]))
        await until(lambda: model.at_once == 1)
        embedding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await embedding
        model.gate.set()
        await embed(runner, ["another"])
    assert model.batches == [TEXTS[:2], ["another"]]


@pytest.mark.parametrize(
    "error",
    [StopIteration("from a bare next()"), SystemExit("no API key"), KeyboardInterrupt(), CancelledError(),
     asyncio.CancelledError(), GeneratorExit(), RecursionError(), MemoryError()],
    ids=repr,
)  # fmt: skip
async def test_whatever_a_plugin_raises_the_worker_goes_on_and_nobody_waits_for_ever(error: BaseException) -> None:
    async with running(Flaky(error, times=1, batch_size=1)) as runner:
        answer = await embed(runner, ["a", "b"])
    assert [fault.error for fault in answer.faults.values()] == [type(error).__name__]
    assert answer.rows[1] == vector_of("b")


async def test_a_plugin_that_ends_the_process_ends_its_item_only() -> None:
    def fault(batch: list[str | bytes]) -> None:
        if "exit" in batch:
            sys.exit("bye")

    async with running(FaultyModel(fault, batch_size=4)) as runner:
        answer = await embed(runner, ["a", "exit", "c"])
    assert answer.faults == {1: Fault("SystemExit", "bye", 3)}


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def test_no_thread_to_be_had_is_no_item_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(RecordingModel()) as runner:
        monkeypatch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError, match="can't start"):
            await embed(runner, ["a"])
        monkeypatch.undo()
        assert not (await embed(runner, ["a"])).faults


# --- stopping


async def test_stopping_lets_a_call_end_keeps_its_results_and_sends_the_rest_away() -> None:
    model = GatedModel(batch_size=2)
    runner = ModelRunner(model)
    answer = Answer(10)
    consuming = asyncio.create_task(embed(runner, TEXTS[:10], answer))
    behind = asyncio.create_task(embed(runner, ["waits behind"]))
    await until(lambda: model.at_once == 1)
    stopping = asyncio.create_task(runner.stop(10))
    with pytest.raises(Stopping):
        await behind
    assert not consuming.done(), "its call is still going on"
    model.gate.set()
    await stopping
    with pytest.raises(Stopping):
        await consuming
    assert answer.rows[:2] == [vector_of(text) for text in TEXTS[:2]]
    assert answer.rows[2:] == [None] * 8
    assert model.batches == [TEXTS[:2]]


async def test_stopping_does_not_wait_longer_than_the_grace_for_a_call_that_hangs() -> None:
    model = GatedModel()
    runner = ModelRunner(model)
    embedding = asyncio.create_task(embed(runner, ["a"]))
    await until(lambda: model.at_once == 1)
    async with asyncio.timeout(BOUND_SECONDS):
        await runner.stop(0.01)
        with pytest.raises(Stopping):
            await embedding
    model.gate.set()


async def test_what_a_model_says_of_its_trouble_is_one_line_and_not_a_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged for each chunk that goes back, and may repeat the whole request."""
    monkeypatch.setattr("embedq_worker.failures.PATIENCE", 1)
    runner = ModelRunner(Flaky(ConnectionError("no answer\n" * 10_000), times=9))
    with pytest.raises(TransientFailure, match=r"^ConnectionError: no answer no answer") as failure:
        await embed(runner, TEXTS[:4])
    await runner.stop(0)
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) < 600


async def test_a_call_that_has_failed_is_not_tried_again_while_stopping() -> None:
    pausing = asyncio.Event()

    async def sleep(_: float) -> None:
        pausing.set()
        await asyncio.sleep(3600)

    model = Flaky(TimeoutError(), times=99)
    runner = ModelRunner(model, sleep=sleep)
    embedding = asyncio.create_task(embed(runner, TEXTS[:4]))
    await pausing.wait()
    async with asyncio.timeout(BOUND_SECONDS):
        await runner.stop(3600)
        with pytest.raises(Stopping):
            await embedding
    assert len(model.batches) == 1


async def test_a_bad_item_is_not_looked_for_while_stopping_and_nothing_is_buried() -> None:
    model = GatedModel(batch_size=64)

    def fault(_: list[str | bytes]) -> None:
        assert model.gate.wait(BOUND_SECONDS)
        raise ValueError

    failing = FaultyModel(fault, batch_size=64)
    runner = ModelRunner(failing)
    embedding = asyncio.create_task(embed(runner, TEXTS[:64]))
    await until(lambda: bool(failing.batches))
    stopping = asyncio.create_task(runner.stop(10))
    await asyncio.sleep(0)
    model.gate.set()
    await stopping
    with pytest.raises(Stopping):
        await embedding
    assert len(failing.batches) == 1


async def test_who_comes_after_the_stop_is_sent_away() -> None:
    model = RecordingModel()
    runner = ModelRunner(model)
    await runner.stop(0)
    with pytest.raises(Stopping):
        await embed(runner, ["a"])
    assert not model.batches


async def test_a_tail_that_lingers_is_sent_away_at_a_stop() -> None:
    model = RecordingModel(batch_size=100)
    runner = ModelRunner(model)
    embedding = asyncio.create_task(embed(runner, ["a"]))
    await asyncio.sleep(0)
    await runner.stop(0)
    with pytest.raises(Stopping):
        await embedding
    assert not model.batches
