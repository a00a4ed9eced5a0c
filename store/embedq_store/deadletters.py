"""Dead letters: items that could not be embedded, kept whole, so that none is lost and each can be mended.

Here they are read, and deleted by request: reached as `Store.dead`. They are written, and end, in the transaction of
the rows: see `embedq_store.burying`.
"""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

from embedq_core.digests import content_hash
from embedq_store.access import Access
from embedq_store.letters import COLUMNS, DeadGroup, DeadHeading, DeadLetter, DeadLetterSummary, Selection

# A second's work at most: others write between them.
_DELETED_AT_ONCE: Final = 8192

_SIZE: Final = "coalesce(length(CAST(content AS BLOB)), length(content_blob), 0)"


class DeadLetters:
    """The dead letters of a database. A file that is only read may be without their table: then there are none."""

    def __init__(self, access: "Access") -> None:
        self._access = access

    async def ids(self, run: str, chunk: int) -> set[str]:
        """Ids of the items of a chunk that are dead letters."""
        rows = await self._access.rows("SELECT id FROM embedq_dead WHERE run = ? AND chunk = ?", run, chunk)
        return {row[0] for row in rows}

    async def letters(
        self,
        *,
        ids: Sequence[str] = (),
        keys: Sequence[int] = (),
        collection: str | None = None,
        run: str | None = None,
        error: str | None = None,
        limit: int | None = None,
    ) -> list[DeadLetter]:
        """Dead letters, newest first, at most `limit`; of what is named: see `Selection`."""
        condition, values = Selection(tuple(ids), tuple(keys), collection, run, error).condition()
        rows = await self._rows(
            f"SELECT key, {COLUMNS} FROM embedq_dead WHERE {condition} ORDER BY died DESC, key DESC LIMIT :limit",  # noqa: S608
            values | {"limit": -1 if limit is None else limit},
        )
        return [_letter(row) for row in rows]

    async def headings(self, selection: Selection, limit: int | None = None) -> list[DeadHeading]:
        """Dead letters without their contents, newest first, at most `limit`."""
        condition, values = selection.condition()
        rows = await self._rows(
            # The inner query first: sizes are read of those that are wanted.
            f"SELECT key, run, collection, id, {_SIZE}, model, error, message, attempts, died FROM embedq_dead"  # noqa: S608
            f" WHERE key IN (SELECT key FROM embedq_dead WHERE {condition} ORDER BY died DESC, key DESC LIMIT :limit)"
            " ORDER BY died DESC, key DESC",
            values | {"limit": -1 if limit is None else limit},
        )
        return [DeadHeading(*row) for row in rows]

    async def summary(self) -> list[DeadLetterSummary]:
        """How many there are of each collection and error class, most first."""
        rows = await self._rows(
            "SELECT collection, error, count(*) FROM embedq_dead GROUP BY collection, error ORDER BY 3 DESC, 1, 2", {}
        )
        return [DeadLetterSummary(*row) for row in rows]

    async def groups(self, selection: Selection) -> list[DeadGroup]:
        """How many there are of each collection and model."""
        condition, values = selection.condition()
        rows = await self._rows(
            f"SELECT collection, model, count(*), max(key) FROM embedq_dead WHERE {condition}"  # noqa: S608
            " GROUP BY collection, model ORDER BY collection, model",
            values,
        )
        return [DeadGroup(*row) for row in rows]

    async def page(
        self, selection: Selection, after_key: int, last_key: int, *, max_items: int, max_bytes: int
    ) -> list[DeadLetter]:
        """The next dead letters by key, up to `last_key`: at least one if there is one, about `max_bytes` at most."""
        condition, values = selection.condition()
        # By their keys, or SQLite would look at all letters of the collection, and sort them, for each page.
        source = (
            "FROM embedq_dead NOT INDEXED"
            f" WHERE key > :after AND key <= :last AND {condition} ORDER BY key LIMIT :limit"
        )
        values |= {"after": after_key, "last": last_key, "limit": max_items}
        fitting = 0
        for _, size in await self._rows(f"SELECT key, {_SIZE} {source}", values):
            max_bytes -= size
            if max_bytes < 0 and fitting:
                break
            fitting += 1
        values["limit"] = fitting
        return [_letter(row) for row in await self._rows(f"SELECT key, {COLUMNS} {source}", values)]

    async def delete(self, selection: Selection, last_key: int, told: Callable[[int], None] | None = None) -> int:
        """Delete dead letters whose keys are not beyond `last_key`, some thousands in each transaction, the oldest
        first; return how many. `told` is given how many are deleted.
        """
        condition, values = selection.condition()
        chosen = f"SELECT key FROM embedq_dead WHERE key <= :last AND {condition} ORDER BY key LIMIT :limit"  # noqa: S608
        sql = f"DELETE FROM embedq_dead WHERE key IN ({chosen})"  # noqa: S608
        values |= {"last": last_key, "limit": _DELETED_AT_ONCE}
        deleted = 0
        while some := await self._access.change_in_turn(lambda db: db.execute(sql, values).rowcount):
            deleted += some
            if told is not None:
                told(deleted)
            if some < _DELETED_AT_ONCE:
                break
        return deleted

    async def delete_stored(self, selection: Selection) -> int:
        """Delete dead letters whose items the store holds all the same, since another tool has put them there."""
        condition, values = selection.condition()
        sql = (
            f"DELETE FROM embedq_dead WHERE {condition} AND EXISTS ("  # noqa: S608
            " SELECT 1 FROM collections JOIN embeddings ON embeddings.collection_id = collections.id"
            " WHERE collections.name = embedq_dead.collection AND collections.model = embedq_dead.model"
            " AND embeddings.id = embedq_dead.id"
            " AND (embedq_dead.metadata IS NULL OR embedq_dead.metadata = embeddings.metadata)"
            " AND embeddings.content_hash ="
            " embedq_content_hash(coalesce(embedq_dead.content, embedq_dead.content_blob, '')))"
        )

        def delete(db: sqlite3.Connection) -> int:
            db.create_function("embedq_content_hash", 1, content_hash, deterministic=True)
            return db.execute(sql, values).rowcount

        return await self._access.change(delete)

    async def _rows(self, sql: str, values: dict[str, object]) -> list[Any]:
        def look(db: sqlite3.Connection) -> list[Any]:
            there = db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'embedq_dead'").fetchone()
            return [] if there is None else db.execute(sql, values).fetchall()

        return await self._access.read(look)


def _letter(row: Sequence[Any]) -> DeadLetter:
    key, run, chunk, collection, id_, content, blob, metadata, model, error, message, attempts, died = row
    return DeadLetter(
        run,
        chunk,
        collection,
        id_,
        blob if content is None else content,
        metadata,
        model,
        error,
        message,
        attempts,
        died,
        key,
    )
