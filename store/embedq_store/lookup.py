"""Reading what the store knows about items that came in, many at a time."""

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
    by_id: dict[str, Stored] = {}
    for ids in _slices([entry.item.id for entry in incoming]):
        rows = await db.execute_fetchall(
            "SELECT id, content_hash, metadata, content IS NOT NULL OR content_blob IS NOT NULL"  # noqa: S608
            f" FROM embeddings WHERE collection_id = ? AND id IN ({_marks(len(ids))})",
            (collection_id, *ids),
        )
        by_id.update((row[0], Stored(row[1], row[2], bool(row[3]))) for row in rows)
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


def _slices(values: Sequence[_T]) -> Iterator[list[_T]]:
    iterator = iter(values)
    while some := list(islice(iterator, _BOUND)):
        yield some


def _marks(count: int) -> str:
    return ",".join("?" * count)
