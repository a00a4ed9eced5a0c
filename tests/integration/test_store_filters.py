"""Filtered searches, and many at once, answer as exactly as a full scan, whatever way is taken and whoever writes."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedq_core.items import Item, metadata_object
from embedq_core.vectors import cosine_similarity, decode, encode
from embedq_store import Incoming, Row, Store, Target, Write, search, selection, shortlist

TARGET = Target("pets", "recording")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with await Store.open(tmp_path / "embeddings.db") as opened:
        yield opened


async def put(store: Store, rows: Mapping[str, tuple[list[float], Any]]) -> None:
    """Store vectors and metadata in collection 1."""
    items = [Item(id_, id_, None if metadata is None else json.dumps(metadata)) for id_, (_, metadata) in rows.items()]
    await store.write(Write(TARGET, [Row(*one, encode(rows[one.item.id][0])) for one in Incoming.of(items)]))


def change(path: str, sql: str, *parameters: object) -> None:
    """Change the database as another program would."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql, parameters)
        connection.commit()


def full_scan(
    path: str, query: list[float], number: int, prefix: str = "", skip_id: str | None = None, **where: object
) -> list[tuple[str, float]]:
    """What must be answered: every row that is kept, scored in float64, ties by id."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT id, embedding, metadata FROM embeddings WHERE collection_id = 1").fetchall()
    scored = [
        (id_, cosine_similarity(decode(blob), query))
        for id_, blob, metadata in rows
        if id_.startswith(prefix)
        and id_ != skip_id
        and all((metadata_object(metadata) or {}).get(key, "none") == value for key, value in where.items())
    ]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:number]


async def answer(
    store: Store, query: list[float], number: int, prefix: str = "", skip_id: str | None = None, **where: Any
) -> list[tuple[str, Any]]:
    entries = await store.search.similar(1, query, number, prefix=prefix, skip_id=skip_id, where=where)
    return [(entry.id, entry.score) for entry in entries]


# Every way that a search can take, made to be taken by small collections too.
WAYS: dict[str, dict[str, float]] = {
    "as it comes": {},
    "rows gathered": {"FEW": 1.0, "_LOOKS": 0, "_LOOK_COST": 1000, "_SMALL_GROUP": 0},
    "rows masked": {"FEW": 0.0, "_LOOKS": 0, "_LOOK_COST": 1000, "_SMALL_GROUP": 0},
    "candidates looked at": {"FEW": 0.0, "_LOOKS": 1000, "_SMALL_GROUP": 1000},
    "in small steps": {"_LOOKS": 4, "_LOOK_COST": 1000, "STEP": 5, "_GROUP": 2, "_READ_ROWS": 3, "_HELD": 2},
}


def take(patch: pytest.MonkeyPatch, way: str) -> None:
    for name, value in WAYS[way].items():
        for module in (search, selection, shortlist):
            if hasattr(module, name):
                patch.setattr(module, name, value)


coordinates = st.integers(-2, 2).map(float)
vectors = st.lists(coordinates, min_size=2, max_size=2)
metadatas = st.none() | st.fixed_dictionaries({"k": st.sampled_from([1, 2, "1"])}, optional={"l": st.booleans()})
rows_of = st.dictionaries(st.text("ab", min_size=1, max_size=4), st.tuples(vectors, metadatas), min_size=1, max_size=25)
filters = st.fixed_dictionaries(
    {}, optional={"prefix": st.sampled_from(["", "a", "ab"]), "k": st.sampled_from([1, "1", 3]), "l": st.booleans()}
)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=15)
@given(rows_of, st.lists(vectors, min_size=1, max_size=5), st.integers(1, 6), st.lists(filters, min_size=1, max_size=3))
async def test_the_answer_equals_a_full_scan(
    tmp_path_factory: pytest.TempPathFactory,
    way: str,
    rows: dict[str, Any],
    queries: list[list[float]],
    number: int,
    kinds: list[dict[str, Any]],
) -> None:
    path = str(tmp_path_factory.mktemp("filters") / "embeddings.db")
    with pytest.MonkeyPatch.context() as patch:
        take(patch, way)
        async with await Store.open(path) as store:
            await put(store, rows)
            for kind in [*kinds, *kinds]:
                skip_id = next(iter(rows))
                expected = [full_scan(path, query, number, skip_id=skip_id, **kind) for query in queries]
                assert [await answer(store, query, number, skip_id=skip_id, **kind) for query in queries] == expected
                where = {key: value for key, value in kind.items() if key != "prefix"}
                many = await store.search.similar_many(
                    1, queries, number, skip_ids=[skip_id] * len(queries), prefix=kind.get("prefix"), where=where
                )
                assert [[(entry.id, entry.score) for entry in entries] for entries in many] == expected


@pytest.mark.parametrize("way", WAYS)
async def test_thousands_of_rows_with_many_ties_equal_a_full_scan(
    store: Store, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(monkeypatch, way)
    random = np.random.default_rng(1)
    await put(
        store,
        {f"{n % 7}/{n:05}": (random.integers(-2, 3, size=3).tolist(), {"k": n % 50, "l": n % 3}) for n in range(2000)},
    )
    queries = random.normal(size=(3, 3)).tolist()
    kinds: list[dict[str, Any]] = [
        {},
        {"k": 7},
        {"l": 1},
        {"prefix": "3/"},
        {"prefix": "3/", "k": 9, "l": 0},
        {"k": 50},
    ]
    for kind in kinds:
        expected = [full_scan(store.path, query, 20, **kind) for query in queries]
        assert [await answer(store, query, 20, **kind) for query in queries] == expected
        where = {key: value for key, value in kind.items() if key != "prefix"}
        many = await store.search.similar_many(1, queries, 20, prefix=str(kind.get("prefix", "")), where=where)
        assert [[(entry.id, entry.score) for entry in entries] for entries in many] == expected


# --- whatever changes the rows

INSERT = "INSERT OR REPLACE INTO embeddings (collection_id, id, embedding, metadata) VALUES (1, ?, ?, ?)"
BLOB = encode([1.0, 0.0])
CHANGES: dict[str, tuple[str, tuple[object, ...]]] = {
    "metadata in place": ("""UPDATE embeddings SET metadata = '{"k": 1}' WHERE id = 'b1'""", ()),
    "metadata in place, away": ("UPDATE embeddings SET metadata = NULL WHERE id = 'a1'", ()),
    "an upsert": (
        INSERT.replace(" OR REPLACE", "") + " ON CONFLICT DO UPDATE SET metadata = excluded.metadata",
        ("b1", BLOB, '{"k": 1}'),
    ),
    "an id in place": ("UPDATE embeddings SET id = 'a9' WHERE id = 'b1'", ()),
    "a new row": (INSERT, ("a9", BLOB, '{"k": 1}')),
    "a replaced row": (INSERT, ("b1", BLOB, '{"k": 1}')),
    "a deleted row": ("DELETE FROM embeddings WHERE id = 'a1'", ()),
    "a new row, with the rowid of the last, which was deleted": (INSERT, ("a9", BLOB, '{"k": 1}')),
    "metadata that is no JSON": ("UPDATE embeddings SET metadata = '{' WHERE id = 'a1'", ()),
    "the file vacuumed": ("VACUUM", ()),
}


@pytest.mark.parametrize("triggers", [True, False], ids=["triggers", "no triggers"])
@pytest.mark.parametrize("kind", CHANGES)
async def test_the_next_query_sees(tmp_path: Path, kind: str, triggers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    take(monkeypatch, "rows gathered")  # the way on which the most is held
    path = str(tmp_path / "embeddings.db")
    async with await Store.open(path) as store:
        await put(store, {f"{'ab'[n % 2]}{n}": ([n, 1.0], {"k": n % 2}) for n in range(6)})
    if not triggers:
        change(path, "DROP TRIGGER embedq_metadata_updated")
    async with await Store.open(path, read_only=True) as store:

        async def expect() -> None:
            kinds: list[dict[str, Any]] = [{"k": 1}, {"prefix": "a"}, {"prefix": "b", "k": 1}]
            for asked in kinds:
                expected = full_scan(path, [1.0, 0.0], 10, **asked)
                assert await answer(store, [1.0, 0.0], 10, **asked) == expected

        await expect()
        await expect()
        sql, parameters = CHANGES[kind]
        if kind == "the file vacuumed":
            change(path, "DELETE FROM embeddings WHERE id = 'b3'")
        if "deleted" in kind:
            change(path, "DELETE FROM embeddings WHERE id = 'b5'")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(sql, parameters)
        await expect()


async def test_where_nothing_changed_metadata_is_read_once_and_then_only_what_is_new(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(monkeypatch, "rows gathered")
    await put(store, {f"{n:03}": ([n, 1.0], {"k": n, "l": n % 2}) for n in range(100)})
    statements: list[str] = []
    await store._access.reader.set_trace_callback(statements.append)

    def reads() -> list[str]:
        found = [statement for statement in statements if statement.startswith("SELECT rowid, metadata")]
        statements.clear()
        return found

    for value in (76, 77):  # the first time SQLite looks for the value, the second time a column is made
        assert len(await answer(store, [1.0, 0.0], 5, k=value)) == 1
        assert reads()
    assert len(await answer(store, [1.0, 0.0], 5, k=76)) == 1
    assert len(await answer(store, [1.0, 0.0], 5, k=78)) == 1
    assert not reads()
    await put(store, {"new": ([1.0, 0.0], {"k": 78})})
    assert len(await answer(store, [1.0, 0.0], 5, k=78)) == 2
    assert all("rowid > 100 " in statement for statement in reads())
    change(store.path, "UPDATE embeddings SET content = 'other' WHERE id = '003'")
    assert len(await answer(store, [1.0, 0.0], 5, k=78)) == 2
    assert not reads()
    change(store.path, "DELETE FROM embeddings WHERE id = '004'")
    assert len(await answer(store, [1.0, 0.0], 5, k=78)) == 2
    assert not reads()
    change(store.path, """UPDATE embeddings SET metadata = '{"k": 78}' WHERE id = '003'""")
    assert len(await answer(store, [1.0, 0.0], 5, k=78)) == 3
    assert reads()


async def test_a_process_that_asks_once_reads_no_column_where_enough_of_the_nearest_pass(store: Store) -> None:
    await put(store, {f"{n:03}": ([n, 1.0], {"k": n % 2}) for n in range(400)})
    statements: list[str] = []
    await store._access.reader.set_trace_callback(statements.append)
    assert len(await answer(store, [1.0, 0.0], 5, k=1)) == 5
    assert not [statement for statement in statements if statement.startswith("SELECT rowid, metadata")]


async def test_more_keys_than_are_kept_are_answered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    take(monkeypatch, "rows gathered")
    keys = [f"k{number}" for number in range(12)]
    await put(store, {f"{n:02}": ([n, 1.0], dict.fromkeys(keys, n)) for n in range(30)})
    for key in [*keys, *keys]:
        assert [entry.id for entry in await store.search.similar(1, [1.0, 0.0], 5, where={key: 7})] == ["07"]


async def test_rows_that_go_while_many_are_searched_for_leave_room_for_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store, {f"{n:03}": ([1.0, float(n)], None) for n in range(100)})
    shortlists = search.CollectionIndex._shortlists

    def meanwhile(self: search.CollectionIndex, *arguments: Any) -> Any:
        found = shortlists(self, *arguments)
        change(store.path, "DELETE FROM embeddings WHERE id BETWEEN '002' AND '050'")
        return found

    monkeypatch.setattr(search.CollectionIndex, "_shortlists", meanwhile)
    answers = await store.search.similar_many(1, [[1.0, 0.0], [0.0, 1.0]], 4)
    assert [[entry.id for entry in entries] for entries in answers] == [
        ["000", "001", "051", "052"],
        ["099", "098", "097", "096"],
    ]


async def test_many_of_nothing_and_many_in_nothing(store: Store) -> None:
    assert await store.search.similar_many(1, []) == []
    assert await store.search.similar_many(1, [[1.0], [2.0]]) == [[], []]
    await put(store, {"a": ([1.0, 0.0], None)})
    assert await store.search.similar_many(1, [], where={"k": 1}) == []
    with pytest.raises(ValueError, match="the query has 3 dimensions; the collection's vectors have 2"):
        await store.search.similar_many(1, [[1.0, 0.0], [1.0, 0.0, 0.0]])


async def test_searches_with_and_without_filters_at_the_same_time_do_not_disturb_each_other(store: Store) -> None:
    await put(store, {f"{n:03}": ([n, 1.0], {"k": n % 50}) for n in range(300)})

    async def ask(n: int) -> None:
        assert await answer(store, [1.0, 0.0], 3, k=n) == full_scan(store.path, [1.0, 0.0], 3, k=n)
        assert len((await store.search.similar_many(1, [[1.0, 0.0]] * 20, 3, prefix=f"{n:03}"[:2]))[7]) == 3

    await asyncio.gather(*(ask(n) for n in range(20)))


async def test_candidates_are_looked_up_by_their_rowids(store: Store) -> None:
    await put(store, {f"{n:03}": ([n, 1.0], None) for n in range(50)})
    statements: list[str] = []
    await store._access.reader.set_trace_callback(statements.append)
    assert len(await answer(store, [1.0, 0.0], 3)) == 3
    (read,) = (statement for statement in statements if "rowid IN" in statement)
    with closing(sqlite3.connect(store.path)) as connection:
        ((*_, plan),) = connection.execute(f"EXPLAIN QUERY PLAN {read}")
    # By the index of ids it would be a walk through the whole collection, longer than scoring it.
    assert "INTEGER PRIMARY KEY (rowid=?)" in plan
