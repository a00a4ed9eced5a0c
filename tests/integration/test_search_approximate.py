"""Approximate search: never a stale entry or a wrong score, and where the index is of no use the exact answer."""

import asyncio
import importlib.util
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedq
from embedq_core.errors import UsageError
from embedq_core.items import Item
from embedq_core.vectors import cosine_similarity, decode, encode
from embedq_store import (
    Built,
    Incoming,
    Row,
    Store,
    Target,
    Write,
    approximate,
    copying,
    freshness,
    graph,
    indexing,
    rows,
    search,
)
from embedq_store.copying import INDEX_LOCK, CopyFolder, CopyLock
from embedq_store.schema import LLM_TABLES
from support.copies import change, folder
from support.waiting import Eventually

TARGET = Target("pets", "recording")
DIMENSION = 6
QUERY = [1.0, 0.5, -0.25, 0.0, 0.1, 0.2]
INSERT = "INSERT OR REPLACE INTO embeddings (collection_id, id, embedding)"


@pytest.fixture(autouse=True)
def _small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows are as a million, and nothing is built behind a test's back."""
    for module, name, value in (
        (rows, "RESIDENT_BYTES", 3 * 4 * DIMENSION),
        (rows, "_READ_ROWS", 4),
        (rows, "_RETRY_SECONDS", 0.0),
        (freshness, "_SPARE_ROWS", 3),
        (approximate, "_SMALL_BYTES", 0),
        (approximate, "_SPARE_ROWS", 4),
        (approximate, "_NEAR_SHARE", 0),
        (approximate, "_RETRY_SECONDS", 0.0),
        (approximate, "start_building", lambda *_: None),
    ):
        monkeypatch.setattr(module, name, value)


async def put(store: Store, vectors: dict[str, list[float]], target: Target = TARGET) -> int:
    items = [Item(id_, f"text of {id_}", metadata=f'{{"length": {len(id_)}}}') for id_ in vectors]
    incoming = Incoming.of(items)
    await store.write(Write(target, [Row(*entry, encode(vectors[entry.item.id])) for entry in incoming]))
    return (await store.collection(target.collection)).id


def some_vectors(count: int, seed: int, prefix: str = "") -> dict[str, list[float]]:
    random = np.random.default_rng(seed)
    return {f"{prefix}{number:03}": random.normal(size=DIMENSION).tolist() for number in range(count)}


def full_scan(path: Path, number: int, query: list[float] = QUERY) -> list[tuple[str, float]]:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT id, embedding FROM embeddings WHERE collection_id = 1")
        scored = [(id_, cosine_similarity(decode(blob), query)) for id_, blob in found]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:number]


async def answer(store: Store, number: int, query: list[float] = QUERY, **options: Any) -> list[tuple[str, Any]]:
    return [(entry.id, entry.score) for entry in await store.search.similar(1, query, number, ann=True, **options)]


