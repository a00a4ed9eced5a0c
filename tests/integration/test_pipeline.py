"""What becomes of a chunk: looked up, decided, embedded, written, with a real store."""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedq_core.counts import Counts
from embedq_core.items import Item
from embedq_core.vectors import decode, encode
from embedq_jobs import Chunk
from embedq_plugins import EmbeddingModel
from embedq_store import ChunkMark, DeadLetter, Incoming, Row, Store, Target, Write
from embedq_worker.claims import Claims
from embedq_worker.pipeline import process
from embedq_worker.runner import ModelRunner, Stopping, TransientFailure
from support.chunks import RUN, chunk, items
from support.models import BinaryModel, EitherModel, FaultyModel, RecordingModel, raising, vector_of
from support.waiting import BOUND_SECONDS, Eventually


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store on a file that gives up a lock at once."""
    async with await Store.open(tmp_path / "embeddings.db", busy_seconds=0.01) as opened:
        yield opened


class Desk:
    """A worker without a queue: chunks are handed to it."""

    def __init__(self, store: Store, model: EmbeddingModel) -> None:
        self.store = store
        self.runner = ModelRunner(model, sleep=lambda _: asyncio.sleep(0))
        self.claims = Claims()

    async def process(self, *chunks: Chunk) -> list[Counts]:
        """Process chunks all at once."""
        async with asyncio.timeout(BOUND_SECONDS):
            return await asyncio.gather(
                *(process(each, self.runner, self.store, self.claims) for each in chunks),
            )

    async def one(self, each: Chunk) -> Counts:
        """Process one chunk."""
        return (await self.process(each))[0]


@contextlib.asynccontextmanager
async def desk(store: Store, model: EmbeddingModel) -> AsyncIterator[Desk]:
    opened = Desk(store, model)
    try:
        yield opened
    finally:
        await opened.runner.stop(5)


async def stored(store: Store, collection: str = "pets") -> dict[str, tuple[float, ...]]:
    """Vectors by id."""
    found = await store.find_collection(collection)
    if found is None:
        return {}
    with contextlib.closing(sqlite3.connect(store.path)) as db:
        rows = db.execute("SELECT id, embedding FROM embeddings WHERE collection_id = ?", (found.id,)).fetchall()
    return {entry_id: decode(vector) for entry_id, vector in rows}


def expected(some: Iterable[Item]) -> dict[str, tuple[float, ...]]:
    return {item.id: tuple(vector_of(item.content)) for item in some}


async def dead(store: Store) -> list[tuple[str, str]]:
    return sorted((letter.id, letter.error) for letter in await store.dead.letters())


class GatedModel(RecordingModel):
    """Holds each call until it is let go; `calls` may be waited for."""

    def __init__(self, batch_size: int | None = None) -> None:
        super().__init__("recording", batch_size)
        self.gate = threading.Semaphore(0)
        self.begun = 0

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterable[list[float]]:
        self.begun += 1
        assert self.gate.acquire(timeout=BOUND_SECONDS)
        return super().embed_batch(items)


def begins(model: GatedModel, calls: int) -> Callable[[], "asyncio.Future[bool]"]:
    async def has() -> bool:
        return model.begun >= calls

    return lambda: asyncio.ensure_future(has())


# --- outcomes


async def test_new_items_are_embedded_and_stored_under_their_ids(store: Store) -> None:
    model = RecordingModel(batch_size=16)
    async with desk(store, model) as worker:
        counts = await worker.one(chunk(items(50)))
    assert counts == Counts(embedded=50, calls=4, inputs=50)
    assert await stored(store) == expected(items(50))


async def test_what_is_there_already_costs_nothing(store: Store) -> None:
    model = RecordingModel()
    async with desk(store, model) as worker:
        await worker.one(chunk(items(20)))
        counts = await worker.one(chunk(items(20), run="again"))
    assert counts == Counts(unchanged=20)
    assert len(model.batches) == 1


async def test_what_mends_is_written_only_where_nothing_newer_came(store: Store) -> None:
    """What an audit queues are copies of what was stored: by the time their chunk is worked on, they may be old."""
    old, model = items(4), RecordingModel()
    async with desk(store, model) as worker:
        await worker.one(chunk(old))
        key = (await store.collection("pets")).id
        assert await store.audits.clear(key, 8, [entry.digest for entry in Incoming.of(old)]) == 4
        newer = Item(old[0].id, "newer")
        await worker.one(chunk([newer], run="newer"))
        prunable = store.prunable(await store.collection("pets"))
        assert [len(page) async for page in prunable.entries()] == [4]
        assert await prunable.delete([old[1].id]) == 1
        letter = DeadLetter("later", 0, "pets", old[2].id, "refused", None, "recording", "ValueError", "", 1, 1.0)
        await store.write(Write(Target("pets", "recording"), dead=[letter]))
        counts = await worker.one(msgspec.structs.replace(chunk(old, run="audit"), mends=True))
        assert (counts.embedded, counts.unchanged) == (2, 2)
        assert await stored(store) == expected([newer, *old[2:]])
        assert await store.dead.letters() == [letter]
        # Also where it comes in between: it is decided in the transaction.
        rows = [Row(*entry, encode([9.0] * 8)) for entry in Incoming.of([old[0], old[1]])]
        dead = [DeadLetter("audit", 1, "pets", old[0].id, "0", None, "recording", "ValueError", "", 1, 1e10)]
        await store.write(Write(Target("pets", "recording"), rows, dead=dead, mends=True))
        assert await stored(store) == expected([newer, *old[2:]])
        assert await store.dead.letters() == [letter]


async def test_a_known_content_under_a_new_id_is_copied(store: Store) -> None:
    model = RecordingModel()
    async with desk(store, model) as worker:
        await worker.one(chunk([Item("a", "cat")]))
        counts = await worker.one(chunk([Item("b", "cat"), Item("c", "cat")], 1))
    assert counts == Counts(reused=2)
    assert await stored(store) == expected([Item(each, "cat") for each in "abc"])
    assert model.inputs == 1


async def test_equal_contents_in_one_chunk_cost_one_input(store: Store) -> None:
    model = RecordingModel()
    async with desk(store, model) as worker:
        counts = await worker.one(chunk([Item(str(number), "same") for number in range(10)]))
    assert counts == Counts(embedded=1, reused=9, calls=1, inputs=1)
    assert len(await stored(store)) == 10


async def test_a_changed_content_is_embedded_anew_and_two_that_swap_both_end_right(store: Store) -> None:
    async with desk(store, RecordingModel()) as worker:
        await worker.one(chunk([Item("a", "cat"), Item("b", "dog"), Item("c", "cow")]))
        changed = [Item("a", "dog"), Item("b", "cat"), Item("c", "hen")]
        counts = await worker.one(chunk(changed, 1))
    assert counts == Counts(embedded=1, reused=2, calls=1, inputs=1)
    assert await stored(store) == expected(changed)


async def test_metadata_of_an_unchanged_item_is_brought_up_to_date_without_the_model(store: Store) -> None:
    model = RecordingModel()
    async with desk(store, model) as worker:
        await worker.one(chunk([Item("a", "cat", '{"n": 1}')]))
        counts = await worker.one(chunk([Item("a", "cat", '{"n": 2}')], 1))
    assert counts == Counts(unchanged=1, updated=1)
    assert model.inputs == 1


async def test_of_two_items_with_one_id_in_a_chunk_the_last_wins_and_both_are_counted(store: Store) -> None:
    model = RecordingModel()
    async with desk(store, model) as worker:
        counts = await worker.one(chunk([Item("a", "old"), Item("a", "new")]))
    assert counts.done == 2
    assert model.batches == [["new"]]
    assert await stored(store) == expected([Item("a", "new")])


async def test_an_empty_chunk_is_done_at_once(store: Store) -> None:
    async with desk(store, RecordingModel()) as worker:
        assert await worker.one(chunk([])) == Counts()
        assert await store.chunk_mark(RUN, 0) == (Counts(), True)


contents = st.sampled_from(["cat", "dog", "cow", "poison hen", "poison eel"])
chunk_contents = st.lists(st.tuples(st.sampled_from("abcdef"), contents), max_size=8)


@given(st.lists(chunk_contents, min_size=1, max_size=4), st.none() | st.integers(1, 3))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_comes_every_item_is_counted_once_and_the_last_version_is_stored_or_dead(
    history: list[list[tuple[str, str]]], batch_size: int | None
) -> None:
    async def main() -> None:
        async with await Store.open() as store, desk(store, FaultyModel(raising, "recording", batch_size)) as worker:
            held: dict[str, str] = {}
            for number, pairs in enumerate(history):
                counts = await worker.one(chunk([Item(*pair) for pair in pairs], number))
                assert counts.done == len(pairs)
                assert min(counts.embedded, counts.reused, counts.unchanged, counts.failed) >= 0
                last = dict(pairs)
                held |= {key: value for key, value in last.items() if "poison" not in value}
                assert counts.failed == sum("poison" in value for value in last.values())
                assert await store.dead.ids(RUN, number) == {key for key, value in last.items() if "poison" in value}
            if held:
                collection = (await store.collection("pets")).id
                assert await store.count(collection) == len(held)
                for key, value in held.items():
                    assert await store.vector(collection, key) == tuple(vector_of(value))

    asyncio.run(main())


# --- dead letters


async def test_an_item_that_can_t_be_embedded_is_kept_whole_with_its_reason(store: Store) -> None:
    before = time.time()
    bad = Item("b", "poison", '{"kept": true}')
    async with desk(store, FaultyModel(raising, "recording", batch_size=4)) as worker:
        counts = await worker.one(chunk([Item("a", "cat"), bad, Item("c", "cow")], 7))
    assert (counts.embedded, counts.failed, counts.done) == (2, 1, 3)
    (letter,) = await store.dead.letters()
    assert before <= letter.died <= time.time()
    assert letter == DeadLetter(
        run=RUN,
        chunk=7,
        collection="pets",
        id="b",
        content="poison",
        metadata='{"kept": true}',
        model="recording",
        error="ValueError",
        message="this model can't take poison",
        attempts=letter.attempts,
        died=letter.died,
    )
    assert letter.attempts >= 2


async def test_all_items_with_a_bad_content_are_dead_and_it_is_tried_once(store: Store) -> None:
    model = FaultyModel(raising, "recording", batch_size=1)
    async with desk(store, model) as worker:
        counts = await worker.one(chunk([Item(each, "poison") for each in "abc"]))
    assert counts.failed == counts.done == 3
    assert await dead(store) == [(each, "ValueError") for each in "abc"]
    assert len(model.batches) == 1


async def test_a_dead_item_is_not_embedded_again_when_its_chunk_runs_again(store: Store) -> None:
    model = FaultyModel(raising, "recording", batch_size=1)
    async with desk(store, model) as worker:
        first = await worker.one(chunk([Item("a", "cat"), Item("b", "poison")]))
        await begin_again(store, first)
        again = await worker.one(chunk([Item("a", "cat"), Item("b", "poison")]))
    assert again == first
    assert len(model.batches) == 2
    assert await dead(store) == [("b", "ValueError")]


async def begin_again(store: Store, counts: Counts, number: int = 0) -> None:
    """Mark a chunk as begun and not finished, as when its worker died before the end."""
    with contextlib.closing(sqlite3.connect(store.path)) as db:
        # Through the store a chunk that is finished stays so.
        db.execute("DELETE FROM embedq_chunks WHERE run = ? AND chunk = ?", (RUN, number))
        db.commit()
    await store.write(Write(Target("pets", "recording"), mark=ChunkMark(RUN, number, counts, finished=False)))


async def test_the_dead_of_an_attempt_that_another_has_written_over_are_counted(store: Store) -> None:
    both = chunk([Item("a", "cat"), Item("b", "poison")])
    async with desk(store, FaultyModel(raising)) as worker:
        await worker.one(both)
        # A worker that had stalled wrote how far it had come: not as far as to the poison.
        await begin_again(store, Counts(embedded=1, calls=1, inputs=1))
        counts = await worker.one(both)
    assert (counts.done, counts.embedded, counts.failed) == (2, 1, 1)


async def test_a_collection_of_another_model_is_left_alone_and_the_items_are_dead(store: Store) -> None:
    async with desk(store, RecordingModel("other")) as worker:
        await worker.one(chunk(items(3), model_id="other"))
    before = await stored(store)
    model = RecordingModel()
    async with desk(store, model) as worker:
        counts = await worker.one(chunk(items(5, text="new"), run="mismatch"))
    assert counts == Counts(failed=5)
    assert await stored(store) == before
    assert {letter.error for letter in await store.dead.letters(run="mismatch")} == {"ModelMismatch"}
    assert "embedded with other, not recording" in (await store.dead.letters())[0].message
    assert not model.batches


async def test_vectors_of_another_dimension_than_the_collection_s_are_dead_and_nothing_else_is_touched(
    store: Store,
) -> None:
    async with desk(store, RecordingModel()) as worker:
        await worker.one(chunk(items(3)))
    before = await stored(store)
    async with desk(store, RecordingModel(dimension=9)) as worker:
        counts = await worker.one(chunk([*items(3), *items(2, first=10)], 1))
    assert (counts.unchanged, counts.failed, counts.embedded) == (3, 2, 0)
    assert await stored(store) == before
    assert await dead(store) == [("000010", "BadVectors"), ("000011", "BadVectors")]
    assert "9 dimensions" in (await store.dead.letters())[0].message


async def test_when_two_chunks_disagree_on_the_dimension_of_a_new_collection_one_of_them_is_dead(store: Store) -> None:
    async with desk(store, RecordingModel(dimension=8)) as one, desk(store, RecordingModel(dimension=9)) as other:
        first = [Item(str(number), f"text {number % 3}") for number in range(6)]
        second = [Item(f"x{number}", f"word {number % 3}") for number in range(6)]
        answers = await asyncio.gather(one.one(chunk(first)), other.one(chunk(second, 1)))
    assert sorted((counts.embedded, counts.reused, counts.failed) for counts in answers) == [(0, 0, 6), (3, 3, 0)]
    assert len({len(vector) for vector in (await stored(store)).values()}) == 1
    assert {error for _, error in await dead(store)} == {"BadVectors"}


@pytest.mark.parametrize(
    ("model", "bad"), [(RecordingModel(), b"bytes"), (BinaryModel("recording"), "text")], ids=["text", "binary"]
)
async def test_content_that_the_model_does_not_take_is_dead_and_the_model_is_not_asked(
    store: Store, model: RecordingModel, bad: str | bytes
) -> None:
    good: str | bytes = "text" if isinstance(bad, bytes) else b"bytes"
    async with desk(store, model) as worker:
        counts = await worker.one(chunk([Item("good", good), Item("bad", bad)]))
    assert counts == Counts(embedded=1, failed=1, calls=1, inputs=1)
    assert await dead(store) == [("bad", "UnsupportedContent")]
    assert (await store.dead.letters())[0].content == bad
    assert model.batches == [[good]]


async def test_text_and_bytes_that_spell_it_are_two_inputs(store: Store) -> None:
    model = EitherModel("recording")
    async with desk(store, model) as worker:
        counts = await worker.one(chunk([Item("a", "cat"), Item("b", b"cat")]))
    assert counts == Counts(embedded=2, calls=1, inputs=2)


# --- nothing is paid twice


async def test_equal_contents_in_two_chunks_at_once_cost_one_input(store: Store) -> None:
    model = GatedModel()
    async with desk(store, model) as worker:
        one = asyncio.create_task(worker.one(chunk([Item("a", "cat"), Item("b", "dog")])))
        other = asyncio.create_task(worker.one(chunk([Item("c", "dog"), Item("d", "cow")], 1)))
        model.gate.release(10)
        assert await one == Counts(embedded=2, calls=1, inputs=2)
        assert await other == Counts(embedded=1, reused=1, calls=1, inputs=1)
    assert sorted(map(str, (each for batch in model.batches for each in batch))) == ["cat", "cow", "dog"]
    assert len(await stored(store)) == 4


async def test_many_chunks_of_the_same_few_contents_pay_for_each_once(store: Store) -> None:
    model = RecordingModel(batch_size=3)
    async with desk(store, model) as worker:
        chunks = [
            chunk([Item(f"{number}-{each}", f"text {each}") for each in range(number % 5, 20)], number)
            for number in range(30)
        ]
        answers = await worker.process(*chunks)
    assert model.inputs == 20
    assert sum(counts.done for counts in answers) == sum(len(each.items) for each in chunks)
    assert sum(counts.inputs for counts in answers) == 20
    assert len(await stored(store)) == sum(len(each.items) for each in chunks)


async def test_when_the_one_who_has_a_text_fails_the_other_embeds_it(store: Store, eventually: Eventually) -> None:
    model = GatedModel()
    async with desk(store, model) as worker:
        one = asyncio.create_task(worker.one(chunk([Item("a", "cat")])))
        await eventually(begins(model, 1))
        other = asyncio.create_task(worker.one(chunk([Item("b", "cat")], 1)))
        await asyncio.sleep(0)
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        model.gate.release(10)
        assert (await other).embedded == 1
    assert list(await stored(store)) == ["b"]


async def test_a_chunk_that_was_begun_before_pays_only_for_what_is_missing(store: Store) -> None:
    model = RecordingModel()
    async with desk(store, model) as worker:
        await worker.one(chunk([Item("known", "known")], 99))
        before = await worker.one(chunk([Item("known", "known"), *items(40)]))
        await begin_again(store, before)
        model.batches.clear()
        counts = await worker.one(chunk([Item("known", "known"), *items(100)]))
    assert model.inputs == 60
    assert counts == Counts(unchanged=1, embedded=100, calls=2, inputs=100)


async def test_a_chunk_that_is_finished_is_not_even_looked_up(store: Store) -> None:
    model = RecordingModel()
    async with desk(store, model) as worker:
        first = await worker.one(chunk(items(5)))
        await store.delete_collection((await store.collection("pets")).id)
        assert await worker.one(chunk(items(5))) == first
    assert len(model.batches) == 1


interruptions = st.lists(st.integers(0, 30), max_size=4)


@given(interruptions, st.integers(1, 7), st.integers(0, 5))
@settings(max_examples=25)
def test_however_often_a_chunk_is_interrupted_nothing_is_paid_twice_and_the_counts_are_right(
    interruptions: list[int], batch_size: int, known: int
) -> None:
    """Interrupted after so many inputs each time, by a model that can't be reached."""
    texts = [*items(30), Item("copy", "text 3"), Item("bad", "poison"), Item("000007", "text 8")]

    async def main() -> None:
        left = 10**9
        paid: list[str | bytes] = []

        def fault(batch: list[str | bytes]) -> None:
            nonlocal left
            if len(batch) > left:
                raise ConnectionError
            raising(batch)
            left -= len(batch)
            paid.extend(batch)

        async with await Store.open() as store, desk(store, FaultyModel(fault, "recording", batch_size)) as worker:
            await worker.one(chunk(items(known), 99))
            for allowed in interruptions:
                left = allowed
                with contextlib.suppress(TransientFailure):
                    await worker.one(chunk(texts))
            left = 10**9
            counts = await worker.one(chunk(texts))
            assert sorted(paid) == sorted(set(paid)), "nothing is paid twice"
            # Of the two with one id the first, "text 7", is not wanted, and "text 8" is wanted twice.
            known_wanted = len(set(range(known)) - {7})
            assert counts.failed == 1
            assert counts.embedded == 29 - known_wanted
            assert counts.reused == 2
            assert counts.unchanged == known_wanted + 1
            assert counts.done == len(texts)
            assert await store.count((await store.collection("pets")).id) == 31

    asyncio.run(main())


