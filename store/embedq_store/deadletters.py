"""Dead letters: items that could not be embedded, kept whole, so that none is lost and each can be mended.

A letter lives until its item is stored, or a later version of the item is stored or dead. `settle` and `insert`, which
the writer calls within the transaction of the rows, see to that; see "Dead letters" in docs/design.md.
"""

import json
import math
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, NamedTuple

import aiosqlite

from embedq_core.digests import content_hash
from embedq_store.lookup import stored_under, where_in
from embedq_store.outcomes import Incoming

_COLUMNS: Final = "run, chunk, collection, id, content, content_blob, metadata, model, error, message, attempts, died"
_SIZE: Final = "coalesce(length(CAST(content AS BLOB)), length(content_blob), 0)"

# The time at the start of a run's id.
_MOMENT: Final = "%Y%m%d-%H%M%S"
_MOMENT_LENGTH: Final = len("20261231-235959")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An item that could not be embedded, with everything needed to try it again.

    `error` is the class of the error, `died` the time in seconds since the epoch. A letter without a collection holds
    the bytes of a chunk that could not be read, or None for one that was lost. `key` stays the same as long as the
    letter lives, whatever else of it changes; a letter that has not been written has none.
    """

    run: str
    chunk: int
    collection: str
    id: str
    content: str | bytes | None
    metadata: str | None
    model: str
    error: str
    message: str
    attempts: int
    died: float
    key: int | None = field(default=None, compare=False)


class DeadHeading(NamedTuple):
    """A dead letter without what may be large: its content, of `size` bytes, and its metadata."""

    key: int
    run: str
    collection: str
    id: str
    size: int
    model: str
    error: str
    message: str
    attempts: int
    died: float


class DeadLetterSummary(NamedTuple):
    """How many dead letters of a collection share an error class."""

    collection: str
    error: str
    letters: int


class DeadGroup(NamedTuple):
    """How many dead letters share collection and model; `last_key` is the largest of their keys."""

    collection: str
    model: str
    letters: int
    last_key: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters are meant: those for which everything holds that is said here."""

    ids: tuple[str, ...] = ()
    keys: tuple[int, ...] = ()
    collection: str | None = None
    run: str | None = None
    error: str | None = None
    model: str | None = None

    @property
    def everything(self) -> bool:
        """Whether it leaves none out."""
        return self == Selection()

    def condition(self) -> tuple[str, dict[str, object]]:
        """The condition in SQL, and the values in it."""
        terms, values = ["1"], dict[str, object]()
        if self.ids:
            terms.append("id IN (SELECT value FROM json_each(:ids))")
            values["ids"] = json.dumps(self.ids)
        if self.keys:
            terms.append("key IN (SELECT value FROM json_each(:keys))")
            values["keys"] = json.dumps(self.keys)
        for name in ("collection", "run", "error", "model"):
            value = getattr(self, name)
            if value is not None:
                terms.append(f"{name} = :{name}")
                values[name] = value
        return " AND ".join(terms), values


# --- reading


async def select(db: aiosqlite.Connection, selection: Selection, limit: int | None = None) -> list[DeadLetter]:
    """Dead letters, newest first, at most `limit`."""
    condition, values = selection.condition()
    rows = await db.execute_fetchall(
        f"SELECT key, {_COLUMNS} FROM embedq_dead WHERE {condition} ORDER BY died DESC, key DESC LIMIT :limit",  # noqa: S608
        values | {"limit": -1 if limit is None else limit},
    )
    return [_letter(row) for row in rows]


async def headings(db: aiosqlite.Connection, selection: Selection, limit: int | None = None) -> list[DeadHeading]:
    """Dead letters without their contents, newest first, at most `limit`."""
    condition, values = selection.condition()
    rows = await db.execute_fetchall(
        # The inner query first: sizes are read of those that are wanted.
        f"SELECT key, run, collection, id, {_SIZE}, model, error, message, attempts, died FROM embedq_dead WHERE key IN"  # noqa: S608
        f" (SELECT key FROM embedq_dead WHERE {condition} ORDER BY died DESC, key DESC LIMIT :limit)"
        " ORDER BY died DESC, key DESC",
        values | {"limit": -1 if limit is None else limit},
    )
    return [DeadHeading(*row) for row in rows]