def indexed(store: Store) -> int:
    """How many rows the index has that the last approximate search asked."""
    found = store.search._indexes[1]._approximate._graph
    return 0 if found is None else found.size


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A database with a collection of 40 rows, and its index."""
    database = tmp_path / "embeddings.db"
    async with await Store.open(database) as store:
        await put(store, some_vectors(40, seed=1))
        assert await store.search.build_index(1) is Built.DONE
    return database


@pytest.fixture
def no_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """No query is answered by scoring all rows."""

    async def refuse(*_: object) -> None:
        raise AssertionError("an exact search")

    monkeypatch.setattr(search.CollectionIndex, "_search", refuse)
    monkeypatch.setattr(search.CollectionIndex, "_search_group", refuse)


# --- whatever happens

CHANGES = {
    "insert": f"{INSERT} VALUES (1, 'new ' || :number, :vector)",
    "replace": f"{INSERT} SELECT 1, id, :vector FROM embeddings WHERE collection_id = 1 AND rowid % 7 = :number % 7",
    "update": "UPDATE embeddings SET embedding = :vector WHERE rowid = :number % 40 + 1",
    "delete": "DELETE FROM embeddings WHERE rowid % 5 = :number % 5",
    "delete the last": "DELETE FROM embeddings WHERE rowid = (SELECT max(rowid) FROM embeddings)",
    "delete all": "DELETE FROM embeddings WHERE collection_id = 1",
    "move": "UPDATE OR REPLACE embeddings SET collection_id = 2 WHERE rowid % 6 = :number % 6",
    "move here": "UPDATE OR REPLACE embeddings SET collection_id = 1 WHERE collection_id = 2",
    "renumber": "UPDATE OR IGNORE embeddings SET rowid = :number % 60 + 1 WHERE rowid = :number % 11 + 1",
    "vacuum": "VACUUM",
}
EVENTS = ("write", "build", "back up", "restore", "cut short", "damage", "lose")


class Story:
    """A database, a process that has it open for long, and what becomes of it."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.random = np.random.default_rng(seed)

    async def open(self) -> None:
        self.store = await Store.open(self.path)

    async def happen(self, event: str) -> None:
        number = int(self.random.integers(1000))
        backup = self.path.with_suffix(".backup")
        if event in CHANGES:
            # Not one of which two have the same vector: which of them an index names is chance.
            vector = encode(self.random.normal(size=DIMENSION).tolist())
            change(self.path, CHANGES[event], number=number, vector=vector)
        elif event == "write":
            await put(self.store, some_vectors(6, number, f"written {number} "))
        elif event == "build":
            await self.store.search.build_index(1)
        elif event == "back up":
            change(self.path, "PRAGMA wal_checkpoint(TRUNCATE)")
            shutil.copy(self.path, backup)
        elif event == "restore" and backup.exists():
            await self.store.close()
            shutil.copy(backup, self.path)
            await self.open()
        elif event != "restore":
            harm(self.path, ("*.graph", "*.index")[number % 2], event)


def harm(path: Path, pattern: str, how: str) -> None:
    """Harm files that nobody has mapped: they are replaced."""
    for file in folder(path).glob(pattern):
        data = file.read_bytes()
        file.unlink()
        if how == "cut short":
            file.write_bytes(data[: len(data) // 2])
        elif how == "damage":
            file.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])


@settings(max_examples=12)
@given(st.lists(st.sampled_from([*CHANGES, *EVENTS]), min_size=2, max_size=10), st.integers(0, 2**32 - 1))
async def test_an_index_that_is_asked_for_more_rows_than_there_are_answers_as_a_full_scan(
    tmp_path_factory: pytest.TempPathFactory, events: list[str], seed: int
) -> None:
    story = Story(tmp_path_factory.mktemp("story") / "embeddings.db", seed)
    await story.open()
    try:
        await put(story.store, some_vectors(40, seed))
        await put(story.store, some_vectors(5, seed + 1), Target("docs", "recording"))
        await story.store.search.build_index(1)
        for event in [*events, "build"]:
            await story.happen(event)
            if story.random.random() < 0.7:  # sometimes several things happen between two queries
                query = story.random.normal(size=DIMENSION).tolist()
                expected = full_scan(story.path, 4, query)
                assert await answer(story.store, 4, query) == expected
                async with await Store.open(story.path, read_only=True) as fresh:
                    assert await answer(fresh, 4, query) == expected
    finally:
        await story.store.close()


# --- one thing at a time


@pytest.mark.usefixtures("no_scan")
async def test_a_new_process_is_answered_by_the_index(path: Path) -> None:
    async with await Store.open(path, read_only=True) as store:
        assert await answer(store, 10) == full_scan(path, 10)
        many = await store.search.similar_many(1, [QUERY, QUERY], 10, ann=True)
        assert [[(entry.id, entry.score) for entry in entries] for entries in many] == [full_scan(path, 10)] * 2
        assert store.search.why_exact(1) is None


@pytest.mark.usefixtures("no_scan")
@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM embeddings WHERE id = :nearest",
        f"{INSERT} SELECT 1, id, :vector FROM embeddings WHERE id = :nearest",
        "UPDATE embeddings SET collection_id = 2 WHERE id = :nearest",
        f"{INSERT} VALUES (1, 'new', :like)",
    ],
    ids=["deleted", "replaced", "moved", "new"],
)
async def test_what_another_program_has_done_since_is_seen_without_building_anew(path: Path, sql: str) -> None:
    async with await Store.open(path, read_only=True) as store:
        before = await answer(store, 5)
        opposite, like = ([factor * value for value in QUERY] for factor in (-1, 2))
        change(path, sql, nearest=before[0][0], vector=encode(opposite), like=encode(like))
        # A change in place makes the copy anew, whose index is another: then there is none to ask.
        if sql.startswith("UPDATE"):
            await store.search.build_index(1)
        after = await answer(store, 5)
        assert before != after == full_scan(path, 5)
        assert indexed(store) in (39, 40)


