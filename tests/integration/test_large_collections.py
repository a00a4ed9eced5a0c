"""What a large collection must not do to others: keep the lock, keep somebody who wants to leave, or lose its place."""

import asyncio
import itertools
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

import embedq_store.auditing
import embedq_store.deadletters
import embedq_store.log
import embedq_store.renaming
from embedq.doctor.doctoring import gather
from embedq.inspecting import collection_list, delete_collection
from embedq_core.errors import StoreError, UsageError
from embedq_core.items import Item
from embedq_core.settings import load_settings
from embedq_store import DeadLetter, Incoming, Row, Selection, Store, Target, Write, removing
from embedq_store.auditing import usual_dimension
from embedq_store.log import Log
from embedq_store.reembeddings import Reembeddings
from embedq_store.standing import scanned
from embedq_store.writer import gap
from support.chunks import items
from support.waiting import BOUND_SECONDS

TARGET = Target("pets", "recording")
VECTOR = b"\0\0\x80\x3f"


async def put(store: Store, collection: str, some: list[Item]) -> int:
    """The key of a collection that holds `some`."""
    await store.write(Write(Target(collection, "recording"), [Row(*entry, VECTOR) for entry in Incoming.of(some)]))
    return (await store.collection(collection)).id


async def names(store: Store) -> list[str]:
    return [info.name for info in await store.collections()]


def rows_left(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM embeddings").fetchone()[0])


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removing, "_REMOVED_ROWS", 2)
    monkeypatch.setattr(removing, "_REMOVING_SECONDS", 0.0)
    monkeypatch.setattr(embedq_store.renaming, "_AT_ONCE", 2)


async def test_a_read_that_is_cancelled_gives_up_its_own_statement_and_no_other(store: Store) -> None:
    rows = itertools.count(1)
    enough = threading.Event()

    def passed() -> bool:
        if next(rows) % 10_000 == 0:
            enough.set()
        return True

    def endless(db: sqlite3.Connection) -> object:
        db.create_function("passed", 0, passed)
        sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n WHERE passed()"
        return db.execute(sql).fetchone()

    reading = asyncio.create_task(store.look(endless))
    assert await asyncio.to_thread(enough.wait, BOUND_SECONDS)
    waiting = asyncio.create_task(store.look(endless))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    for _ in range(2):
        enough.clear()
        assert await asyncio.to_thread(enough.wait, BOUND_SECONDS), "what another waits for goes on"
    reading.cancel()
    async with asyncio.timeout(BOUND_SECONDS):
        await asyncio.wait([reading])
        assert await store.collections() == [], "the connection is free, and can be read from"
    assert reading.cancelled()


