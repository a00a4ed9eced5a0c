"""Dead letters: items that could not be embedded, kept whole, so that none is lost and each can be mended."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import aiosqlite

_COLUMNS = "run, chunk, collection, id, content, content_blob, metadata, model, error, message, attempts, died"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An item that could not be embedded, with everything needed to try it again.

    `error` is the class of the error, `died` the time in seconds since the epoch.
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


class DeadLetterSummary(NamedTuple):
    """How many dead letters of a collection share an error class."""

    collection: str
    error: str
    letters: int


async def insert(db: aiosqlite.Connection, letters: Iterable[DeadLetter]) -> None:
    """Write `letters`; one that is there already, from an earlier attempt at its chunk, is replaced."""
    await db.executemany(
        f"INSERT OR REPLACE INTO embedq_dead ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - no input
        [
            (
                letter.run,
                letter.chunk,
                letter.collection,
                letter.id,
                letter.content if isinstance(letter.content, str) else None,
                letter.content if isinstance(letter.content, bytes) else None,
                letter.metadata,
                letter.model,
                letter.error,
                letter.message,
                letter.attempts,
                letter.died,
            )
            for letter in letters
        ],
    )


async def select(
    db: aiosqlite.Connection,
    *,
    collection: str | None = None,
    run: str | None = None,
    error: str | None = None,
    limit: int | None = None,
) -> list[DeadLetter]:
    """Dead letters, newest first, of a collection, a run, an error class; at most `limit`."""
    rows = await db.execute_fetchall(
        f"SELECT {_COLUMNS} FROM embedq_dead"  # noqa: S608 - no input
        " WHERE (?1 IS NULL OR collection = ?1) AND (?2 IS NULL OR run = ?2) AND (?3 IS NULL OR error = ?3)"
        " ORDER BY died DESC, key DESC LIMIT ?4",
        (collection, run, error, -1 if limit is None else limit),
    )
    return [_letter(row) for row in rows]


async def summarise(db: aiosqlite.Connection) -> list[DeadLetterSummary]:
    """How many there are of each collection and error class, most first."""
    rows = await db.execute_fetchall(
        "SELECT collection, error, count(*) FROM embedq_dead GROUP BY collection, error ORDER BY 3 DESC, 1, 2"
    )
    return [DeadLetterSummary(*row) for row in rows]


def _letter(row: sqlite3.Row) -> DeadLetter:
    run, chunk, collection, id_, content, blob, metadata, model, error, message, attempts, died = row
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
    )
