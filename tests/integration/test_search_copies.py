"""The mapped copy of a collection: whatever happens to it or to the database, answers are those of a full scan."""

import asyncio
import shutil
import sqlite3
import tempfile
import threading
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedq_core.items import Item
from embedq_core.vectors import cosine_similarity, decode, encode
from embedq_store import Incoming, Row, Store, Target, Write, copying, freshness, mapped, rows
from embedq_store.schema import LLM_TABLES
from support.copies import change, folder
from support.waiting import BOUND_SECONDS

TARGET = Target("pets", "recording")

INSERT = "INSERT OR REPLACE INTO embeddings (collection_id, id, embedding)"
# Rows that the seed chooses, so that a failure can be repeated.
ANY_ROW = (
    "rowid = (SELECT rowid FROM embeddings WHERE collection_id = 1 ORDER BY rowid LIMIT 1 OFFSET"
    " :number % max(1, (SELECT count(*) FROM embeddings WHERE collection_id = 1)))"
)
STATEMENTS = {
    "insert": f"{INSERT} SELECT 1, 'new ' || :number, :vector",
    "insert elsewhere": f"{INSERT} SELECT 2, 'new ' || :number, :vector",
    "replace": f"{INSERT} SELECT 1, id, :vector FROM embeddings WHERE {ANY_ROW}",
    "update": f"UPDATE embeddings SET embedding = :vector WHERE {ANY_ROW}",
    "delete": f"DELETE FROM embeddings WHERE {ANY_ROW}",
    "delete the last": "DELETE FROM embeddings WHERE rowid = (SELECT max(rowid) FROM embeddings)",
    "delete the last of it": "DELETE FROM embeddings WHERE rowid ="
    " (SELECT max(rowid) FROM embeddings WHERE collection_id = 1)",
    "delete many": "DELETE FROM embeddings WHERE collection_id = 1 AND rowid % 3 = :number % 3",
    "delete all": "DELETE FROM embeddings WHERE collection_id = 1",
    "delete all elsewhere": "DELETE FROM embeddings WHERE collection_id = 2",
    "move": f"UPDATE OR REPLACE embeddings SET collection_id = 2 WHERE {ANY_ROW}",
    "move here": "UPDATE OR REPLACE embeddings SET collection_id = 1 WHERE rowid ="
    " (SELECT max(rowid) FROM embeddings WHERE collection_id = 2)",
    "rename to the last": "UPDATE OR REPLACE embeddings SET id = (SELECT id FROM embeddings WHERE collection_id = 1"
    f" ORDER BY rowid DESC LIMIT 1) WHERE {ANY_ROW}",
    "renumber": f"UPDATE OR IGNORE embeddings SET rowid = :number % 40 + 1 WHERE {ANY_ROW}",
    "vacuum": "VACUUM",
}
# And what happens to the files: see `Story`.
EVENTS = ("write", "rewrite", "back up", "restore", "copy row by row", "cut short", "damage", "leave behind", "lose")