@pytest.mark.usefixtures("few_at_once")
async def test_a_deleted_collection_is_gone_at_once_and_its_rows_a_few_in_each_transaction(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with await Store.open(path) as store:
        key = await put(store, "pets", items(5))
        told: list[int] = []
        left: list[int] = []

        def look(done: int) -> None:
            told.append(done)
            left.append(rows_left(path))

        await store.part_with(key)
        assert await names(store) == [f"pets@removing-{key}"]
        assert rows_left(path) == 3
        roles = await store.reembeddings.roles()
        assert [(role.collection, role.kind) for role in roles.values()] == [("pets", "removing")]
        assert await put(store, "pets", items(1)) != key, "its key is taken until the last row is gone"
        await store.reembeddings.sweep(look)
        assert (told, left) == ([2, 3], [2, 1])
        assert await names(store) == ["pets"]
        assert await store.reembeddings.roles() == {}


@pytest.mark.usefixtures("few_at_once")
async def test_what_is_being_removed_needs_no_model(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with await Store.open(path) as store:
        rows = [Row(*entry, VECTOR) for entry in Incoming.of(items(5))]
        await store.write(Write(Target("pets", "no-such-model"), rows))
        facts = await gather(load_settings(database=path), named=True, full=False)
        assert facts.missing == (("no-such-model", "the collection 'pets'"),)
        await store.part_with((await store.collection("pets")).id)
        assert len(await names(store)) == 1
        facts = await gather(load_settings(database=path), named=True, full=False)
        assert facts.missing == ()


async def test_a_small_collection_is_deleted_in_one_transaction(store: Store) -> None:
    key = await put(store, "pets", items(5))
    await store.part_with(key)
    assert await names(store) == []
    assert await store.look(removing.removals) == []


@pytest.mark.usefixtures("few_at_once")
async def test_who_comes_late_to_remove_rows_leaves_the_collection_that_was_given_the_key_since(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "x.db") as slow, await Store.open(tmp_path / "x.db") as fast:
        key = await put(slow, "pets", items(5))
        await slow.part_with(key)
        (seen,) = await slow.look(removing.removals)
        await fast.reembeddings.sweep()
        assert await put(fast, "others", items(5)) == key, "SQLite gives out the last key again"
        assert await slow._access.change(partial(removing.remove_some, key=seen)) == 0
        assert await fast.count(key) == 5


@pytest.mark.usefixtures("few_at_once")
async def test_nothing_is_begun_with_what_is_being_removed(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "x.db") as store:
        key = await put(store, "pets", items(5))
        await store.part_with(key)
        going = await store.collection(f"pets@removing-{key}")
        with pytest.raises(UsageError, match="'pets' was deleted"):
            await store.reembeddings.begin(going.name, "another")
        with pytest.raises(StoreError, match="being removed"):
            await store.transfer.rename(going.name, "saved")
        with pytest.raises(StoreError, match="being removed"):
            await store.transfer.copy(going, "saved", lambda _: None)
        assert await names(store) == [going.name]
        assert await store.reembeddings.all() == []
        await put(store, "others", items(5))
        assert (await store.transfer.copy(await store.collection("others"), "more", lambda _: None))[1] == 5


@pytest.mark.usefixtures("few_at_once")
async def test_a_copy_that_is_interrupted_goes_and_the_next_command_frees_what_it_took(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with await Store.open(path) as store:
        await put(store, "pets", items(7))
        source = await store.collection("pets")

        def stop(done: int) -> None:
            if done >= 6:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            await store.transfer.copy(source, "copy", stop)
        assert await store.find_collection("copy") is None
        assert await store.find_collection("copy@copying") is None
        roles = await store.reembeddings.roles()
        assert [(role.collection, role.kind) for role in roles.values()] == [("copy@copying", "removing")]
        assert (await store.transfer.copy(source, "copy", lambda _: None))[1] == 7
        assert await names(store) == ["copy", "pets"]
        assert rows_left(path) == 14


@pytest.mark.usefixtures("few_at_once")
async def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with await Store.open(path) as store:
        await put(store, "pets", items(7))

        def fail(done: int) -> None:
            if done >= 6:
                raise StoreError("no")

        with pytest.raises(StoreError, match="no"):
            await store.transfer.copy(await store.collection("pets"), "copy", fail)
        assert await names(store) == ["pets"]
        assert rows_left(path) == 7


async def test_who_copies_to_a_name_that_another_copies_to_gives_up_and_leaves_the_other_s(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "x.db") as store:
        await put(store, "pets", items(7))
        source, writer = await store.collection("pets"), store._access.writer
        begun, overtaken, given_up = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def wait_for_the_second() -> None:
            begun.set()
            await overtaken.wait()

        async def wait_for_the_first() -> None:
            overtaken.set()
            await given_up.wait()

        async def second() -> int:
            await begun.wait()
            return (await embedq_store.renaming.copy(writer, source, "copy", lambda _: None, wait_for_the_first))[1]

        copying = asyncio.create_task(second())
        async with asyncio.timeout(BOUND_SECONDS):
            with pytest.raises(StoreError, match="while it was copied"):
                await embedq_store.renaming.copy(writer, source, "copy", lambda _: None, wait_for_the_second)
            given_up.set()
            assert await copying == 7
        assert await names(store) == ["copy", "pets"]
        assert await store.count((await store.collection("copy")).id) == 7


async def test_a_copy_that_another_has_begun_anew_is_not_taken_for_a_whole_one(store: Store) -> None:
    await put(store, "pets", items(7))
    source = await store.collection("pets")
    begin = partial(embedq_store.renaming._begin, source=source, name="copy", beside="copy@copying")
    first, second = [await store._access.change(begin) for _ in range(2)]
    end = partial(embedq_store.renaming._end, source=source, name="copy", beside="copy@copying")
    with pytest.raises(StoreError, match="while it was copied"):
        await store._access.change(partial(end, key=first))
    assert await names(store) == ["copy@copying", "pets"]
    await store._access.change(partial(end, key=second))
    assert await names(store) == ["copy", "pets"]


@pytest.mark.usefixtures("few_at_once")
def test_a_deletion_that_is_interrupted_says_that_it_is_done_and_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.db"

    async def with_store(work: Callable[[Store], Awaitable[object]]) -> None:
        async with await Store.open(path) as store:
            await work(store)

    asyncio.run(with_store(lambda store: put(store, "pets", items(5))))

    async def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Reembeddings, "sweep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            delete_collection("pets", path)
    assert "pets is deleted, but rows of it still take space" in capsys.readouterr().err
    assert [row.role_words for row in collection_list(path)] == ["being removed"]
    asyncio.run(with_store(lambda store: store.reembeddings.sweep()))
    assert collection_list(path) == []
    assert rows_left(path) == 0


async def test_dead_letters_are_purged_a_few_in_each_transaction_and_none_that_came_since(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedq_store.deadletters, "_DELETED_AT_ONCE", 2)

    def letters(*ids: str, error: str = "E") -> list[DeadLetter]:
        return [DeadLetter("r", 0, "pets", id_, id_, None, "recording", error, "m", 1, 1.0) for id_ in ids]

    await store.write(Write(TARGET, dead=letters("a", "b", "c") + letters("other", error="F") + letters("d", "e")))
    chosen = Selection(error="E")
    (group,) = await store.dead.groups(chosen)
    await store.write(Write(TARGET, dead=letters("since")))
    told: list[int] = []
    assert await store.dead.delete(chosen, group.last_key, told.append) == 5
    assert told == [2, 4, 5]
    assert {letter.id for letter in await store.dead.letters()} == {"other", "since"}


async def test_who_writes_very_much_leaves_the_lock_to_others_between(tmp_path: Path) -> None:
    assert gap(0.0) == 0.0
    assert gap(0.2) == 0.05
    assert 0.1 < gap(10.0) < 0.2, "a moment longer than SQLite's between two looks, and no more"
    async with await Store.open(tmp_path / "x.db") as store:

        async def slow(_: object) -> None:
            await asyncio.sleep(0.02)

        began = time.monotonic()
        await store._access.writer.transact_in_turn(slow)
        assert time.monotonic() - began > 0.02 + gap(0.02) - 0.002


@pytest.mark.parametrize("others", [0, 30])
async def test_figures_are_those_of_the_collection_however_its_rows_are_found(store: Store, others: int) -> None:
    await put(store, "others", items(others, text="a text that is longer") or items(1))
    key = await put(store, "pets", items(3, first=100))
    assert await store.look(partial(scanned, collection_id=key)) == ("" if others else "+")
    assert (await store.describe(key)).entries == 3
    assert (await store.describe(key)).vector_bytes == 3 * len(VECTOR)
    assert await store.look(partial(usual_dimension, collection_id=key)) == 1


async def test_an_audit_tells_how_far_it_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedq_store.auditing, "SLICE_ROWS", 2)
    key = await put(store, "pets", items(5))
    told: list[int] = []
    await store.audits.findings(key, sample=0, seed=1, told=told.append)
    assert told == [2, 4, 5]


async def test_ids_alone_stand_in_the_order_of_entries_and_are_read_from_the_index(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "x.db") as store:
        await put(store, "pets", [Item(id_, id_) for id_ in ("b", "ü", "B", "a/1", "a")])
        async with store.transfer.snapshot(await store.collection("pets"), "a") as snapshot:
            ids = [id_ async for page in snapshot.ids() for id_ in page]
            assert ids == [entry.id async for page in snapshot.pages() for entry in page] == ["a", "a/1"]
            sql = "EXPLAIN QUERY PLAN SELECT id FROM embeddings WHERE collection_id = 1 AND id >= '' ORDER BY id"
            (plan,) = await store.look(lambda db: db.execute(sql).fetchall())
            assert "COVERING INDEX" in plan[-1]


def log_size(store: Store) -> int:
    return Path(f"{store.path}-wal").stat().st_size


async def test_a_log_that_others_keep_from_being_begun_anew_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedq_store.log, "LONG_BYTES", 100_000)
    path = tmp_path / "x.db"
    async with await Store.open(path) as store:
        (patience,) = await store._access.change(lambda db: db.execute("PRAGMA busy_timeout").fetchone())
        (copying,) = await store._access.change(lambda db: db.execute("PRAGMA wal_autocheckpoint").fetchone())
        key = await put(store, "pets", items(300))
        async with store.transfer.snapshot(await store.collection("pets")) as snapshot:
            for first in range(300, 1800, 300):
                await put(store, "pets", items(300, first=first))
            grown = log_size(store)
            assert grown > 200_000, "what a reader needs is kept, and nobody waits for it each time"
            assert (await snapshot.figures()).entries == 300
        for first in range(1800, 3300, 300):
            await put(store, "pets", items(300, first=first))
        assert log_size(store) < grown
        assert await store.count(key) == 3300
        assert await store._access.change(lambda db: db.execute("PRAGMA busy_timeout").fetchone()) == (patience,)
        assert await store._access.change(lambda db: db.execute("PRAGMA wal_autocheckpoint").fetchone()) == (copying,)


async def test_a_short_log_is_left_alone(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "x.db") as store:
        await put(store, "pets", items(300))
        assert not Log(store.path).is_long
        assert not Log(str(tmp_path / "none.db")).is_long
        assert log_size(store) > 0
