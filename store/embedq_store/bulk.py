"""Many rows in one statement.

SQLite runs a step of a statement without Python's global lock and takes it back after each: where other threads are
busy, each step may wait for its turn as long as `sys.getswitchinterval()`. One row a step (`executemany`, `fetchall`)
would wait thousands of times for a chunk.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Final, TypeVar

import aiosqlite

from embedq_core.items import Item

# Rows of a statement. The time to prepare one grows with the square: 3 ms for 256, and much is not gained beyond.
# Before 3.32, SQLite takes 999 values for a statement.
STEP_ROWS: Final = 256 if sqlite3.sqlite_version_info >= (3, 32) else 128

_COLUMNS: Final = 6

_T = TypeVar("_T")


async def in_thread(db: aiosqlite.Connection, function: Callable[[sqlite3.Connection], _T]) -> _T:
    """Call `function` in the thread of `db`: several statements for one journey there and back."""
    execute: Callable[..., Awaitable[_T]] = db._execute  # noqa: SLF001 - aiosqlite offers no other way
    return await execute(function, db._conn)  # noqa: SLF001


async def stoppable(db: aiosqlite.Connection, look: Callable[[sqlite3.Connection], _T]) -> _T:
    """As `in_thread`, for what only reads: where the caller is cancelled, the statement that is going on is given up.

    Else whoever presses Ctrl-C waits until a million rows are counted, since closing the connection comes after it.
    """
    lock = threading.Lock()
    going = stopped = False

    def run(connection: sqlite3.Connection) -> _T:
        nonlocal going
        with lock:
            if stopped:
                raise sqlite3.OperationalError("interrupted")
            going = True
        try:
            return look(connection)
        finally:
            with lock:
                going = False

    try:
        return await in_thread(db, run)
    except asyncio.CancelledError:
        # With the lock: what the connection does before and after is somebody else's.
        with lock:
            stopped = True
            if going:
                db._conn.interrupt()  # noqa: SLF001
        raise


def steps(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """`values` in order, `STEP_ROWS` at a time, and the rest in powers of two.

    There are few lengths then, and the statements for each stay in the connection's cache of prepared ones.
    """
    start, size = 0, STEP_ROWS
    while start < len(values):
        while size > len(values) - start:
            size //= 2
        yield values[start : start + size]
        start += size


def marks(count: int, mark: str = "?") -> str:
    """'?,?,?' for `count` values."""
    return ",".join([mark] * count)


def packed(rows: Sequence[tuple[Item, bytes, bytes]], *, store: bool) -> list[tuple[object, ...]]:
    """The values of `rows` (item, digest, vector) for `insert`, flat, by its steps; contents only with `store`."""
    return [
        tuple(
            chain.from_iterable(
                [
                    (
                        item.id,
                        vector,
                        content if (text := isinstance(content := item.content, str)) and store else None,
                        None if text or not store else content,
                        digest,
                        item.metadata,
                    )
                    for item, digest, vector in some
                ]
            )
        )
        for some in steps(rows)
    ]


def insert(db: sqlite3.Connection, collection_id: int, parts: Sequence[tuple[object, ...]], now: int) -> None:
    """Insert rows that were `packed`, or put them in the place of those with their ids."""
    for values in parts:
        db.execute(insertion(len(values) // _COLUMNS), (collection_id, now, *values))


def update(
    db: sqlite3.Connection, collection_id: int, items: Sequence[tuple[Item, bytes]], now: int, *, store: bool
) -> None:
    """Bring metadata, and with `store` contents, of stored `items` (item, digest) up to date, one in each step."""
    if not items:
        return
    db.executemany(
        "UPDATE embeddings SET metadata = coalesce(?, metadata), content = coalesce(?, content),"
        " content_blob = coalesce(?, content_blob), updated = ?"
        " WHERE collection_id = ? AND id = ? AND content_hash = ?",
        [
            (
                item.metadata,
                item.content if store and isinstance(item.content, str) else None,
                item.content if store and isinstance(item.content, bytes) else None,
                now,
                collection_id,
                item.id,
                digest,  # the row may have been replaced since it was looked up
            )
            for item, digest in items
        ],
    )


@cache
def insertion(rows: int, *, timed: bool = False) -> str:
    """The statement that puts in so many rows, or puts them in the place of those with their ids.

    Its first value is the collection's key. The second is when all of them were updated, unless they are `timed`: then
    each row brings that as its last value.
    """
    start, columns, time = (2, _COLUMNS + 1, "") if timed else (3, _COLUMNS, ",?2")
    places = ",".join(
        f"(?1,{','.join(f'?{place}' for place in range(first, first + columns))}{time})"
        for first in range(start, start + rows * columns, columns)
    )
    return (
        "INSERT OR REPLACE INTO embeddings"  # noqa: S608 - only places for values
        " (collection_id, id, embedding, content, content_blob, content_hash, metadata, updated)"
        f" VALUES {places}"
    )
