"""What can be seen of a database, as plain facts: what they mean is decided elsewhere."""

import asyncio
import os
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiosqlite

from embedq_core.errors import DatabaseLocked, DatabaseReadOnly, StoreError
from embedq_store.connection import check_file, connect, translated
from embedq_store.schema import check_schema

# One damaged page may show in thousands of places.
_PROBLEMS: Final = 5


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """A database file, or the place for one. Sizes are in bytes.

    `unusable` is why it can't be read at all, `unwritable` why not be written to; `locked` says that somebody was
    writing for all of the time that we waited. `schema` is None where embedq has not written to the file yet.
    `problems` are what the check of its integrity found; None where there was no check.
    """

    path: str
    exists: bool
    bytes: int
    wal_bytes: int
    free_bytes: int | None
    disk_bytes: int | None
    unusable: str | None
    unwritable: str | None
    locked: bool
    schema: int | None
    problems: tuple[str, ...] | None


async def database_facts(path: Path, *, full: bool, busy_seconds: float) -> DatabaseFacts:
    """Look at the database at `path`, and read all of it; with `full` compare its indexes with its rows as well."""
    exists = await asyncio.to_thread(path.exists)
    usage = await asyncio.to_thread(_disk, path)
    unusable = unwritable = schema = problems = None
    locked = False
    try:
        if exists:
            check_file(str(path), must_exist=True, writing=False)
            schema = await _read_schema(path, busy_seconds)
            problems = await _check(path, full=full, busy_seconds=busy_seconds)
    except StoreError as error:
        unusable = str(error)
    if unusable is None:
        try:
            await _try_to_write(path, exists=exists, busy_seconds=busy_seconds)
        except DatabaseLocked:
            locked = True
        except StoreError as error:
            unwritable = str(error)
    return DatabaseFacts(
        path=str(path),
        exists=exists,
        bytes=_size(path),
        wal_bytes=_size(path.with_name(path.name + "-wal")),
        free_bytes=None if usage is None else usage[0],
        disk_bytes=None if usage is None else usage[1],
        unusable=unusable,
        unwritable=unwritable,
        locked=locked,
        schema=schema,
        problems=problems,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _disk(path: Path) -> tuple[int, int] | None:
    """Free and all bytes of the disk that holds, or will hold, `path`."""
    for folder in path.parents:
        try:
            usage = shutil.disk_usage(folder)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return usage.free, usage.total
    return None


async def _read_schema(path: Path, busy_seconds: float) -> int | None:
    db = await connect(str(path), read_only=True, busy_seconds=busy_seconds)
    try:
        with translated(str(path)):
            await check_schema(db, str(path))
            rows = await db.execute_fetchall("SELECT 1 FROM sqlite_master WHERE name = 'embedq_schema'")
            if not list(rows):
                return None
            return next(int(row[0]) for row in await db.execute_fetchall("SELECT max(version) FROM embedq_schema"))
    finally:
        await db.close()


async def _check(path: Path, *, full: bool, busy_seconds: float) -> tuple[str, ...]:
    db = await connect(str(path), read_only=True, busy_seconds=busy_seconds)
    try:
        with translated(str(path)):
            try:
                return await _found_by(db, "integrity_check" if full else "quick_check")
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
                    raise
                return (str(error),)
    finally:
        await db.close()


async def _found_by(db: aiosqlite.Connection, check: str) -> tuple[str, ...]:
    rows = [str(row[0]) for row in await db.execute_fetchall(f"PRAGMA {check}({_PROBLEMS})")]
    return () if rows == ["ok"] else tuple(line for row in rows for line in row.splitlines())


async def _try_to_write(path: Path, *, exists: bool, busy_seconds: float) -> None:
    """Take the lock for writing and give it back: nothing is changed."""
    if not exists:
        folder = next(folder for folder in path.parents if folder.exists())
        if not os.access(folder, os.W_OK):
            raise DatabaseReadOnly(f"{path}: can't be made: make {folder} writable")
        return
    check_file(str(path), must_exist=True, writing=True)
    if not os.access(path.parent, os.W_OK):
        raise DatabaseReadOnly(f"{path}: can't be written to: make its folder writable")
    db = await connect(str(path), read_only=False, busy_seconds=busy_seconds)
    try:
        with translated(str(path)):
            await db.execute("BEGIN IMMEDIATE")
            await db.execute("ROLLBACK")
    finally:
        await db.close()
