"""A collection as it stood at one moment, read entry by entry in bounded memory, whatever is written meanwhile."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import aiosqlite

from embedq_core.configuration import Configuration
from embedq_store.bulk import in_thread, stoppable
from embedq_store.configurations import configuration_in_force
from embedq_store.connection import connect, translated
from embedq_store.ranges import with_prefix
from embedq_store.standing import CollectionInfo

_PAGE_BYTES: Final = 8 << 20
_PAGE_ROWS: Final = 2048
# Another tool may have stored no vector.
_VECTOR_BYTES: Final = "coalesce(length(embedding), 0)"


class StoredEntry(NamedTuple):
    """A row as it is stored: `vector` holds 32-bit floats, little-endian; `content` is None where it was not kept,
    `digest` is the hash of the content, `metadata` the text of an object, `updated` in seconds since the epoch.
    """

    id: str
    vector: bytes
    content: str | bytes | None
    digest: bytes | None
    metadata: str | None
    updated: int | None

    @property
    def size(self) -> int:
        """Its bytes, about."""
        return len(self.vector) + len(self.content or "") + len(self.metadata or "") + len(self.id)


class SnapshotFigures(NamedTuple):
    """What a collection holds: `texts` and `blobs` count contents of each kind, `dimensions` is the least and the
    greatest dimension of a vector, `longest_id` in characters; `nul_ids` counts ids that hold a NUL.
    """

    entries: int
    texts: int
    blobs: int
    bytes: int
    dimensions: tuple[int, int] | None
    longest_id: int
    nul_ids: int

    @property
    def page_rows(self) -> int:
        """How many rows to have in hand at a time: fewer where they are large."""
        return max(1, min(_PAGE_ROWS, _PAGE_BYTES * self.entries // max(self.bytes, 1)))


class Snapshot:
    """The entries of a collection whose ids start with a prefix. Made by `snapshot`."""

    def __init__(self, db: aiosqlite.Connection, path: str, info: CollectionInfo, prefix: str) -> None:
        condition, bounds = with_prefix(prefix)
        self.info = info
        self._db = db
        self._path = path
        self._source = f"FROM embeddings WHERE collection_id = ? AND {condition}"
        self._values = (info.id, *bounds)
        self._figures: SnapshotFigures | None = None

    async def configuration(self) -> Configuration | None:
        """What the vectors were made with beside the model; None where there are none."""
        with translated(self._path):
            return await in_thread(self._db, lambda db: configuration_in_force(db, self.info.id))

    async def figures(self) -> SnapshotFigures:
        """What there is: looks at every entry once."""
        if self._figures is None:
            sql = (
                "SELECT count(*), count(content), count(content_blob),"
                f" coalesce(sum({_VECTOR_BYTES} + length(id)"
                " + coalesce(length(CAST(content AS BLOB)), length(content_blob), 0)"
                f" + coalesce(length(metadata), 0)), 0), min({_VECTOR_BYTES}) / 4, max({_VECTOR_BYTES}) / 4,"
                f" coalesce(max(length(id)), 0), coalesce(sum(instr(id, char(0)) > 0), 0) {self._source}"
            )
            with translated(self._path):
                row = await stoppable(self._db, lambda db: db.execute(sql, self._values).fetchone())
            entries, texts, blobs, size, least, greatest, longest, nuls = row
            dimensions = None if least is None else (least, greatest)
            self._figures = SnapshotFigures(entries, texts, blobs, size, dimensions, longest, nuls)
        return self._figures

    async def ids(self) -> AsyncIterator[list[str]]:
        """The ids of all entries, in the order of `pages`: read from SQLite's index alone."""
        async for rows in self._rows(f"SELECT id {self._source} ORDER BY id", _PAGE_ROWS):
            yield [row[0] for row in rows]

    async def pages(self) -> AsyncIterator[list[StoredEntry]]:
        """All entries, in the order of ids, some MiB at a time; the same each time this is called."""
        count = (await self.figures()).page_rows
        sql = (
            "SELECT id, coalesce(embedding, x''), coalesce(content, content_blob), content_hash, metadata, updated"
            f" {self._source} ORDER BY id"
        )
        async for rows in self._rows(sql, count):
            yield list(map(StoredEntry._make, rows))

    async def _rows(self, sql: str, count: int) -> AsyncIterator[list[tuple[Any, ...]]]:
        """What a statement gives, so many rows at a time."""
        with translated(self._path):
            cursor = await in_thread(self._db, lambda db: db.execute(sql, self._values))
            # Whoever gives up the reading leaves the cursor to the connection, which closes it: an iterator that is let
            # go of hears of it when the connection may be gone.
            while rows := await in_thread(self._db, lambda _: cursor.fetchmany(count)):
                yield rows


@asynccontextmanager
async def snapshot(
    path: str, info: CollectionInfo, prefix: str = "", busy_seconds: float = 30.0
) -> AsyncIterator[Snapshot]:
    """The collection as it stands now, for the block: what is committed meanwhile is not seen.

    Until the block ends, the write-ahead log can't be begun anew, and grows with what is written.
    """
    db = await connect(path, read_only=True, busy_seconds=busy_seconds)
    try:
        with translated(path):
            await in_thread(db, _begin)
        yield Snapshot(db, path, info, prefix)
    finally:
        await db.close()


def _begin(db: sqlite3.Connection) -> None:
    db.execute("BEGIN")
    # The moment is that of the first reading.
    db.execute("SELECT 1 FROM collections LIMIT 1").fetchone()
