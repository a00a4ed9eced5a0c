"""Reading what the store knows about items that came in, many at a time."""

import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain

import aiosqlite

from embedq_store.bulk import in_thread, marks, steps
from embedq_store.outcomes import Incoming, Known, Stored, contents_to_find


def look_up(db: sqlite3.Connection, collection_id: int, incoming: Sequence[Incoming]) -> Known:
    """What is stored under the ids of `incoming`, and the vectors of their contents stored under other ids."""
    by_id = _compared(db, collection_id, incoming)
    vectors: dict[bytes, bytes] = {}
    for digests in steps(contents_to_find(incoming, by_id)):
        vectors.update(db.execute(_by_content(len(digests)), (*digests, collection_id)))
    return Known(by_id, vectors)


def _compared(db: sqlite3.Connection, collection_id: int, incoming: Sequence[Incoming]) -> dict[str, Stored]:
    """What is stored under the ids of `incoming`. SQLite compares; only rows that differ are read into Python."""
    by_id: dict[str, Stored] = {}
    differing: list[str] = []
    for some in steps(incoming):
        values = chain.from_iterable([(item.id, digest, item.metadata) for item, digest in some])
        same, others = db.execute(_comparison(len(some)), (*values, collection_id)).fetchone()
        for code in map(int, same.split(",")) if same else ():
            item, digest = some[code >> 1]
            by_id[item.id] = Stored._make((digest, item.metadata, code & 1 == 1))
        differing += [some[int(number)].item.id for number in others.split(",")] if others else ()
    return by_id | _under(db, collection_id, differing)


@cache
def _comparison(rows: int) -> str:
    """Two texts in one row: '2n+1' for each item that is stored as it came ('2n' without content), and 'n' for each
    whose hash or metadata differ.
    """
    wanted = ",".join(f"({number},?,?,?)" for number in range(rows))
    return (
        f"WITH wanted (number, id, hash, metadata) AS (VALUES {wanted})"  # noqa: S608 - only question marks
        " SELECT group_concat(CASE WHEN same THEN number * 2 + has_content END),"
        " group_concat(CASE WHEN same THEN NULL ELSE number END) FROM"
        " (SELECT number, content_hash IS hash AND embeddings.metadata IS wanted.metadata AS same,"
        " content IS NOT NULL OR content_blob IS NOT NULL AS has_content"
        " FROM wanted CROSS JOIN embeddings ON embeddings.collection_id = ? AND embeddings.id = wanted.id)"
    )


@cache
def _by_content(rows: int) -> str:
    # The inner query stops at the first row of the collection, however many rows share the content.
    return (
        f"WITH wanted (hash) AS (VALUES {marks(rows, '(?)')})"  # noqa: S608 - only question marks
        " SELECT wanted.hash, embeddings.embedding FROM wanted JOIN embeddings ON embeddings.rowid ="
        " (SELECT rowid FROM embeddings WHERE content_hash = wanted.hash AND collection_id = ?"
        " AND length(embedding) > 0 LIMIT 1)"
    )


async def stored_under(db: aiosqlite.Connection, collection_id: int, ids: Sequence[str]) -> dict[str, Stored]:
    """What is stored under `ids`."""
    return await in_thread(db, lambda connection: _under(connection, collection_id, ids))


def _under(db: sqlite3.Connection, collection_id: int, ids: Sequence[str]) -> dict[str, Stored]:
    rows = _where_in(
        db,
        "SELECT id, content_hash, metadata, content IS NOT NULL OR content_blob IS NOT NULL"
        " FROM embeddings WHERE collection_id = ? AND id IN",
        collection_id,
        ids,
    )
    return {row[0]: Stored(row[1], row[2], bool(row[3])) for row in rows}


async def where_in(db: aiosqlite.Connection, sql: str, value: object, ids: Sequence[str]) -> list[sqlite3.Row]:
    """The rows of `sql`, which has a mark for `value` and ends with IN, for all of `ids`."""
    return await in_thread(db, lambda connection: _where_in(connection, sql, value, ids))


def _where_in(db: sqlite3.Connection, sql: str, value: object, ids: Sequence[str]) -> list[sqlite3.Row]:
    rows: list[sqlite3.Row] = []
    for some in steps(ids):
        rows.extend(db.execute(f"{sql} ({marks(len(some))})", (value, *some)))
    return rows
