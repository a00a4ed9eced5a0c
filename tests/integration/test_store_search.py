"""Search answers from the rows as they are now, whoever changed them, and as exactly as a full scan."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import llm
import numpy as np
import pytest
import sqlite_utils
from hypothesis import given, settings
from hypothesis import strategies as st
from llm.models import EmbeddingModel as LlmModel

from embedq_core.items import Item
from embedq_core.vectors import cosine_similarity, decode, encode
from embedq_store import Entry, Incoming, Row, Store, Target, Write
from support.models import vector_of

TARGET = Target("pets", "recording")

Vectors = dict[str, Sequence[float]]


@pytest.fixture
async def vectors(tmp_path: Path) -> AsyncIterator[Store]:
    async with await Store.open(tmp_path / "embeddings.db") as store:
        yield store


async def put(store: Store, rows: Vectors, target: Target = TARGET) -> int:
    """Store these vectors; the collection's id."""
    incoming = Incoming.of([Item(id_, f"text of {id_}") for id_ in rows])
    await store.write(Write(target, [Row(*entry, encode(rows[entry.item.id])) for entry in incoming]))
    return (await store.collection(target.collection)).id


def full_scan(
    path: str, collection_id: int, query: Sequence[float], number: int, skip_id: str | None = None, prefix: str = ""
) -> list[tuple[str, float]]:
    """What every search must answer: all rows, scored in float64, best first, ties by id."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT id, embedding FROM embeddings WHERE collection_id = ?", (collection_id,))
        scored = [
            (id_, cosine_similarity(decode(blob), query))
            for id_, blob in rows
            if id_ != skip_id and id_.startswith(prefix)
        ]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:number]


async def answer(
    store: Store,
    collection_id: int,
    query: Sequence[float],
    number: int = 10,
    skip_id: str | None = None,
    prefix: str | None = None,
) -> list[tuple[str, Any]]:
    entries = await store.search.similar(collection_id, query, number, skip_id=skip_id, prefix=prefix)
    return [(entry.id, entry.score) for entry in entries]


async def ids(store: Store, collection_id: int, query: Sequence[float] = (1.0, 0.0), number: int = 10) -> list[str]:
    return [id_ for id_, _ in await answer(store, collection_id, query, number)]


ROWS: Vectors = {"east": [1, 0], "north-east": [2, 2], "north": [0, 3], "west": [-1, 0], "nowhere": [0, 0]}


async def test_the_nearest_come_first_with_their_cosine(vectors: Store) -> None:
    pets = await put(vectors, ROWS)
    assert await answer(vectors, pets, [5.0, 0.0]) == [
        ("east", 1.0),
        ("north-east", pytest.approx(0.5**0.5)),
        ("north", 0.0),
        ("nowhere", 0.0),
        ("west", -1.0),
    ]


async def test_an_entry_has_its_content_and_metadata(vectors: Store) -> None:
    (incoming,) = Incoming.of([Item("a", "hound", '{"colour": "brown"}')])
    await vectors.write(Write(TARGET, [Row(*incoming, encode([1.0]))]))
    assert await vectors.search.similar(1, [2.0]) == [Entry("a", 1.0, "hound", {"colour": "brown"})]


@pytest.mark.parametrize("number", [1, 2, 3, 5, 6, 1000])
async def test_no_more_than_asked_for_and_no_more_than_there_are(vectors: Store, number: int) -> None:
    pets = await put(vectors, ROWS)
    assert await answer(vectors, pets, [1.0, 0.5], number) == full_scan(vectors.path, pets, [1.0, 0.5], number)
    assert len(await ids(vectors, pets, number=number)) == min(number, 5)


async def test_an_empty_collection_and_one_that_isnt_there_answer_nothing(vectors: Store) -> None:
    info = await vectors.create_collection("pets", "recording")
    assert await vectors.search.similar(info.id, [1.0, 0.0]) == []
    assert await vectors.search.similar(12345, [1.0, 0.0]) == []


async def test_a_query_of_zeros_scores_0_and_answers_in_the_order_of_ids(vectors: Store) -> None:
    pets = await put(vectors, ROWS)
    assert await answer(vectors, pets, [0.0, 0.0], 3) == [("east", 0.0), ("north", 0.0), ("north-east", 0.0)]


async def test_a_query_of_another_dimension_is_refused(vectors: Store) -> None:
    pets = await put(vectors, ROWS)
    with pytest.raises(ValueError, match="the query has 3 dimensions; the collection's vectors have 2"):
        await vectors.search.similar(pets, [1.0, 2.0, 3.0])


async def test_a_row_of_another_dimension_that_another_tool_stored_is_left_out(vectors: Store) -> None:
    pets = await put(vectors, ROWS)
    change(vectors.path, "INSERT INTO embeddings (collection_id, id, embedding) VALUES (?, 'odd', ?)", pets, b"\0" * 12)
    assert len(await ids(vectors, pets)) == 5


async def test_the_entry_to_skip_is_left_out_even_if_it_is_the_nearest(vectors: Store) -> None:
    pets = await put(vectors, ROWS)
    assert await answer(vectors, pets, [1.0, 0.0], 1, skip_id="east") == [("north-east", pytest.approx(0.5**0.5))]
    assert len(await answer(vectors, pets, [1.0, 0.0], 9, skip_id="east")) == 4


@pytest.mark.parametrize("prefix", ["", "north", "north-", "e", "w", "x", "northz", "North"])
async def test_only_ids_with_the_prefix_are_answered(vectors: Store, prefix: str) -> None:
    pets = await put(vectors, ROWS)
    found = await answer(vectors, pets, [1.0, 0.2], 10, prefix=prefix)
    assert found == full_scan(vectors.path, pets, [1.0, 0.2], 10, prefix=prefix)


@pytest.mark.parametrize("wildcard", ["%", "_", "*", "?", "[a]"])
async def test_a_prefix_is_no_pattern(vectors: Store, wildcard: str) -> None:
    pets = await put(vectors, {"a": [1], f"{wildcard}b": [1]})
    assert [id_ for id_, _ in await answer(vectors, pets, [1.0], prefix=wildcard)] == [f"{wildcard}b"]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)


@settings(max_examples=40)
@given(st.sets(texts, min_size=1, max_size=12), texts)
async def test_any_text_is_a_prefix(names: set[str], prefix: str) -> None:
    async with await Store.open() as store:
        pets = await put(store, {name: [1.0] for name in names | {prefix + "x"}})
        found = [entry.id for entry in await store.search.similar(pets, [1.0], 100, prefix=prefix)]
        assert found == sorted(name for name in names | {prefix + "x"} if name.startswith(prefix))


coordinates = st.one_of(st.integers(-2, 2).map(float), st.floats(width=32, allow_nan=False, allow_infinity=False))


@st.composite
def collections(draw: st.DrawFn) -> tuple[Vectors, list[float]]:
    dimension = draw(st.integers(1, 4))
    vector = st.lists(coordinates, min_size=dimension, max_size=dimension)
    names = draw(st.sets(st.text("ab", max_size=5), min_size=1, max_size=20))
    return {name: draw(vector) for name in sorted(names)}, draw(vector)


@settings(max_examples=60)
@given(collections(), st.integers(1, 25), st.sampled_from(["", "a", "ab"]), st.sampled_from([None, "a", "b"]))
async def test_search_equals_a_full_scan_in_float64_with_ties_by_id(
    tmp_path_factory: pytest.TempPathFactory,
    collection: tuple[Vectors, list[float]],
    number: int,
    prefix: str,
    skip_id: str | None,
) -> None:
    rows, query = collection
    path = tmp_path_factory.mktemp("scan") / "embeddings.db"
    async with await Store.open(path) as store:
        pets = await put(store, rows)
        found = await answer(store, pets, query, number, skip_id, prefix)
        assert found == full_scan(str(path), pets, query, number, skip_id, prefix)


async def test_thousands_of_rows_with_many_ties_equal_a_full_scan(vectors: Store) -> None:
    random = np.random.default_rng(1)
    rows = {f"{number:05}": random.integers(-2, 3, size=3).tolist() for number in range(20_000)}
    pets = await put(vectors, rows)
    for number in (1, 7, 700):
        query = random.normal(size=3).tolist()
        assert await answer(vectors, pets, query, number) == full_scan(vectors.path, pets, query, number)


# --- whatever changes the rows


def change(path: str | Path, sql: str, *parameters: object, **named: object) -> None:
    """Change the database as another program would, with plain SQLite."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql, named or parameters)
        connection.commit()