async def summarise(db: aiosqlite.Connection) -> list[DeadLetterSummary]:
    """How many there are of each collection and error class, most first."""
    rows = await db.execute_fetchall(
        "SELECT collection, error, count(*) FROM embedq_dead GROUP BY collection, error ORDER BY 3 DESC, 1, 2"
    )
    return [DeadLetterSummary(*row) for row in rows]


async def groups(db: aiosqlite.Connection, selection: Selection) -> list[DeadGroup]:
    """How many there are of each collection and model."""
    condition, values = selection.condition()
    rows = await db.execute_fetchall(
        f"SELECT collection, model, count(*), max(key) FROM embedq_dead WHERE {condition}"  # noqa: S608
        " GROUP BY collection, model ORDER BY collection, model",
        values,
    )
    return [DeadGroup(*row) for row in rows]


async def page(
    db: aiosqlite.Connection, selection: Selection, after_key: int, last_key: int, *, max_items: int, max_bytes: int
) -> list[DeadLetter]:
    """The next dead letters by key, up to `last_key`: at least one if there is one, and about `max_bytes` at most."""
    condition, values = selection.condition()
    source = f"FROM embedq_dead WHERE key > :after AND key <= :last AND {condition} ORDER BY key LIMIT :limit"
    values |= {"after": after_key, "last": last_key, "limit": max_items}
    sizes = await db.execute_fetchall(f"SELECT key, {_SIZE} {source}", values)
    fitting = 0
    for _, size in sizes:
        max_bytes -= size
        if max_bytes < 0 and fitting:
            break
        fitting += 1
    values["limit"] = fitting
    return [_letter(row) for row in await db.execute_fetchall(f"SELECT key, {_COLUMNS} {source}", values)]


def _letter(row: sqlite3.Row) -> DeadLetter:
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


# --- deleting, by request


async def delete(db: aiosqlite.Connection, selection: Selection, last_key: int) -> int:
    """Delete dead letters whose keys are not beyond `last_key`; return how many."""
    condition, values = selection.condition()
    cursor = await db.execute(
        f"DELETE FROM embedq_dead WHERE key <= :last AND {condition}",  # noqa: S608
        values | {"last": last_key},
    )
    return cursor.rowcount


async def delete_stored(db: aiosqlite.Connection, selection: Selection) -> int:
    """Delete dead letters whose items the store holds all the same, since another tool has put them there."""
    condition, values = selection.condition()
    await db.create_function("embedq_content_hash", 1, content_hash, deterministic=True)
    cursor = await db.execute(
        f"DELETE FROM embedq_dead WHERE {condition} AND EXISTS ("  # noqa: S608
        " SELECT 1 FROM collections JOIN embeddings ON embeddings.collection_id = collections.id"
        " WHERE collections.name = embedq_dead.collection AND collections.model = embedq_dead.model"
        " AND embeddings.id = embedq_dead.id"
        " AND (embedq_dead.metadata IS NULL OR embedq_dead.metadata = embeddings.metadata)"
        " AND embeddings.content_hash ="
        " embedq_content_hash(coalesce(embedq_dead.content, embedq_dead.content_blob, '')))",
        values,
    )
    return cursor.rowcount


# --- within the transaction of the rows


class Suspects:
    """Which ids of a collection have dead letters, during one transaction. Where there are none, it asks once."""

    def __init__(self, db: aiosqlite.Connection, collection: str) -> None:
        self._db = db
        self._collection = collection
        self._any: bool | None = None

    async def exist(self) -> bool:
        """Whether the collection has dead letters at all."""
        if self._any is None:
            rows = await self._db.execute_fetchall(
                "SELECT 1 FROM embedq_dead WHERE collection = ? LIMIT 1", (self._collection,)
            )
            self._any = bool(list(rows))
        return self._any

    async def among(self, ids: Iterable[str]) -> set[str]:
        """Those of `ids` that have dead letters."""
        if not await self.exist():
            return set()
        rows = await where_in(
            self._db, "SELECT id FROM embedq_dead WHERE collection = ? AND id IN", self._collection, list(ids)
        )
        return {str(row[0]) for row in rows}

    def some(self) -> None:
        """Note that there are some now."""
        self._any = True