@pytest.mark.usefixtures("no_scan")
async def test_where_most_of_the_nearest_are_gone_the_index_is_asked_for_more(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approximate, "_NEAR", 4)
    monkeypatch.setattr(approximate, "_NEAR_GROWTH", 2)
    monkeypatch.setattr(freshness, "_SPARE_ROWS", 8192)
    async with await Store.open(path, read_only=True) as store:
        for id_, _ in full_scan(path, 20):
            change(path, "DELETE FROM embeddings WHERE id = :id AND rowid < 40", id=id_)
        change(path, f"{INSERT} VALUES (1, 'far', :vector)", vector=encode([-value for value in QUERY]))
        assert await answer(store, 4) == full_scan(path, 4)


@pytest.mark.usefixtures("no_scan")
async def test_a_row_that_has_the_rowid_and_the_place_of_one_that_the_index_holds_is_answered_once(path: Path) -> None:
    async with await Store.open(path, read_only=True) as store:
        await answer(store, 5)
        change(path, "DELETE FROM embeddings WHERE rowid > 37")
        for number in range(2):
            vector = encode([value + number / 10 for value in QUERY])
            change(path, f"{INSERT} VALUES (1, :id, :vector)", id=f"new {number}", vector=vector)
        assert await answer(store, 10) == full_scan(path, 10)
        assert await answer(store, 10, [-value for value in QUERY]) == full_scan(path, 10, [-value for value in QUERY])
        assert indexed(store) == 40


async def test_where_no_more_are_there_than_asked_for_all_are_answered(path: Path) -> None:
    async with await Store.open(path, read_only=True) as store:
        assert await answer(store, 100) == full_scan(path, 100)
        assert await answer(store, 3, [0.0] * DIMENSION) == [("000", 0.0), ("001", 0.0), ("002", 0.0)]


async def test_a_row_that_the_index_lacks_is_no_answer_in_the_place_of_a_nearer_one_that_it_did_not_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approximate, "_NEAR", 4)
    monkeypatch.setattr(approximate, "_NEAR_MOST", 4)
    async with await Store.open(path, read_only=True) as store:
        plain = [id_ for id_, _ in full_scan(path, 4)]
        for id_ in plain:
            change(path, "UPDATE embeddings SET metadata = '{}' WHERE id = :id", id=id_)
        change(path, f"{INSERT} VALUES (1, 'far', :vector)", vector=encode([-value for value in QUERY]))
        change(
            path,
            "UPDATE embeddings SET metadata = '{\"kind\": 1}' WHERE id NOT IN (:a, :b, :c, :d)",
            **dict(zip("abcd", plain, strict=True)),
        )
        # The four that the index names don't pass; what it lacks does, but so does the fifth.
        assert await answer(store, 1, where={"kind": 1}) == full_scan(path, 5)[4:]


@pytest.mark.parametrize(
    "options", [{"where": {"length": 3}}, {"prefix": "00"}, {"prefix": "none"}, {"skip_id": "013"}]
)
async def test_filters_and_skipping_answer_as_the_exact_search_does(path: Path, options: dict[str, Any]) -> None:
    async with await Store.open(path) as store:
        await put(store, some_vectors(2, 5, "new") | {"00new": QUERY})
        exact = [(entry.id, entry.score) for entry in await store.search.similar(1, QUERY, 8, **options)]
        assert await answer(store, 8, **options) == exact


async def test_where_few_have_the_prefix_the_index_is_not_asked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph.Graph, "nearest", None)
    async with await Store.open(path) as store:
        assert [id_ for id_, _ in await answer(store, 8, prefix="007")] == ["007"]