def sqlite_of_another_process(path: str, sql: str) -> None:
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit(); c.close()"
    subprocess.run([sys.executable, "-c", code, path, sql], check=True)


INSERT = "INSERT OR REPLACE INTO embeddings (collection_id, id, embedding) VALUES"
BLOB = encode([1.0, 0.0]).hex()

CHANGES: dict[str, tuple[str, Callable[[list[str]], list[str]]]] = {
    "a new row": (f"{INSERT} (1, 'aa', x'{BLOB}')", lambda before: ["aa", *before]),
    "a replaced row": (
        f"{INSERT} (1, 'west', x'{BLOB}')",
        lambda _: ["east", "west", "north-east", "north", "nowhere"],
    ),
    "a vector changed in place": (
        f"UPDATE embeddings SET embedding = x'{BLOB}' WHERE id = 'west'",
        lambda _: ["east", "west", "north-east", "north", "nowhere"],
    ),
    "an id changed in place": (
        "UPDATE embeddings SET id = 'zzz' WHERE id = 'east'",
        lambda before: ["zzz", *before[1:]],
    ),
    "a deleted row": ("DELETE FROM embeddings WHERE id = 'east'", lambda before: before[1:]),
    "all rows deleted": ("DELETE FROM embeddings", lambda _: []),
    "a row moved to another collection": (
        "UPDATE embeddings SET collection_id = 2 WHERE id = 'east'",
        lambda before: before[1:],
    ),
    "a row that was added and deleted": (
        f"{INSERT} (1, 'east', x'{encode([-5.0, 0.0]).hex()}')",
        lambda _: ["north-east", "north", "nowhere", "east", "west"],
    ),
    "a changed text": ("UPDATE embeddings SET content = 'new' WHERE id = 'east'", lambda before: before),
    "the file vacuumed": ("VACUUM", lambda before: before),
    "an upsert": (
        INSERT.replace(" OR REPLACE", "")
        + f" (1, 'west', x'{BLOB}') ON CONFLICT DO UPDATE SET embedding = excluded.embedding",
        lambda _: ["east", "west", "north-east", "north", "nowhere"],
    ),
}