class Origin(NamedTuple):
    """The chunk that something comes from: as a later version of an item, or as an earlier one."""

    run: str
    chunk: int

    @property
    def began(self) -> float:
        """When the run began, in seconds since the epoch: its id tells. 0 for an id that does not."""
        try:
            moment = datetime.strptime(self.run[:_MOMENT_LENGTH], _MOMENT).replace(tzinfo=UTC)
        except ValueError:
            return 0.0
        return moment.timestamp()


# What is written now, from no chunk, is later than everything.
NOW: Final = math.inf


async def settle(
    db: aiosqlite.Connection, collection: str, collection_id: int, stored: Iterable[Incoming], origin: Origin | None
) -> None:
    """Delete the dead letters of items that are `stored` now: of the same content, and of earlier versions."""
    await db.executemany(
        "DELETE FROM embedq_dead WHERE collection = ? AND id = ?"
        " AND (died < ? OR (run = ? AND chunk < ?)"
        " OR (content IS ? AND content_blob IS ? AND (metadata IS NULL OR metadata = ?)))"
        # One that was to be brought up to date may have been replaced since it was looked up.
        " AND EXISTS (SELECT 1 FROM embeddings WHERE collection_id = ? AND id = embedq_dead.id AND content_hash = ?)",
        [
            (
                collection,
                item.id,
                NOW if origin is None else origin.began,
                *(("", 0) if origin is None else origin),
                *_columns(item.content),
                item.metadata,
                collection_id,
                digest,
            )
            for item, digest in stored
        ],
    )


async def insert(
    db: aiosqlite.Connection, letters: Sequence[DeadLetter], collection_id: int | None, suspects: Suspects
) -> None:
    """Write `letters`, all of the collection of `suspects`, in the place of those of earlier versions.

    One whose item is stored in spite of it is left out: a worker that was slow has failed where another has not.
    """
    if collection_id is not None:
        held = await stored_under(db, collection_id, [letter.id for letter in letters])
        letters = [
            letter
            for letter in letters
            if (stored := held.get(letter.id)) is None
            or stored.digest != content_hash(letter.content or "")
            or letter.metadata not in (None, stored.metadata)
        ]
    dead = await suspects.among(letter.id for letter in letters)
    written = [await _replacing(db, letter) if letter.id in dead else letter for letter in letters]
    suspects.some()
    await db.executemany(
        f"INSERT OR REPLACE INTO embedq_dead (key, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        [
            (
                letter.key,
                letter.run,
                letter.chunk,
                letter.collection,
                letter.id,
                *_columns(letter.content),
                letter.metadata,
                letter.model,
                letter.error,
                letter.message,
                letter.attempts,
                letter.died,
            )
            for letter in written
        ],
    )


async def _replacing(db: aiosqlite.Connection, letter: DeadLetter) -> DeadLetter:
    """`letter` with the key of the one that it replaces, and the attempts at the same content; others are deleted."""
    origin = Origin(letter.run, letter.chunk)
    rows = await db.execute_fetchall(
        "SELECT key, run, chunk, attempts, died, content IS ? AND content_blob IS ?, metadata IS NULL OR metadata IS ?"
        " FROM embedq_dead WHERE collection = ? AND id = ? ORDER BY key",
        (*_columns(letter.content), letter.metadata, letter.collection, letter.id),
    )
    keys, attempts = list[int](), letter.attempts
    for key, run, chunk, tries, died, same_content, same_metadata in rows:
        earlier = died < origin.began or (run == letter.run and chunk < letter.chunk)
        again = (run, chunk) == origin
        if again or earlier or (same_content and same_metadata):
            keys.append(key)
            attempts += tries if same_content and not again else 0
    if not keys:
        return letter
    # The one whose key is kept stays until it is written over: its key must not become another letter's.
    await db.executemany("DELETE FROM embedq_dead WHERE key = ?", [(key,) for key in keys[:-1]])
    return replace(letter, key=keys[-1], attempts=attempts)


def _columns(content: str | bytes | None) -> tuple[str | None, bytes | None]:
    """`content` as the columns content and content_blob."""
    return (content if isinstance(content, str) else None, content if isinstance(content, bytes) else None)