@pytest.fixture(autouse=True)
def _small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows are as a million."""
    for module, name, value in (
        (rows, "RESIDENT_BYTES", 3 * 12),
        (rows, "_READ_ROWS", 4),
        (rows, "_RETRY_SECONDS", 0.0),
        (freshness, "_SPARE_ROWS", 3),
        (mapped, "SUM_ROWS", 2),
        (copying, "SUM_ROWS", 2),
        (copying, "_COPY_BYTES", 36),
    ):
        monkeypatch.setattr(module, name, value)


async def put(store: Store, vectors: dict[str, list[float]], target: Target = TARGET) -> int:
    incoming = Incoming.of([Item(id_, f"text of {id_}") for id_ in vectors])
    await store.write(Write(target, [Row(*entry, encode(vectors[entry.item.id])) for entry in incoming]))
    return (await store.collection(target.collection)).id


def full_scan(path: Path, collection_id: int, query: list[float], number: int) -> list[tuple[str, float]]:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT id, embedding FROM embeddings WHERE collection_id = ?", (collection_id,))
        scored = [(id_, cosine_similarity(decode(blob), query)) for id_, blob in found]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:number]


async def answer(store: Store, collection_id: int, query: list[float], number: int) -> list[tuple[str, Any]]:
    return [(entry.id, entry.score) for entry in await store.search.similar(collection_id, query, number)]


async def mapped_rows(store: Store, collection_id: int) -> int:
    """How many rows the store has mapped."""
    await store.search.similar(collection_id, [1.0, 0.0, 0.0])
    held = store.search._indexes[collection_id]._rows
    return held._mapped_size


class Story:
    """A database, two processes that have it open, and what becomes of it."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.random = np.random.default_rng(seed)
        self.stack = AsyncExitStack()

    def vector(self) -> list[float]:
        return [float(value) for value in self.random.integers(-3, 4, size=3)]

    async def open(self) -> None:
        self.stack = AsyncExitStack()
        self.one = await self.stack.enter_async_context(await Store.open(self.path))
        # This one searches in blocks of a row.
        self.other = await self.stack.enter_async_context(await Store.open(self.path, search_bytes=1))

    async def close(self) -> None:
        await self.stack.aclose()

    async def happen(self, event: str) -> None:
        number = int(self.random.integers(1000))
        if event in STATEMENTS:
            change(self.path, STATEMENTS[event], number=number, vector=encode(self.vector()))
        elif event == "write":
            await put(self.one, {f"written {number} {one}": self.vector() for one in range(5)})
        elif event == "rewrite":
            await put(self.other, {str(one): self.vector() for one in range(0, 12, 2)})
        elif event == "back up":
            change(self.path, "PRAGMA wal_checkpoint(TRUNCATE)")
            shutil.copy(self.path, self.path.with_suffix(".backup"))
        elif event in ("restore", "copy row by row"):
            await self._replace(event)
        else:
            self._harm(event, number)

    async def _replace(self, event: str) -> None:
        backup = self.path.with_suffix(".backup")
        if event == "copy row by row":
            with closing(sqlite3.connect(self.path)) as source, closing(sqlite3.connect(":memory:")) as target:
                target.executescript("\n".join(source.iterdump()))
                with closing(sqlite3.connect(self.path.with_suffix(".rows"))) as file:
                    target.backup(file)
            backup = self.path.with_suffix(".rows")
        if backup.exists():
            await self.close()
            shutil.copy(backup, self.path)
            await self.open()

    def _harm(self, event: str, number: int) -> None:
        files = sorted(folder(self.path).glob("*")) if folder(self.path).exists() else []
        for file in files[number % 4 : number % 4 + 1]:
            # Files that somebody has mapped are not to be cut short or written to: copies of them are.
            data = file.read_bytes()
            file.unlink()
            match event:
                case "cut short":
                    file.write_bytes(data[: len(data) // 2])
                case "damage" if data:
                    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
                case "leave behind":
                    file.write_bytes(data if file.suffix == ".head" else data + b"what a dead writer has left")


async def agree(story: Story, collections: list[int]) -> None:
    """All answers are those of a full scan: of processes that were there, and of a new one."""
    query = story.vector()
    async with await Store.open(story.path, read_only=True) as fresh:
        for collection in collections:
            expected = full_scan(story.path, collection, query, 4)
            for store in (story.one, story.other, fresh):
                assert await answer(store, collection, query, 4) == expected


@settings(max_examples=12)
@given(st.lists(st.sampled_from([*STATEMENTS, *EVENTS]), min_size=3, max_size=16), st.integers(0, 2**32 - 1))
async def test_after_anything_that_happens_the_answers_are_those_of_a_full_scan(
    tmp_path_factory: pytest.TempPathFactory, events: list[str], seed: int
) -> None:
    story = Story(tmp_path_factory.mktemp("story") / "embeddings.db", seed)
    await story.open()
    try:
        pets = await put(story.one, {str(number): story.vector() for number in range(12)})
        docs = await put(story.one, {"elsewhere": story.vector()}, Target("docs", "recording"))
        await agree(story, [pets, docs])
        assert folder(story.path).joinpath(f"{pets}.head").exists()
        for event in events:
            await story.happen(event)
            if story.random.random() < 0.6:  # sometimes several things happen between two queries
                await agree(story, [pets, docs])
        await agree(story, [pets, docs])
    finally:
        await story.close()


# --- one thing at a time


QUERY = [1.0, 0.5, -0.25]
FAR = [-1.0, -0.5, 0.25]


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A database with a collection of 12 rows, and its copy."""
    database = tmp_path / "embeddings.db"
    random = np.random.default_rng(1)
    async with await Store.open(database) as store:
        await put(store, {f"{number:02}": random.normal(size=3).tolist() for number in range(11)} | {"far": FAR})
        assert await answer(store, 1, QUERY, 4) == full_scan(database, 1, QUERY, 4)
        assert await mapped_rows(store, 1) == 12
    return database


async def read_from_the_table(store: Store) -> tuple[int, int]:
    """How many of the first 12 rows a query reads to find candidates; how many rows are mapped after it."""
    statements: list[str] = []
    await store._access.reader.set_trace_callback(statements.append)
    assert await answer(store, 1, QUERY, 4) == full_scan(Path(store.path), 1, QUERY, 4)
    starts = [int(sql.split("rowid > ")[1].split()[0]) for sql in statements if sql.startswith("SELECT rowid, embed")]
    read = 0 if not starts else max(0, 12 - max(0, min(starts)))
    return read, await mapped_rows(store, 1)


async def test_a_new_process_reads_no_row_that_the_copy_has(path: Path) -> None:
    async with await Store.open(path, read_only=True) as store:
        assert await read_from_the_table(store) == (0, 12)


async def test_after_deletions_only_rows_beyond_the_floor_are_read_again(path: Path) -> None:
    async with await Store.open(path) as store, await Store.open(path, read_only=True) as other:
        await read_from_the_table(other)
        change(path, "DELETE FROM embeddings WHERE rowid IN (2, 3, 11, 12)")
        await put(store, {"new": [1.0, 0.5, -0.2]})  # it gets a rowid that was another's
        assert await read_from_the_table(other) == (2, 10)
        async with await Store.open(path, read_only=True) as fresh:
            assert await read_from_the_table(fresh) == (2, 10)


async def test_a_copy_made_after_a_back_up_is_not_that_of_the_restored_file(path: Path) -> None:
    backup = path.with_suffix(".backup")
    shutil.copy(path, backup)
    async with await Store.open(path) as store:
        await put(store, {f"lost {number}": [-1.0, number, 0.0] for number in range(8)})
        assert await mapped_rows(store, 1) == 20
    shutil.copy(backup, path)
    async with await Store.open(path) as store:
        await put(store, {f"new {number}": [1.0, 0.5, number / 10] for number in range(6)})
        assert await read_from_the_table(store) == (12, 18)


async def test_a_file_in_the_place_of_another_does_not_get_its_copy(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    async with await Store.open(other) as store:
        await put(store, {f"{number:02}": [1.0, 0.5, number / 10] for number in range(12)})
    other.replace(path)
    async with await Store.open(path, read_only=True) as store:
        assert await read_from_the_table(store) == (12, 12)


@pytest.mark.parametrize("sign", [".rows", ".vectors", ".head"])
@pytest.mark.parametrize("harm", ["gone", "empty", "shorter", "zeros at its end"])
async def test_a_damaged_copy_is_made_anew(path: Path, sign: str, harm: str) -> None:
    (file,) = folder(path).glob(f"*{sign}")
    data = file.read_bytes()
    file.unlink()
    if harm != "gone":
        parts = {"empty": b"", "shorter": data[:-3], "zeros at its end": data[:-8] + bytes(8)}
        file.write_bytes(parts[harm])
    async with await Store.open(path, read_only=True) as store:
        assert await read_from_the_table(store) == (12, 12)
    async with await Store.open(path, read_only=True) as store:
        assert await read_from_the_table(store) == (0, 12)


async def test_nothing_is_appended_to_a_file_that_is_not_the_mapped_one(path: Path) -> None:
    async with await Store.open(path) as store:
        assert await mapped_rows(store, 1) == 12
        (file,) = folder(path).glob("*.vectors")
        data = file.read_bytes()
        file.unlink()
        file.write_bytes(data[:24])
        await put(store, {f"new {number}": [-1.0, number, 0.0] for number in range(6)})
        assert await read_from_the_table(store) == (0, 18)
    async with await Store.open(path, read_only=True) as store:
        assert await read_from_the_table(store) == (0, 18)


async def test_where_there_can_be_no_copy_the_rows_are_in_memory(path: Path) -> None:
    shutil.rmtree(folder(path).parent)
    folder(path).parent.write_text("in the way")
    async with await Store.open(path) as store:
        assert await read_from_the_table(store) == (12, 0)
        await put(store, {"new": [1.0, 0.5, -0.2]})
        assert await read_from_the_table(store) == (0, 0)


async def test_where_there_can_be_no_copy_more_than_a_search_may_hold_is_in_a_temporary_file(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(folder(path).parent)
    folder(path).parent.write_text("in the way")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    async with await Store.open(path, search_bytes=50) as store:
        assert await read_from_the_table(store) == (12, 12)
        await put(store, {f"new {number}": [1.0, 0.5, number / 10] for number in range(6)})
        assert await read_from_the_table(store) == (0, 18)
        assert not list(temporary.iterdir())
        temporary.rmdir()
        await put(store, {f"newer {number}": [1.0, 0.5, number / 10] for number in range(6)})
        assert await answer(store, 1, QUERY, 4) == full_scan(path, 1, QUERY, 4)


async def test_a_disk_that_is_full_while_a_copy_is_made_costs_nothing_but_the_copy(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rows, "_RETRY_SECONDS", 60.0)
    async with await Store.open(path) as store:
        await put(store, {f"new {number}": [1.0, 0.5, number / 10] for number in range(6)})
        monkeypatch.setattr(copying.CopyWriter, "sync", refuse)
        assert await read_from_the_table(store) == (12, 0)
    assert len(list(folder(path).glob("1-*"))) == 2
    async with await Store.open(path, read_only=True) as store:
        assert await answer(store, 1, QUERY, 4) == full_scan(path, 1, QUERY, 4)


async def test_a_copy_of_a_database_that_is_locked_is_this_process_s_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(folder(path))
    monkeypatch.setattr(copying, "_BUSY_SECONDS", 0.01)
    async with await Store.open(path, read_only=True) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as writing:
            writing.execute("BEGIN IMMEDIATE")
            assert await read_from_the_table(store) == (12, 12)
            assert not list(folder(path).glob("*.head"))
            assert not list(folder(path).glob("1-*"))


async def test_a_row_replaced_by_another_of_its_rowid_while_the_copy_is_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(folder(path))
    sync = copying.CopyWriter.sync
    changes = ["DELETE FROM embeddings WHERE id = 'far'", f"{INSERT} VALUES (1, 'new', x'{encode(QUERY).hex()}')"]

    def disturbed(writer: copying.CopyWriter) -> None:
        while changes:
            change(path, changes.pop(0))
        sync(writer)

    monkeypatch.setattr(copying.CopyWriter, "sync", disturbed)
    for _ in range(2):
        async with await Store.open(path, read_only=True) as store:
            assert await answer(store, 1, QUERY, 4) == full_scan(path, 1, QUERY, 4)


async def test_a_collection_made_again_with_another_dimension_before_the_end_of_the_table(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness, "_SPARE_ROWS", 8192)  # or all would be read anew in any case
    async with await Store.open(path) as store:
        await put(store, {"last": [1.0]}, Target("docs", "recording"))
        assert await mapped_rows(store, 1) == 12
        change(path, "DELETE FROM embeddings WHERE collection_id = 1")
        await put(store, {"a": [1.0, 0.0], "b": [0.0, 1.0]})
        assert [id_ for id_, _ in await answer(store, 1, [1.0, 0.5], 4)] == ["a", "b"]


async def test_of_many_that_need_a_copy_at_once_one_makes_it(path: Path) -> None:
    shutil.rmtree(folder(path))
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(await Store.open(path, read_only=True)) for _ in range(4)]
        expected = full_scan(path, 1, QUERY, 4)
        assert await asyncio.gather(*(answer(store, 1, QUERY, 4) for store in stores)) == [expected] * 4
        assert {store.search._indexes[1]._rows._mapped_size for store in stores} == {12}
        assert len({store.search._indexes[1]._rows._mapped.head.token for store in stores}) == 1  # type: ignore[union-attr]


async def test_the_copy_of_a_deleted_collection_goes(path: Path) -> None:
    async with await Store.open(path) as store:
        await store.delete_collection(1)
    assert not list(folder(path).iterdir())


@pytest.mark.parametrize("event", ["vacuum", "replace all", "delete and insert"])
async def test_a_change_in_the_middle_of_a_query(path: Path, monkeypatch: pytest.MonkeyPatch, event: str) -> None:
    scores = rows.CollectionRows.scores
    changes = {
        "vacuum": ["DELETE FROM embeddings WHERE rowid < 4", "VACUUM"],
        "replace all": [f"{INSERT} SELECT 1, id, embedding FROM embeddings"],
        "delete and insert": [
            "DELETE FROM embeddings WHERE id = 'far'",  # the last: the new one gets its rowid
            f"{INSERT} VALUES (1, 'new', x'{encode(QUERY).hex()}')",
        ],
    }[event]

    def disturbed(held: rows.CollectionRows, *arguments: Any) -> Any:
        while changes:
            change(path, changes.pop(0))
        return scores(held, *arguments)

    async with await Store.open(path, read_only=True) as store:
        monkeypatch.setattr(rows.CollectionRows, "scores", disturbed)
        assert await answer(store, 1, QUERY, 4) == full_scan(path, 1, QUERY, 4)


async def test_a_file_of_llm_s_own_has_no_copy(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    with closing(sqlite3.connect(path)) as connection:
        for statement in LLM_TABLES:
            connection.execute(statement)
        connection.executemany(
            f"{INSERT} VALUES (1, ?, ?)", [(str(number), encode([1.0, number, 0.0])) for number in range(12)]
        )
        connection.commit()
    async with await Store.open(path, read_only=True) as store:
        assert await answer(store, 1, QUERY, 4) == full_scan(path, 1, QUERY, 4)
        change(path, "DELETE FROM embeddings WHERE rowid = 12")
        change(path, f"{INSERT} VALUES (1, 'new', x'{encode(QUERY).hex()}')")
        assert await answer(store, 1, QUERY, 4) == full_scan(path, 1, QUERY, 4)
    assert not folder(path).exists()


# --- changes that only the counting of changes tells of


@pytest.fixture
def _never_compact(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong is not put right by chance."""
    monkeypatch.setattr(freshness, "_SPARE_ROWS", 8192)


@pytest.mark.usefixtures("_never_compact")
@pytest.mark.parametrize("change_it", ["UPDATE embeddings SET rowid = 3 WHERE id = 'near'", "UPDATE embeddings SET"])
async def test_rows_that_are_changed_or_numbered_anew_in_place_are_read_again(path: Path, change_it: str) -> None:
    change(path, "DELETE FROM embeddings WHERE rowid = 3")
    change(path, "UPDATE embeddings SET id = 'near' WHERE rowid = 7")
    if change_it.endswith("SET"):
        change_it += f" embedding = x'{encode(QUERY).hex()}' WHERE id = 'near'"
    else:
        change(path, f"UPDATE embeddings SET embedding = x'{encode(QUERY).hex()}' WHERE id = 'near'")
    async with await Store.open(path, read_only=True) as other:
        assert await answer(other, 1, QUERY, 1) == full_scan(path, 1, QUERY, 1)
        change(path, change_it)
        async with await Store.open(path, read_only=True) as fresh:
            for store in (other, fresh):
                (best,) = await answer(store, 1, QUERY, 1)
                assert best[0] == "near"


@pytest.mark.usefixtures("_never_compact")
async def test_rows_that_could_not_go_to_the_copy_are_read_again_from_where_it_ends(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_BUSY_SECONDS", 0.01)
    monkeypatch.setattr(rows, "_RETRY_SECONDS", 60.0)
    async with await Store.open(path) as store, await Store.open(path, read_only=True) as other:
        await put(store, {"near": QUERY, "nearer": [1.0, 0.5, -0.24], "last": FAR})
        assert await mapped_rows(other, 1) == 12  # and these three are in memory
        change(path, "DELETE FROM embeddings WHERE id = 'last'")
        await put(store, {f"new {number}": [-1.0, number, 0.0] for number in range(3)})
        with closing(sqlite3.connect(path, isolation_level=None)) as writing:
            writing.execute("BEGIN IMMEDIATE")
            assert await answer(other, 1, QUERY, 4) == full_scan(path, 1, QUERY, 4)
        assert await answer(other, 1, QUERY, 4) == full_scan(path, 1, QUERY, 4)


@pytest.mark.usefixtures("_never_compact")
async def test_a_copy_of_another_dimension_than_the_rows_have_now_is_not_taken(path: Path) -> None:
    async with await Store.open(path) as store:
        assert await mapped_rows(store, 1) == 12
        for number in range(12):
            change(path, f"{INSERT} SELECT 1, id, :vector FROM embeddings WHERE rowid = {number + 1}", vector=bytes(8))
        change(path, f"{INSERT} VALUES (1, 'near', x'{encode([1.0, 0.5]).hex()}')")
        async with await Store.open(path, read_only=True) as fresh:
            for one in (store, fresh):
                assert (await answer(one, 1, [1.0, 0.5], 1))[0][0] == "near"


@pytest.mark.usefixtures("_never_compact")
async def test_a_copy_of_which_nothing_is_right_any_more_is_not_taken(path: Path) -> None:
    change(path, "DELETE FROM embeddings")
    async with await Store.open(path) as store:
        await put(store, {f"new {number}": [1.0, number, 0.5] for number in range(12)})
        assert await answer(store, 1, QUERY, 4) == full_scan(path, 1, QUERY, 4)


# --- copies that are made by those who write


def token(path: Path) -> int:
    head = mapped.read_head(folder(path), 1)
    assert head is not None
    return head.token


async def test_who_has_written_much_makes_the_copy_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_STEP_PAGES", 2)
    path = tmp_path / "embeddings.db"
    answers = [True, False]
    seen = []
    async with await Store.open(path) as store:
        for ids in (range(3), range(3, 30)):
            await put(store, {f"{number:02}": [1.0, number, 0.5] for number in ids})
            seen.append((store.copies_due, await copied(store)))
        for go_on in (lambda: answers.pop(0), lambda: True):
            await store.refresh_copies(go_on)
            seen.append((store.copies_due, await copied(store)))
    assert seen == [(False, 0), (True, 0), (True, 8), (False, 30)]
    async with await Store.open(path, read_only=True) as fresh:
        assert await copied(fresh) == 30
        assert await answer(fresh, 1, QUERY, 4) == full_scan(path, 1, QUERY, 4)


async def copied(store: Store) -> int:
    """How many rows the copy has."""
    head = mapped.read_head(folder(Path(store.path)), 1)
    return 0 if head is None else head.rows


async def test_a_collection_that_only_grows_is_never_copied_anew(path: Path) -> None:
    (file,) = folder(path).glob("*.vectors")
    async with await Store.open(path) as store:
        for first in range(0, 60, 6):
            await put(store, {f"new {first + number}": [-1.0, number, 0.0] for number in range(6)})
            await store.refresh_copies(lambda: True)
        assert await copied(store) == 72
        assert await read_from_the_table(store) == (0, 72)
    assert list(folder(path).glob("*.vectors")) == [file]


@pytest.mark.usefixtures("_never_compact")
@pytest.mark.parametrize("when", ["before the first step", "between two steps"])
async def test_a_damaged_copy_is_not_written_anew_as_if_it_were_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(rows, "_STEP_PAGES", 1)
    first = 12 if when == "before the first step" else 16
    changes = [
        f"{INSERT} SELECT 1, 'copy of ' || id, zeroblob(12) FROM embeddings WHERE rowid < 12",
        f"DELETE FROM embeddings WHERE rowid >= {first}",
    ]
    asked = 0

    def go_on() -> bool:
        nonlocal asked
        asked += 1
        while changes and (first == 12 or asked == 2):
            change(path, changes.pop())
        return True

    (file,) = folder(path).glob("*.vectors")
    units = np.frombuffer(file.read_bytes(), dtype="<f4").reshape(12, 3).copy()
    units[np.argmax(units @ QUERY)] *= -1
    file.unlink()
    file.write_bytes(units.tobytes())
    async with await Store.open(path) as store:
        await put(store, {f"new {number}": [-1.0, number, 0.0] for number in range(12)})
        await store.refresh_copies(go_on)
    assert not changes
    async with await Store.open(path, read_only=True) as fresh:
        assert await answer(fresh, 1, QUERY, 4) == full_scan(path, 1, QUERY, 4)


async def test_where_another_is_at_the_copy_or_there_can_be_none_nothing_is_done(path: Path) -> None:
    before = token(path)
    async with await Store.open(path) as store:
        await put(store, {f"new {number}": [-1.0, number, 0.0] for number in range(6)})
        with closing(copying.CopyLock(copying.CopyFolder(str(path)), 1)) as lock:
            assert lock.take()
            await store.refresh_copies(lambda: True)
        assert (token(path), store.copies_due) == (before, False)
        shutil.rmtree(folder(path).parent)
        folder(path).parent.write_text("in the way")
        await put(store, {f"newer {number}": [-1.0, number, 0.0] for number in range(6)})
        await store.refresh_copies(lambda: True)
        assert not store.copies_due


async def test_rows_that_came_while_another_made_the_copy_are_read_after_it_is_taken(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(folder(path))
    put_head, lock = copying.CopyWriter._put_head, copying.CopyFolder.lock
    ready, asked = threading.Event(), threading.Event()

    def slowly(writer: copying.CopyWriter, head: mapped.Head) -> mapped.MappedRows | None:
        ready.set()
        assert asked.wait(BOUND_SECONDS)
        return put_head(writer, head)

    async def asking(copies: copying.CopyFolder, collection_id: int, seconds: float) -> copying.CopyLock | None:
        if ready.is_set():
            asked.set()
        return await lock(copies, collection_id, seconds)

    monkeypatch.setattr(copying.CopyWriter, "_put_head", slowly)
    monkeypatch.setattr(copying.CopyFolder, "lock", asking)
    monkeypatch.setattr(rows, "_READ_ROWS", 64)  # all that is there is read before a copy is asked for
    async with await Store.open(path, read_only=True) as one, await Store.open(path, read_only=True) as other:
        first = asyncio.create_task(answer(one, 1, QUERY, 4))
        assert await asyncio.to_thread(ready.wait, BOUND_SECONDS)
        change(path, f"{INSERT} VALUES (1, 'new', x'{encode(QUERY).hex()}')")
        assert await answer(other, 1, QUERY, 4) == full_scan(path, 1, QUERY, 4)
        assert await first == full_scan(path, 1, QUERY, 4)
