"""Many rows in one statement: the same rows, byte for byte, as one statement for each."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedq_core.items import Item
from embedq_store import Incoming, Known, Row, Stored
from embedq_store.bulk import STEP_ROWS, insert, packed, steps
from embedq_store.lookup import look_up
from embedq_store.schema import LLM_TABLES

NOW = 1_800_000_000

texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(["", "\0", "a\0b", "\ufeff", "🐕", "1e3"])
items = st.builds(Item, texts, texts | st.binary(max_size=12), st.none() | texts)
corpora = st.lists(items, max_size=20)


@contextmanager
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        for statement in LLM_TABLES:
            db.execute(statement)
        yield db


def rows_of(corpus: list[Item]) -> list[Row]:
    return [Row(*entry, number.to_bytes(4, "little")) for number, entry in enumerate(Incoming.of(corpus))]


def insert_one_by_one(db: sqlite3.Connection, collection_id: int, rows: list[Row], *, store: bool) -> None:
    for item, digest, vector in rows:
        text = item.content if store and isinstance(item.content, str) else None
        blob = item.content if store and isinstance(item.content, bytes) else None
        values = (collection_id, item.id, vector, text, blob, digest, item.metadata, NOW)
        db.execute("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)


def stored(db: sqlite3.Connection) -> list[tuple[object, ...]]:
    return db.execute("SELECT rowid, * FROM embeddings ORDER BY rowid").fetchall()


@settings(max_examples=50)
@given(corpora, corpora, st.booleans())
def test_rows_are_stored_as_if_each_were_inserted_by_itself(first: list[Item], then: list[Item], store: bool) -> None:
    with database() as bulk, database() as plain:
        for corpus in (first, then):
            insert(bulk, 7, packed(rows_of(corpus), store=store), NOW)
            insert_one_by_one(plain, 7, rows_of(corpus), store=store)
        assert stored(bulk) == stored(plain)


@pytest.mark.parametrize("count", [STEP_ROWS - 1, STEP_ROWS, STEP_ROWS + 1, 3 * STEP_ROWS + 7])
def test_so_it_is_with_more_rows_than_a_statement_takes(count: int) -> None:
    rows = rows_of([Item(f"{number % 500}", f"text {number}") for number in range(count)])
    with database() as bulk, database() as plain:
        insert(bulk, 1, packed(rows, store=True), NOW)
        insert_one_by_one(plain, 1, rows, store=True)
        assert stored(bulk) == stored(plain)


@settings(max_examples=50)
@given(corpora, corpora, corpora)
def test_what_is_known_is_what_is_stored(kept: list[Item], without_content: list[Item], incoming: list[Item]) -> None:
    with database() as db:
        insert_one_by_one(db, 1, rows_of(kept), store=True)
        insert_one_by_one(db, 1, rows_of(without_content), store=False)
        insert_one_by_one(db, 2, rows_of(incoming), store=True)
        # Of what is stored, some comes again as it is.
        entries = Incoming.of([*incoming, *kept, *without_content])
        known = look_up(db, 1, entries)
        ids = {entry.item.id for entry in entries}
        rows = db.execute(
            "SELECT id, content_hash, metadata, coalesce(content, content_blob) IS NOT NULL, embedding"
            " FROM embeddings WHERE collection_id = 1"
        ).fetchall()
        by_id = {row[0]: Stored(row[1], row[2], bool(row[3])) for row in rows if row[0] in ids}
        assert known.by_id == by_id
        moved = {
            entry.digest for entry in entries if by_id.get(entry.item.id, Stored(None, None, False))[0] != entry.digest
        }
        assert known.vectors.keys() == {row[1] for row in rows} & moved
        assert set(known.vectors.items()) <= {(row[1], row[4]) for row in rows}
        assert look_up(db, 3, entries) == Known()


@given(st.integers(0, 5 * STEP_ROWS))
def test_steps_are_of_few_lengths_and_leave_nothing_out(count: int) -> None:
    lengths = [len(step) for step in steps(range(count))]
    assert [value for step in steps(range(count)) for value in step] == list(range(count))
    assert set(lengths) <= {2**power for power in range(STEP_ROWS.bit_length())}
    assert len(lengths) <= count // STEP_ROWS + STEP_ROWS.bit_length()