def by_another_connection(path: str, sql: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(sql)


@pytest.mark.parametrize("apply", [by_another_connection, sqlite_of_another_process], ids=["connection", "process"])
@pytest.mark.parametrize("kind", CHANGES)
async def test_the_next_query_sees(vectors: Store, kind: str, apply: Callable[[str, str], None]) -> None:
    pets = await put(vectors, ROWS)
    before = await ids(vectors, pets)
    sql, after = CHANGES[kind]
    await asyncio.to_thread(apply, vectors.path, sql)
    assert await ids(vectors, pets) == after(before)
    assert await answer(vectors, pets, [1.0, 0.0]) == full_scan(vectors.path, pets, [1.0, 0.0], 10)


async def test_a_row_deleted_and_another_made_with_its_rowid_between_two_queries(vectors: Store) -> None:
    pets = await put(vectors, {"a": [1, 0], "b": [0, 1]})
    assert await ids(vectors, pets) == ["a", "b"]
    change(vectors.path, "DELETE FROM embeddings WHERE id = 'b'")
    change(vectors.path, f"{INSERT} (1, 'c', x'{BLOB}')")
    assert await ids(vectors, pets) == ["a", "c"]


async def test_a_table_made_anew_with_other_rowids(vectors: Store) -> None:
    pets = await put(vectors, ROWS)
    assert (await ids(vectors, pets))[0] == "east"
    with closing(sqlite3.connect(vectors.path, isolation_level=None)) as other:
        (sql,) = other.execute("SELECT sql FROM sqlite_master WHERE name = 'embeddings'").fetchone()
        other.execute(sql.replace('"embeddings"', '"anew"'))
        other.execute("INSERT INTO anew SELECT * FROM embeddings ORDER BY rowid DESC")
        other.execute("DROP TABLE embeddings")  # its triggers go with it
        other.execute("ALTER TABLE anew RENAME TO embeddings")
    async with await Store.open(vectors.path):
        pass  # makes the triggers again
    assert await answer(vectors, pets, [1.0, 0.5], 2) == full_scan(vectors.path, pets, [1.0, 0.5], 2)
    change(vectors.path, f"{INSERT} (1, 'a', x'{BLOB}')")
    assert await answer(vectors, pets, [1.0, 0.5], 2) == full_scan(vectors.path, pets, [1.0, 0.5], 2)


async def test_where_nothing_changed_the_vectors_are_not_read_again(vectors: Store) -> None:
    pets = await put(vectors, ROWS)
    await ids(vectors, pets)
    statements: list[str] = []
    await vectors._access.reader.set_trace_callback(statements.append)
    await ids(vectors, pets)
    assert not [statement for statement in statements if statement.startswith("SELECT rowid, embedding")]
    # What is new is read, and only that.
    await put(vectors, {"south": [0, -1]})
    assert "south" in await ids(vectors, pets)
    (read,) = (statement for statement in statements if statement.startswith("SELECT rowid, embedding"))
    assert "rowid > 5 " in read


async def test_a_collection_deleted_and_made_again_under_the_same_id(vectors: Store, tmp_path: Path) -> None:
    pets = await put(vectors, ROWS)
    assert len(await ids(vectors, pets)) == 5
    async with await Store.open(tmp_path / "embeddings.db") as other:
        await other.delete_collection(pets)
        assert await put(other, {"x": [1, 1, 1], "y": [0, 0, 1]}, Target("docs", "hashing")) == pets
    assert await ids(vectors, pets, (0.0, 0.0, 1.0)) == ["y", "x"]


async def test_other_collections_do_not_mix(vectors: Store) -> None:
    pets = await put(vectors, ROWS)
    docs = await put(vectors, {"south": [0, -1]}, Target("docs", "hashing"))
    assert await ids(vectors, docs) == ["south"]
    assert "south" not in await ids(vectors, pets)


async def test_the_stores_own_writes_are_seen(vectors: Store) -> None:
    pets = await put(vectors, {"a": [1, 0]})
    for number in range(30):
        await put(vectors, {f"b{number}": [1, number + 1]})
        assert len(await ids(vectors, pets, number=100)) == number + 2


async def test_the_same_rows_replaced_again_and_again_leave_one_answer_each(vectors: Store) -> None:
    random = np.random.default_rng(2)
    for _ in range(12):
        pets = await put(vectors, {str(number): random.normal(size=2).tolist() for number in range(2000)})
        assert await answer(vectors, pets, [1.0, 0.0], 5) == full_scan(vectors.path, pets, [1.0, 0.0], 5)
    assert len(await ids(vectors, pets, number=9999)) == 2000


async def test_a_database_in_memory_is_searched_and_sees_its_changes() -> None:
    async with await Store.open() as store:
        pets = await put(store, ROWS)
        assert (await ids(store, pets))[0] == "east"
        await put(store, {"aa": [1, 0]})
        assert (await ids(store, pets))[:2] == ["aa", "east"]
        await store.delete_collection(pets)
        assert await ids(store, pets) == []


async def test_what_the_real_llm_changes_is_seen(vectors: Store) -> None:
    pets = await put(vectors, {id_: vector_of(id_) for id_ in ("hound", "cat")}, Target("pets", "twin"))
    query = vector_of("hound")
    assert (await ids(vectors, pets, query))[0] == "hound"
    with closing(sqlite_utils.Database(vectors.path)) as database:
        collection = llm.Collection("pets", database, model=LlmTwin())
        collection.embed("dog", "hound")
        assert (await ids(vectors, pets, query))[:2] == ["dog", "hound"]
        collection.embed_multi([("cow", "cow"), ("dog", "horse")])
        assert await answer(vectors, pets, query) == full_scan(vectors.path, pets, query, 10)
        collection.delete()  # type: ignore[no-untyped-call] # llm has no type there
        assert await ids(vectors, pets, query) == []


class LlmTwin(LlmModel):
    """The tests' model as a model of llm."""

    model_id = "twin"

    def embed_batch(self, items: Iterable[str | bytes], *, key: str | None = None) -> Iterator[list[float]]:
        assert key is None
        return map(vector_of, items)


async def test_a_file_without_embedqs_triggers_is_searched_and_its_changes_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "llm.db"
    with closing(sqlite_utils.Database(path)) as database:
        llm.Collection("pets", database, model=LlmTwin()).embed_multi([("a", "hound"), ("b", "cat")])
    async with await Store.open(path, read_only=True) as store:
        assert (await ids(store, 1, vector_of("hound")))[0] == "a"
        change(path, "UPDATE embeddings SET embedding = ? WHERE id = 'b'", encode(vector_of("hound")))
        change(path, "DELETE FROM embeddings WHERE id = 'a'")
        assert await answer(store, 1, vector_of("hound")) == [("b", pytest.approx(1.0))]


# A row that the seed chooses, so that a failure can be repeated.
ANY_ROW = (
    "rowid = (SELECT rowid FROM embeddings WHERE collection_id = 1 ORDER BY rowid LIMIT 1 OFFSET"
    " :number % max(1, (SELECT count(*) FROM embeddings WHERE collection_id = 1)))"
)
STATEMENTS = {
    "insert": INSERT.replace("VALUES", "SELECT 1, 'new ' || :number, :vector"),
    "replace": INSERT.replace("VALUES", "SELECT 1, id, :vector FROM embeddings WHERE ") + ANY_ROW,
    "update": "UPDATE embeddings SET embedding = :vector WHERE " + ANY_ROW,
    "delete": "DELETE FROM embeddings WHERE " + ANY_ROW,
    "delete the last": "DELETE FROM embeddings WHERE rowid = (SELECT max(rowid) FROM embeddings)",
    "delete all": "DELETE FROM embeddings WHERE collection_id = 1",
    "move": "UPDATE OR REPLACE embeddings SET collection_id = 2 WHERE " + ANY_ROW,
}
operations = st.lists(st.sampled_from([*STATEMENTS, "vacuum", "write", "rewrite"]), min_size=1, max_size=12)


@settings(max_examples=25)
@given(operations, st.integers(0, 2**32 - 1))
async def test_after_any_changes_the_answer_equals_a_full_scan(
    tmp_path_factory: pytest.TempPathFactory, todo: list[str], seed: int
) -> None:
    random = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("changes") / "embeddings.db"

    def vector() -> list[float]:
        return [float(value) for value in random.integers(-3, 4, size=3)]

    async with await Store.open(path) as store, await Store.open(path) as other:
        pets = await put(store, {str(number): vector() for number in range(6)})
        docs = await put(store, {"elsewhere": vector()}, Target("docs", "recording"))
        for operation in [*todo, "query"]:
            if operation in STATEMENTS:
                change(path, STATEMENTS[operation], number=int(random.integers(1000)), vector=encode(vector()))
            elif operation == "vacuum":
                by_another_connection(str(path), "VACUUM")
            elif operation == "write":
                await put(store, {f"written {random.integers(1000)}": vector() for _ in range(4)})
            elif operation == "rewrite":
                await put(other, {str(number): vector() for number in range(0, 8, 3)})
            if operation == "query" or random.random() < 0.7:  # sometimes several changes come between two queries
                query = vector()
                for collection in (pets, docs):
                    expected = full_scan(str(path), collection, query, 4)
                    assert await answer(store, collection, query, 4) == expected
                    assert await answer(other, collection, query, 4) == expected


async def test_queries_at_the_same_time_do_not_disturb_each_other_or_the_writer(vectors: Store) -> None:
    pets = await put(vectors, {f"{number:04}": vector_of(str(number)) for number in range(500)})

    async def ask(number: int) -> None:
        assert (await ids(vectors, pets, vector_of(str(number)), 1)) == [f"{number:04}"]

    async def write(number: int) -> None:
        await put(vectors, {f"new {number}": vector_of(f"new {number}")})

    await asyncio.gather(*(ask(number) for number in range(0, 500, 10)), *(write(number) for number in range(50)))
    assert len(await ids(vectors, pets, vector_of("1"), 1000)) == 550