async def test_what_was_paid_for_is_kept_when_the_work_is_cancelled(store: Store, eventually: Eventually) -> None:
    model = GatedModel(batch_size=10)
    async with desk(store, model) as worker:
        working = asyncio.create_task(worker.one(chunk(items(30))))
        model.gate.release(2)
        await eventually(begins(model, 3))
        await asyncio.sleep(0)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert await stored(store) == expected(items(20))
        assert await store.chunk_mark(RUN, 0) == (Counts(embedded=20, calls=2, inputs=20), False)
        model.gate.release(10)
        assert await worker.one(chunk(items(30))) == Counts(embedded=30, calls=3, inputs=30)
    assert model.inputs == 40, "only the call that was going on is paid again"


@pytest.mark.parametrize("finished", [False, True])
async def test_nobody_else_looks_before_what_was_paid_for_is_committed_however_often_the_work_is_cancelled(
    store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually, finished: bool
) -> None:
    """Whoever stops waits until the work has ended, and then hands the chunk back."""
    model = GatedModel(batch_size=10)
    write, writing, may_write = Store.write, asyncio.Event(), asyncio.Event()

    async def write_late(self: Store, rows: Write) -> int:
        writing.set()
        await may_write.wait()
        return await write(self, rows)

    monkeypatch.setattr(Store, "write", write_late)
    async with desk(store, model) as worker:
        working = asyncio.create_task(worker.one(chunk(items(20))))
        model.gate.release(2 if finished else 1)
        if finished:
            await writing.wait()
        else:
            await eventually(begins(model, 2))
        for _ in range(3):
            working.cancel()
            await asyncio.wait([working], timeout=0.01)
        assert not working.done()
        may_write.set()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert await store.chunk_mark(RUN, 0) is not None
        assert len(await stored(store)) == (20 if finished else 10)
        model.gate.release(10)


