"""Reading what the store knows about items that came in, many at a time."""

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar

import aiosqlite

from embedq_store.outcomes import Incoming, Known, Stored, contents_to_find

# Values bound to one statement. SQLite allows 32,766; beyond a few hundred nothing is gained, and statements
# of few different lengths stay in the cache of prepared ones.
_BOUND: Final = 512

_T = TypeVar("_T")


async def look_up(db: aiosqlite.Connection, collection_id: int, incoming: Sequence[Incoming]) -> Known:
    """What is stored under the ids of `incoming`, and the vectors of their contents stored under other ids."""
    by_id = await stored_under(db, collection_id, [entry.item.id for entry in incoming])
    vectors: dict[bytes, bytes] = {}
    for digests in _slices(contents_to_find(incoming, by_id)):
        # The inner query stops at the first row of the collection, however many rows share the content.
        rows = await db.execute_fetchall(
            f"WITH wanted (hash) AS (VALUES {','.join(['(?)'] * len(digests))})"  # noqa: S608 - only question marks
            " SELECT wanted.hash, embeddings.embedding FROM wanted JOIN embeddings ON embeddings.rowid ="
            " (SELECT rowid FROM embeddings WHERE content_hash = wanted.hash AND collection_id = ? LIMIT 1)",
            (*digests, collection_id),
        )
        vectors.update((row[0], row[1]) for row in rows)
    return Known(by_id, vectors)


async def stored_under(db: aiosqlite.Connection, collection_id: int, ids: Sequence[str]) -> dict[str, Stored]:
    """What is stored under `ids`."""
    rows = await where_in(
        db,
        "SELECT id, content_hash, metadata, content IS NOT NULL OR content_blob IS NOT NULL"
        " FROM embeddings WHERE collection_id = ? AND id IN",
        collection_id,
        ids,
    )
    return {row[0]: Stored(row[1], row[2], bool(row[3])) for row in rows}


async def where_in(db: aiosqlite.Connection, sql: str, value: object, ids: Sequence[str]) -> list[sqlite3.Row]:
    """The rows of `sql`, which has a mark for `value` and ends with IN, for all of `ids`."""
    rows: list[sqlite3.Row] = []
    for some in _slices(ids):
        rows.extend(await db.execute_fetchall(f"{sql} ({_marks(len(some))})", (value, *some)))
    return rows


def _slices(values: Sequence[_T]) -> Iterator[list[_T]]:
    iterator = iter(values)
    while some := list(islice(iterator, _BOUND)):
        yield some


def _marks(count: int) -> str:
    return ",".join("?" * count)
