"""The group-commit writer: many writes, few transactions, each write whole or not at all."""

import asyncio
import dataclasses
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from embedq_core.counts import Counts
from embedq_core.digests import content_hash
from embedq_core.errors import BadVectors, CollectionMissing, DatabaseLocked, EntryMissing, ModelMismatch, StoreError
from embedq_core.items import Item
from embedq_core.vectors import encode
from embedq_store import ChunkMark, DeadLetter, Incoming, Row, Store, Target, Write, holding_back
from embedq_store.bulk import in_thread
from embedq_store.writer import GROUP_ROWS
from support.waiting import BOUND_SECONDS

TARGET = Target("pets", "recording")


@pytest.fixture
async def vectors(tmp_path: Path) -> AsyncIterator[Store]:
    async with await Store.open(tmp_path / "embeddings.db") as store:
        yield store


def rows(count: int, first: int = 0, dimension: int = 4, content: str = "text") -> list[Row]:
    incoming = Incoming.of([Item(f"{number:06}", f"{content} {number}") for number in range(first, first + count)])
    return [Row(*entry, encode([float(index + 1)] * dimension)) for index, entry in enumerate(incoming)]


async def traced(store: Store) -> list[str]:
    """The statements that the writer runs from now on."""
    statements: list[str] = []
    assert store._access.writing is not None
    await store._access.writing.set_trace_callback(statements.append)
    return statements


async def count(store: Store, collection: str = "pets") -> int:
    return await store.count((await store.collection(collection)).id)


async def test_what_write_has_returned_from_is_seen_by_other_programs(vectors: Store) -> None:
    await vectors.write(Write(TARGET, rows(3)))
    with closing(sqlite3.connect(vectors.path)) as other:
        assert other.execute("SELECT count(*) FROM embeddings").fetchone() == (3,)


async def test_writes_that_wait_together_are_committed_together(vectors: Store) -> None:
    statements = await traced(vectors)
    await asyncio.gather(*(vectors.write(Write(TARGET, rows(10, first=10 * number))) for number in range(100)))
    assert statements.count("COMMIT") <= 2
    assert await count(vectors) == 1000


async def test_whoever_observes_commits_hears_of_each_transaction_once(vectors: Store) -> None:
    commits: list[tuple[int, float]] = []
    vectors.observe_commits(lambda size, seconds: commits.append((size, seconds)))
    statements = await traced(vectors)
    await asyncio.gather(*(vectors.write(Write(TARGET, rows(10, first=10 * number))) for number in range(20)))
    with pytest.raises(BadVectors):
        await vectors.write(Write(TARGET, rows(3, first=500, dimension=5)))
    assert len(commits) == statements.count("COMMIT")
    assert sum(size for size, _ in commits) == 220, "200 rows, one for each write, nothing for what was refused"
    assert all(0 < seconds < 20 for _, seconds in commits)