@pytest.mark.parametrize("pattern", ["*.graph", "*.index"])
@pytest.mark.parametrize("how", ["lose", "cut short", "damage"])
async def test_a_damaged_index_is_not_asked_and_built_anew(path: Path, pattern: str, how: str) -> None:
    harm(path, pattern, how)
    async with await Store.open(path, read_only=True) as store:
        assert await answer(store, 5) == full_scan(path, 5)
        assert indexed(store) == 0
        assert "being built" in str(store.search.why_exact(1))
        assert await store.search.build_index(1) is Built.DONE
        assert await answer(store, 5) == full_scan(path, 5)
        assert indexed(store) == 40
    assert len(list(folder(path).glob("*.graph"))) == 1


async def test_the_index_is_extended_when_it_lacks_many_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    monkeypatch.setattr(approximate, "start_building", lambda _, collection_id: started.append(collection_id))
    async with await Store.open(path) as store:
        await put(store, some_vectors(4, 5, "new"))
        await answer(store, 5)
        assert started == []
        await put(store, some_vectors(8, 6, "newer"))
        assert await answer(store, 5) == full_scan(path, 5)
        assert started == [1]
        monkeypatch.setattr(graph.Graph, "empty", None)  # the rows of the one that is there are not added again
        await store.search.build_index(1)
        assert await answer(store, 5) == full_scan(path, 5)
        assert indexed(store) == 52


