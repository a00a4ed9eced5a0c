"""Dead letters within the transaction of the rows: written, and settled when what they stand for is stored.

A letter lives until its item is stored, or a later version of the item is stored or dead. `settle` and `insert`, which
the writer calls, see to that; see "Dead letters" in docs/design.md.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, NamedTuple

import aiosqlite

from embedq_core.digests import content_hash
from embedq_store.letters import COLUMNS, DeadLetter
from embedq_store.lookup import stored_under, where_in
from embedq_store.outcomes import Incoming

# The time at the start of a run's id.
_MOMENT: Final = "%Y%m%d-%H%M%S"
_MOMENT_LENGTH: Final = len("20261231-235959")


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
        f"INSERT OR REPLACE INTO embedq_dead (key, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
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