async def test_a_group_is_bounded_so_that_a_transaction_does_not_grow_without_end(vectors: Store) -> None:
    statements = await traced(vectors)
    writes = [Write(TARGET, rows(1000, first=1000 * number)) for number in range(2 * GROUP_ROWS // 1000)]
    await asyncio.gather(*map(vectors.write, writes))
    assert 2 <= statements.count("COMMIT") <= 4
    assert await count(vectors) == len(writes) * 1000


async def test_writes_that_come_while_one_is_committed_wait_for_the_next(vectors: Store) -> None:
    statements = await traced(vectors)

    async def writer(first: int) -> None:
        for number in range(10):
            await vectors.write(Write(TARGET, rows(1, first=first + number)))

    await asyncio.gather(*(writer(1000 * number) for number in range(20)))
    assert statements.count("COMMIT") <= 30
    assert await count(vectors) == 200


async def test_a_write_of_the_wrong_dimension_is_refused_alone(vectors: Store) -> None:
    good = Write(TARGET, rows(5))
    bad = Write(TARGET, rows(5, first=100, dimension=3))
    other = Write(TARGET, rows(5, first=200))
    results = await asyncio.gather(*map(vectors.write, (good, bad, other)), return_exceptions=True)
    assert results[0] == 0
    assert results[2] == 0
    assert isinstance(results[1], BadVectors)
    assert "a vector of 3 dimensions; the collection 'pets' holds vectors of 4" in str(results[1])
    assert await count(vectors) == 10


async def test_the_first_vectors_of_a_collection_decide_its_dimension(vectors: Store) -> None:
    await vectors.write(Write(TARGET, rows(1, dimension=3)))
    assert await vectors.dimension("pets") == 3
    with pytest.raises(BadVectors):
        await vectors.write(Write(TARGET, rows(1, first=1)))
    # Another collection may have another.
    await vectors.write(Write(Target("docs", "recording"), rows(1)))
    assert await vectors.dimension("docs") == 4
    assert await vectors.dimension("nowhere") is None


async def test_vectors_of_two_dimensions_in_one_write_are_refused_whole(vectors: Store) -> None:
    with pytest.raises(BadVectors):
        await vectors.write(Write(TARGET, rows(3) + rows(1, first=3, dimension=5)))
    assert await count(vectors) == 0


async def test_a_write_for_another_model_is_refused_alone(vectors: Store) -> None:
    await vectors.write(Write(TARGET, rows(1)))
    wrong = Write(Target("pets", "hashing"), rows(1, first=1))
    results = await asyncio.gather(
        vectors.write(wrong), vectors.write(Write(TARGET, rows(1, first=2))), return_exceptions=True
    )
    assert isinstance(results[0], ModelMismatch)
    assert "'pets' was embedded with recording, not with hashing" in str(results[0])
    assert results[1] == 0
    assert await count(vectors) == 2


async def test_a_refused_write_leaves_neither_dead_letters_nor_a_mark(vectors: Store) -> None:
    await vectors.write(Write(TARGET, rows(1)))
    letter = DeadLetter("run", 1, "pets", "x", "text", None, "recording", "ValueError", "no", 1, 5.0)
    mark = ChunkMark("run", 1, Counts(embedded=1), finished=True)
    with pytest.raises(BadVectors):
        await vectors.write(Write(TARGET, rows(1, first=1, dimension=3), dead=[letter], mark=mark))
    assert await vectors.chunk_mark("run", 1) is None
    assert await vectors.dead.letters() == []


def unencodable() -> list[Row]:
    """A row that no database takes: half of a surrogate pair is no text."""
    return [Row(Item("half", "\ud800"), b"-" * 16, encode([1.0] * 4))]


def unbindable() -> list[Row]:
    """A row whose metadata is of a type that SQLite does not know."""
    return [Row(Item("odd", "text", cast("str", object())), b"-" * 16, encode([1.0] * 4))]


@pytest.mark.parametrize("bad", [unencodable, unbindable])
async def test_a_write_that_the_database_can_t_take_fails_alone(vectors: Store, bad: Callable[[], list[Row]]) -> None:
    statements = await traced(vectors)
    results = await asyncio.gather(
        vectors.write(Write(TARGET, rows(3), mark=ChunkMark("run", 0, Counts(embedded=3), finished=True))),
        vectors.write(Write(TARGET, [*rows(3, first=10), *bad()])),
        vectors.create_collection("birds", "recording"),
        vectors.write(Write(TARGET, rows(3, first=20))),
        return_exceptions=True,
    )
    assert [isinstance(result, Exception) for result in results] == [False, True, False, False]
    assert statements.count("ROLLBACK") == 2, "the group, and the one at fault"
    key = (await vectors.collection("pets")).id
    assert {entry.id for entry in await vectors.search.similar(key, [1.0] * 4, number=10)} == {
        *(f"{number:06}" for number in (0, 1, 2, 20, 21, 22))
    }
    assert await vectors.chunk_mark("run", 0) == (Counts(embedded=3), True)
    assert await vectors.find_collection("birds") is not None


async def test_when_the_database_is_locked_a_group_waits_for_it_once(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    async with await Store.open(path, busy_seconds=0.05) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            statements = await traced(store)
            other.execute("BEGIN IMMEDIATE")
            writes = (store.write(Write(TARGET, rows(1, first=number))) for number in range(20))
            results = await asyncio.gather(*writes, return_exceptions=True)
    assert {type(result) for result in results} == {DatabaseLocked}
    assert statements.count("BEGIN IMMEDIATE") == 1


async def test_a_write_after_an_error_of_the_database_works(vectors: Store) -> None:
    await vectors.write(Write(TARGET, rows(1)))
    with closing(sqlite3.connect(vectors.path)) as other:
        other.execute(
            "CREATE TRIGGER no_cats BEFORE INSERT ON embeddings WHEN new.id = '000007'"
            " BEGIN SELECT raise(ABORT, 'no cats here'); END"
        )
    with pytest.raises(StoreError, match="no cats here"):
        await vectors.write(Write(TARGET, rows(10, first=1)))
    assert await count(vectors) == 1
    await vectors.write(Write(TARGET, rows(3, first=1)))
    assert await count(vectors) == 4


async def test_closing_commits_what_is_waiting(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    store = await Store.open(path)
    waiting = [asyncio.create_task(store.write(Write(TARGET, rows(50, first=50 * number)))) for number in range(20)]
    await asyncio.sleep(0)  # each has been handed in
    await store.close()
    assert all(task.done() and task.exception() is None for task in waiting)
    async with await Store.open(path) as again:
        assert await count(again) == 1000


async def test_a_writer_that_is_cancelled_while_it_commits_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, gate = tmp_path / "embeddings.db", threading.Event()
    async with await Store.open(path) as store:
        db = store._access.writing
        assert db is not None
        execute, committing = db.execute, list[asyncio.Future[object]]()

        async def cancelled_at_the_end(sql: str, *values: Any) -> object:
            if sql != "COMMIT":
                return await execute(sql, *values)
            # The thread of the connection has not come to it yet.
            committing.append(asyncio.ensure_future(in_thread(db, lambda _: gate.wait(BOUND_SECONDS))))
            committing.append(asyncio.ensure_future(execute(sql)))
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(gate.set)
            raise asyncio.CancelledError

        monkeypatch.setattr(db, "execute", cancelled_at_the_end)
        asked = asyncio.create_task(store.write(Write(TARGET, rows(3))))
        while not committing:
            assert not asked.done()
            await asyncio.sleep(0)
        writing = store._access.writer._task
        assert writing is not None
        await asyncio.wait([writing], timeout=BOUND_SECONDS)
        assert writing.cancelled()
        await asyncio.gather(*committing)
        asked.cancel()
        assert await count(store) == 3


async def test_a_caller_that_goes_away_does_not_disturb_the_others(vectors: Store) -> None:
    gone = asyncio.create_task(vectors.write(Write(TARGET, rows(1))))
    stays = asyncio.create_task(vectors.write(Write(TARGET, rows(1, first=1))))
    await asyncio.sleep(0)
    gone.cancel()
    await stays
    assert await count(vectors) >= 1
    await vectors.write(Write(TARGET, rows(1, first=2)))


async def test_a_collection_that_is_deleted_between_two_writes_of_a_group_is_made_anew(vectors: Store) -> None:
    await vectors.write(Write(TARGET, rows(3)))
    key = (await vectors.collection("pets")).id
    await asyncio.gather(
        vectors.write(Write(TARGET, rows(1, first=3))),
        vectors.delete_collection(key),
        vectors.write(Write(TARGET, rows(2, first=4, dimension=5))),
    )
    assert await count(vectors) == 2
    assert await vectors.dimension("pets") == 5


async def test_a_chunk_that_comes_again_in_the_group_that_finishes_it_changes_nothing(vectors: Store) -> None:
    mark = ChunkMark("run", 0, Counts(embedded=1), finished=True)
    await asyncio.gather(
        vectors.write(Write(TARGET, rows(1, content="new"), mark=mark)),
        vectors.write(Write(TARGET, rows(1, content="old"), mark=dataclasses.replace(mark, finished=False))),
    )
    assert (await vectors.search.similar(1, [1.0] * 4))[0].content == "new 0"
    assert await vectors.chunk_mark("run", 0) == (Counts(embedded=1), True)


async def test_a_chunk_takes_few_steps_beside_which_other_threads_could_be_busy(vectors: Store) -> None:
    statements = await traced(vectors)
    await vectors.write(Write(TARGET, rows(2048)))
    assert 0 < sum(statement.startswith("INSERT OR REPLACE INTO embeddings") for statement in statements) <= 16


async def test_rows_are_replaced_by_id(vectors: Store) -> None:
    await vectors.write(Write(TARGET, rows(3)))
    await vectors.write(Write(TARGET, rows(3, content="new")))
    assert await count(vectors) == 3
    known = await vectors.known("pets", Incoming.of([Item("000001", "new 1"), Item("000002", "text 2")]))
    assert {id_: stored.digest for id_, stored in known.by_id.items()} == {
        "000001": content_hash("new 1"),
        "000002": content_hash("new 2"),
    }
    assert known.vectors == {}


async def test_contents_are_kept_only_where_that_is_wanted(vectors: Store) -> None:
    incoming = Incoming.of([Item("a", "hound"), Item("b", b"\x00hound")])
    blob = encode([1.0, 2.0])
    await vectors.write(Write(TARGET, [Row(*entry, blob) for entry in incoming], store=False))
    with closing(sqlite3.connect(vectors.path)) as other:
        columns = "SELECT content, content_blob FROM embeddings ORDER BY id"
        assert other.execute(columns).fetchall() == [(None, None), (None, None)]
        await vectors.write(Write(TARGET, [Row(*entry, blob) for entry in incoming], store=True))
        assert other.execute(columns).fetchall() == [("hound", None), (None, b"\x00hound")]


async def test_an_update_changes_metadata_and_content_but_no_vector(vectors: Store) -> None:
    (incoming,) = Incoming.of([Item("a", "hound")])
    await vectors.write(Write(TARGET, [Row(*incoming, encode([1.0, 2.0]))], store=False))
    (update,) = Incoming.of([Item("a", "hound", '{"a": 1}')])
    await vectors.write(Write(TARGET, updates=[update]))
    (entry,) = await vectors.search.similar(1, [1.0, 2.0])
    assert (entry.content, entry.metadata) == ("hound", {"a": 1})
    assert await vectors.vector(1, "a") == (1.0, 2.0)


async def test_an_update_of_a_row_that_has_other_content_by_now_changes_nothing(vectors: Store) -> None:
    (incoming,) = Incoming.of([Item("a", "cat")])
    await vectors.write(Write(TARGET, [Row(*incoming, encode([1.0, 2.0]))]))
    await vectors.write(Write(TARGET, updates=Incoming.of([Item("a", "hound", '{"a": 1}')])))
    (entry,) = await vectors.search.similar(1, [1.0, 2.0])
    assert (entry.content, entry.metadata) == ("cat", None)


async def test_a_chunk_that_is_written_twice_is_marked_once(vectors: Store) -> None:
    first = ChunkMark("run", 3, Counts(embedded=2), finished=False)
    await vectors.write(Write(TARGET, rows(2), mark=first))
    assert await vectors.chunk_mark("run", 3) == (Counts(embedded=2), False)
    await vectors.write(Write(TARGET, mark=ChunkMark("run", 3, Counts(embedded=5), finished=True)))
    assert await vectors.chunk_mark("run", 3) == (Counts(embedded=5), True)
    assert await vectors.chunk_mark("run", 4) is None


async def test_a_worker_that_stalled_while_others_finished_its_chunk_changes_nothing_any_more(vectors: Store) -> None:
    first, later = ChunkMark("run", 0, Counts(embedded=1), finished=True), ChunkMark("run", 1, Counts(embedded=1), True)
    stale = Write(TARGET, rows(1, content="old"), mark=first)
    await vectors.write(stale)
    await vectors.write(Write(TARGET, rows(1, content="new"), mark=later))
    letter = DeadLetter("run", 0, "pets", "000000", "old", None, "recording", "ValueError", "no", 1, 5.0)
    await vectors.write(dataclasses.replace(stale, dead=[letter], updates=Incoming.of([Item("000000", "new 0", "{}")])))
    (entry,) = await vectors.search.similar(1, [1.0] * 4)
    assert (entry.content, entry.metadata) == ("new 0", None)
    assert await vectors.dead.letters() == []
    await vectors.write(Write(TARGET, rows(1, content="old"), mark=dataclasses.replace(first, finished=False)))
    assert await vectors.chunk_mark("run", 0) == (Counts(embedded=1), True)
    assert (await vectors.search.similar(1, [1.0] * 4))[0].content == "new 0"


async def test_dead_letters_are_kept_whole_and_each_once(vectors: Store) -> None:
    letters = [
        DeadLetter("run", 1, "pets", "a", "text", '{"a": 1}', "recording", "ValueError", "no", 1, 5.0),
        DeadLetter("run", 1, "pets", "b", b"\x00", None, "recording", "BadVectors", "nan", 2, 6.0),
        DeadLetter("run", 2, "docs", "a", None, None, "recording", "ValueError", "no", 1, 7.0),
    ]
    for _ in range(2):
        await vectors.write(Write(TARGET, dead=letters))
    assert await vectors.dead.letters() == letters[::-1]
    assert await vectors.dead.letters(collection="pets", limit=1) == [letters[1]]
    assert await vectors.dead.letters(run="run", error="ValueError") == [letters[2], letters[0]]
    assert await vectors.dead.ids("run", 1) == {"a", "b"}
    assert [tuple(summary) for summary in await vectors.dead.summary()] == [
        ("docs", "ValueError", 1),
        ("pets", "BadVectors", 1),
        ("pets", "ValueError", 1),
    ]


async def test_two_stores_on_one_file_take_turns(tmp_path: Path, vectors: Store) -> None:
    async with await Store.open(tmp_path / "embeddings.db") as other:
        await asyncio.gather(
            *(
                store.write(Write(TARGET, rows(20, first=10_000 * which + 20 * number)))
                for number in range(20)
                for which, store in enumerate((vectors, other))
            )
        )
        assert await count(vectors) == await count(other) == 800


async def test_a_collection_is_made_once_however_many_ask(vectors: Store) -> None:
    made = await asyncio.gather(*(vectors.create_collection("pets", "recording") for _ in range(20)))
    assert len(set(made)) == 1
    assert await vectors.collections() == [made[0]]


async def test_a_collection_that_isnt_there_is_answered_with_close_names(vectors: Store) -> None:
    with pytest.raises(CollectionMissing, match="it holds none"):
        await vectors.collection("pest")
    await vectors.create_collection("pets", "recording")
    with pytest.raises(CollectionMissing, match=r"there is no collection 'pest' in .* Did you mean 'pets'\?"):
        await vectors.collection("pest")


# --- held back before a switch


def rows_of(store: Store, collection: str) -> int:
    with closing(sqlite3.connect(store.path)) as db:
        sql = "SELECT count(*) FROM embeddings e JOIN collections c ON c.id = e.collection_id WHERE c.name = ?"
        return int(db.execute(sql, (collection,)).fetchone()[0])


async def waiting(store: Store) -> asyncio.Task[int]:
    """A write to `pets` that has been told to wait."""
    await store.write(Write(TARGET, rows(1)))
    await store._access.change(partial(holding_back.hold_back, collection="pets"))
    writing = asyncio.create_task(store.write(Write(TARGET, rows(1, first=1))))
    # Of another collection, and of other matters: committed after it was looked at.
    await store.write(Write(Target("plants", "recording"), rows(3)))
    await store.write(Write(TARGET, mark=ChunkMark("run", 0, Counts(), finished=True)))
    assert (rows_of(store, "pets"), rows_of(store, "plants"), writing.done()) == (1, 3, False)
    return writing


async def test_rows_for_a_collection_that_is_held_back_wait_until_it_is_let_go_and_others_do_not(
    vectors: Store,
) -> None:
    writing = await waiting(vectors)
    await vectors._access.change(partial(holding_back.let_go, collection="pets"))
    assert await writing == 0
    assert rows_of(vectors, "pets") == 2


async def test_they_wait_for_some_seconds_at_most(vectors: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    writing = await waiting(vectors)
    monkeypatch.setattr(holding_back, "MOST_SECONDS", 0.0)
    # The table says that they are to wait still.
    await vectors.write(Write(TARGET, rows(1, first=2)))
    assert await vectors._access.read(holding_back.held_back) == {"pets"}
    writing.cancel()


async def test_they_wait_no_longer_than_the_writer_is_there(vectors: Store) -> None:
    writing = await waiting(vectors)
    await vectors.close()
    assert await writing == 0
    assert rows_of(vectors, "pets") == 2


async def test_an_entry_that_isnt_there_is_named(vectors: Store) -> None:
    await vectors.write(Write(TARGET, rows(1)))
    with pytest.raises(EntryMissing, match="no entry 'nobody'"):
        await vectors.vector(1, "nobody")


async def test_the_figures_of_a_collection(vectors: Store) -> None:
    await vectors.write(Write(TARGET, rows(3)))
    (item,) = Incoming.of([Item("b", b"\x00\x01", '{"a": 1}')])
    await vectors.write(Write(TARGET, [Row(*item, encode(np.ones(4)))]))
    figures = await vectors.describe(1)
    assert (figures.entries, figures.dimension, figures.with_content, figures.with_metadata) == (4, 4, 4, 1)
    assert figures.vector_bytes == 4 * 16
    assert figures.content_bytes == 3 * len("text 0") + 2
    assert figures.oldest is not None
    assert figures.newest is not None
    assert figures.oldest <= figures.newest


async def test_the_figures_of_an_empty_collection(vectors: Store) -> None:
    info = await vectors.create_collection("pets", "recording")
    figures = await vectors.describe(info.id)
    assert (figures.entries, figures.dimension, figures.vector_bytes, figures.oldest) == (0, None, 0, None)


async def test_what_is_deleted_is_counted_when_it_goes(vectors: Store) -> None:
    await vectors.write(Write(TARGET, rows(3)))
    await vectors.write(Write(dataclasses.replace(TARGET, collection="birds"), rows(2)))
    key = (await vectors.collection("pets")).id
    _, deleted = await asyncio.gather(vectors.write(Write(TARGET, rows(2, first=3))), vectors.delete_collection(key))
    assert deleted == 5
    assert await count(vectors, "birds") == 2