async def test_the_first_to_ask_has_the_index_built_by_a_process_of_its_own(
    path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(rows, "RESIDENT_BYTES", 0)
    monkeypatch.setattr(approximate, "_NEAR_SHARE", 0)
    harm(path, "*.index", "lose")
    async with await Store.open(path, read_only=True) as store:
        assert await answer(store, 5) == full_scan(path, 5)
        assert "being built" in str(store.search.why_exact(1))

        async def there_is_one() -> bool:
            await answer(store, 1)
            return store.search.why_exact(1) is None

        await eventually(there_is_one)
        assert await answer(store, 5) == full_scan(path, 5)
        assert indexed(store) == 40


# --- building


async def test_only_one_builds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    copies = CopyFolder(str(path))
    lock = CopyLock(copies, 1, INDEX_LOCK)
    assert lock.take()
    monkeypatch.setattr(subprocess, "Popen", None)
    approximate.start_building(copies, 1)
    assert indexing.build(str(path), 1) is Built.BUSY
    waiting = asyncio.create_task(indexing.build_meanwhile(str(path), 1, None))
    await asyncio.sleep(0)
    assert not waiting.done()
    lock.release()
    assert await waiting is Built.DONE


async def test_what_was_built_is_given_up_when_the_copy_is_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_STEP_ROWS", 10)
    harm(path, "*.index", "lose")
    changes = ["DELETE FROM embeddings WHERE id < '010'", "VACUUM"]

    def disturb(_: int, __: int) -> None:
        while changes:
            change(path, changes.pop(0))
        asyncio.run(search_once())

    async def search_once() -> None:
        async with await Store.open(path, read_only=True) as store:
            await store.search.similar(1, QUERY)

    assert await asyncio.to_thread(indexing.build, str(path), 1, disturb) is Built.DONE
    async with await Store.open(path, read_only=True) as store:
        assert await answer(store, 5) == full_scan(path, 5)
        assert indexed(store) == 30
    assert len(list(folder(path).glob("*.graph"))) == len(list(folder(path).glob("*.vectors"))) == 1


@pytest.mark.parametrize("when", ["while rows are added", "while it is saved"])
async def test_an_index_of_a_collection_that_is_deleted_while_it_is_built_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    harm(path, "*.index", "lose")
    save = graph.Graph.save

    monkeypatch.setattr(indexing, "_STEP_ROWS", 10)
    reports: list[int] = []

    def delete(done: int, _: int) -> None:
        reports.append(done)
        CopyFolder(str(path)).remove(1)

    def save_and_delete(*arguments: Any) -> None:
        save(*arguments)
        # As if all but the index had gone before it was put in place.
        for file in folder(path).glob("1.head"):
            file.unlink()

    if when == "while it is saved":
        monkeypatch.setattr(graph.Graph, "save", save_and_delete)
    report = delete if when == "while rows are added" else None
    assert await asyncio.to_thread(indexing.build, str(path), 1, report) is Built.NO_COPY
    assert not [file for file in folder(path).iterdir() if file.suffix in (".graph", ".index", ".new")]
    assert reports in ([], [10])


async def test_building_that_is_stopped_leaves_nothing_and_keeps_nobody_from_building(path: Path) -> None:
    harm(path, "*.index", "lose")

    def stop(_: int, __: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        indexing.build(str(path), 1, stop)
    assert not list(folder(path).glob("*.index"))
    (copy,) = folder(path).glob("*.vectors")
    (folder(path) / f"{copy.stem}.dead.graph").write_bytes(b"what somebody who was killed has left")
    assert indexing.build(str(path), 1) is Built.DONE
    assert len(list(folder(path).glob("*.graph"))) == 1


async def test_a_deleted_collection_takes_its_index_with_it(path: Path) -> None:
    async with await Store.open(path) as store:
        await store.delete_collection(1)
    assert not list(folder(path).iterdir())


async def test_a_copy_that_is_made_anew_takes_the_index_of_the_old_one_with_it(path: Path) -> None:
    change(path, "VACUUM")
    async with await Store.open(path, read_only=True) as store:
        assert await answer(store, 5) == full_scan(path, 5)
    assert not [file for file in folder(path).iterdir() if file.suffix in (".graph", ".index")]


# --- where there is none


async def test_a_copy_that_is_one_process_s_alone_has_no_index(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(folder(path))
    monkeypatch.setattr(copying, "_BUSY_SECONDS", 0.01)
    monkeypatch.setattr(approximate, "start_building", None)
    async with await Store.open(path, read_only=True) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as writing:
            writing.execute("BEGIN IMMEDIATE")
            assert await answer(store, 5) == full_scan(path, 5)
        assert "locked" in str(store.search.why_exact(1))


async def test_without_usearch_it_says_in_one_line_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    async with await Store.open(path, read_only=True) as store:
        with pytest.raises(UsageError, match=r"^approximate search needs usearch: pip install 'embedq\[ann\]'$"):
            await answer(store, 5)
        with pytest.raises(UsageError):
            await store.search.build_index(1)
        assert len(await store.search.similar(1, QUERY, 5)) == 5


async def test_where_no_process_can_be_started_to_build_it_searches_are_exact_and_it_is_said_why(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    harm(path, "*.index", "lose")
    async with await Store.open(path, read_only=True) as store:
        monkeypatch.setattr(approximate, "start_building", refuse)
        assert await answer(store, 5) == full_scan(path, 5)
        assert store.search.why_exact(1) == "its index can't be built: [Errno 13] Permission denied"
        monkeypatch.setattr(approximate, "start_building", lambda *_: None)
        await answer(store, 5)
        assert "being built" in str(store.search.why_exact(1))


async def test_a_file_of_llm_s_own_is_searched_exactly_and_it_is_said_why(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    for statement in LLM_TABLES:
        change(path, statement)
    change(path, "INSERT INTO collections VALUES (1, 'pets', 'recording')")
    for id_, vector in some_vectors(10, 1).items():
        change(path, f"{INSERT} VALUES (1, :id, :vector)", id=id_, vector=encode(vector))
    async with await Store.open(path, read_only=True) as store:
        assert await answer(store, 5) == full_scan(path, 5)
        assert "beside the database" in str(store.search.why_exact(1))
        assert await store.search.build_index(1) is Built.NO_COPY


def test_every_search_of_a_collection_can_be_approximate() -> None:
    with embedq.Collection("phrases", model_id="hashing") as phrases:
        phrases.embed_multi([("hound", "my happy hound"), ("cat", "my dissatisfied cat"), ("owl", "an owl at night")])
        phrases.build_index()
        vectors = np.random.default_rng(1).normal(size=(2, 384))
        assert phrases.similar("hound", ann=True) == phrases.similar("hound")
        assert phrases.similar_by_id("hound", ann=True) == phrases.similar_by_id("hound")
        assert phrases.similar_by_vector(vectors[0], ann=True) == phrases.similar_by_vector(vectors[0])
        assert phrases.similar_many(["hound"], ann=True) == phrases.similar_many(["hound"])
        assert phrases.similar_many_by_id(["cat"], ann=True) == phrases.similar_many_by_id(["cat"])
        assert phrases.similar_many_by_vector(vectors, ann=True) == phrases.similar_many_by_vector(vectors)