async def test_what_was_paid_for_is_kept_when_the_worker_stops(store: Store, eventually: Eventually) -> None:
    model = GatedModel(batch_size=10)
    worker = Desk(store, model)
    working = asyncio.create_task(worker.one(chunk(items(30))))
    await eventually(begins(model, 1))
    stopping = asyncio.create_task(worker.runner.stop(10))
    await asyncio.sleep(0)
    model.gate.release(10)
    await stopping
    with pytest.raises(Stopping):
        await working
    assert await stored(store) == expected(items(10)), "the call that was going on has ended, and counts"
    async with desk(store, model) as again:
        assert await again.one(chunk(items(30))) == Counts(embedded=30, calls=3, inputs=30)
    assert model.inputs == 30


async def test_a_model_that_can_t_be_reached_gives_the_chunk_back_with_what_was_done_kept(store: Store) -> None:
    def fault(batch: list[str | bytes]) -> None:
        if "text 15" in batch:
            raise ConnectionError

    model = FaultyModel(fault, "recording", batch_size=10)
    async with desk(store, model) as worker:
        with pytest.raises(TransientFailure):
            await worker.one(chunk(items(30)))
    assert set(expected(items(10)).items()) <= set((await stored(store)).items())
    assert await dead(store) == []


async def test_what_has_come_is_committed_soon_however_long_the_next_call_takes(
    store: Store, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedq_worker.pipeline.FLUSH_SECONDS", 0.1)
    monkeypatch.setattr("embedq_worker.runner.QUIET_SECONDS", 0.1, raising=False)
    model = GatedModel(batch_size=10)
    async with desk(store, model) as worker:
        working = asyncio.create_task(worker.one(chunk(items(20))))
        model.gate.release(1)

        async def the_first_batch_is_there() -> bool:
            return len(await stored(store)) == 10

        await eventually(the_first_batch_is_there)
        model.gate.release(1)
        assert await working == Counts(embedded=20, calls=2, inputs=20)


async def test_a_slow_chunk_is_committed_as_it_goes_and_says_how_far_it_has_come(
    store: Store, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedq_worker.pipeline.FLUSH_SECONDS", 0)
    model, heard = GatedModel(batch_size=10), list[Counts]()

    async def progress(counts: Counts) -> None:
        heard.append(counts)

    async with desk(store, model) as worker:
        working = asyncio.create_task(process(chunk(items(30)), worker.runner, store, worker.claims, progress))
        model.gate.release(2)

        async def two_batches_are_there() -> bool:
            return len(await stored(store)) == 20

        await eventually(two_batches_are_there)
        model.gate.release(1)
        await working
    assert [counts.embedded for counts in heard[:2]] == [10, 20]


# --- a database that can't be written to


@contextlib.contextmanager
def locked(store: Store) -> Iterator[None]:
    """Another program is writing."""
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def test_while_the_database_is_locked_vectors_are_kept_and_not_paid_for_again(
    store: Store, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("embedq_worker.outbox.WRITE_AGAIN_SECONDS", 0.01)
    model = RecordingModel()

    async def has_failed_twice() -> bool:
        return caplog.text.count("the vectors are kept") >= 2

    async with desk(store, model) as worker:
        with locked(store):
            working = asyncio.create_task(worker.one(chunk(items(10))))
            await eventually(has_failed_twice)
        assert await working == Counts(embedded=10, calls=1, inputs=10)
    assert len(model.batches) == 1
    assert await stored(store) == expected(items(10))


async def test_a_worker_that_stops_does_not_wait_for_a_database_that_stays_locked(
    store: Store, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Desk(store, RecordingModel())

    async def has_failed() -> bool:
        return "the vectors are kept" in caplog.text

    with locked(store):
        working = asyncio.create_task(worker.one(chunk(items(10))))
        await eventually(has_failed)
        async with asyncio.timeout(BOUND_SECONDS):
            await worker.runner.stop(5)
            with pytest.raises(Exception, match="locked"):
                await working
