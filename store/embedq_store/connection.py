"""Opening a database, and SQLite's errors in our words."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import aiosqlite

from embedq_core.errors import (
    DatabaseLocked,
    DatabaseMissing,
    DatabaseReadOnly,
    DatabaseUnusable,
    DiskFull,
    StoreError,
)
from embedq_store.schema import check_schema, create_schema

MEMORY: Final = ":memory:"

_READ_ONLY: Final = "{path}: can't be written to: make the file and its folder writable"

# 8 KiB pages take a sixth less of the time of bulk inserts than the usual 4 KiB.
PAGE_BYTES: Final = 8192

# How long the write-ahead log grows before it is copied into the file: seldom, since each time waits for the disk.
LOG_BYTES: Final = 64 * 1024 * 1024

_LOW_SPACE_BYTES: Final = 1024 * 1024


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Raise errors of the database at `path` as ours, saying what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explained(error, path) from error


def _explained(error: sqlite3.Error, path: str) -> StoreError:  # noqa: PLR0911 - one per kind of error
    # The low byte of an extended result code is the primary code: https://sqlite.org/rescode.html
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    match code:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DatabaseLocked(
                f"{path}: is locked by another program that is writing to it: wait for it to end, or stop it"
            )
        case sqlite3.SQLITE_READONLY:
            return DatabaseReadOnly(_READ_ONLY.format(path=path))
        case sqlite3.SQLITE_FULL:
            return DiskFull(f"{path}: the disk is full: free some space, then try again")
        case sqlite3.SQLITE_NOTADB:
            return DatabaseUnusable(f"{path}: is not a SQLite database: name another file")
        case sqlite3.SQLITE_CORRUPT:
            return DatabaseUnusable(
                f"{path}: is corrupt ({error}): restore a copy, or save what can be read with 'sqlite3 FILE .recover'"
            )
        case sqlite3.SQLITE_CANTOPEN:
            return DatabaseUnusable(f"{path}: can't be opened: {_why_not_opened(path)}")
        case sqlite3.SQLITE_IOERR if _disk_is_full(path):
            return DiskFull(f"{path}: the disk is full: free some space, then try again")
        case sqlite3.SQLITE_IOERR:
            return StoreError(
                f"{path}: {error}: check the disk, quotas, and limits to the size of files, then try again"
            )
        case _:
            return StoreError(f"{path}: {error}")


def _why_not_opened(path: str) -> str:
    file = Path(path)
    try:
        if file.is_dir():
            return "it is a directory"
        if not file.parent.is_dir():
            return f"there is no folder {file.parent}"
    except OSError as error:
        return str(error.strerror)
    return "check the permissions of the file and of its folder"


def _disk_is_full(path: str) -> bool:
    try:
        return shutil.disk_usage(Path(path).parent).free < _LOW_SPACE_BYTES
    except OSError:
        return False


def check_file(path: str, *, must_exist: bool, writing: bool) -> None:
    """Raise an error of ours for a path that SQLite would refuse with fewer words.

    Raises DatabaseMissing, DatabaseUnusable or DatabaseReadOnly.
    """
    if path == MEMORY:
        return
    file = Path(path)
    try:
        if file.is_dir():
            raise DatabaseUnusable(f"{path}: is a directory, not a database file")
        if must_exist and not file.exists():
            raise DatabaseMissing(f"{path}: there is no such database: embed something first, or name another")
        if not must_exist:
            file.parent.mkdir(parents=True, exist_ok=True)
        if writing and not os.access(file if file.exists() else file.parent, os.W_OK):
            raise DatabaseReadOnly(_READ_ONLY.format(path=path))
    except OSError as error:
        raise DatabaseUnusable(f"{path}: can't be opened: {error.strerror}") from error


async def connect(path: str, *, read_only: bool, busy_seconds: float) -> aiosqlite.Connection:
    """A connection in autocommit mode. A read-only one leaves no file behind that was not there."""
    with translated(path):
        if path == MEMORY:
            connecting = aiosqlite.connect(MEMORY, isolation_level=None)
        else:
            uri = _uri(path, read_only=read_only)
            connecting = aiosqlite.connect(uri, uri=True, isolation_level=None, timeout=busy_seconds)
        # Python joins other threads before it runs exit handlers, so an unclosed connection would hang it.
        connecting._thread.daemon = True  # noqa: SLF001 - aiosqlite offers no other way
        db = await connecting
        try:
            # 64 MiB of pages at most: enough to keep the upper levels of the indexes of a large table.
            await db.execute("PRAGMA cache_size = -65536")
            if read_only:
                await db.execute("PRAGMA query_only = ON")
            # One that is no database is noticed here, and not in the middle of the work.
            await db.execute_fetchall("SELECT count(*) FROM sqlite_master")
        except BaseException:
            await db.close()
            raise
        return db


def _uri(path: str, *, read_only: bool) -> str:
    return f"{Path(path).absolute().as_uri()}?{_mode(path, read_only=read_only)}"


def _mode(path: str, *, read_only: bool) -> str:
    if not read_only:
        return "mode=rwc"
    # SQLite keeps an index of the write-ahead log beside the file even for readers. Where the folder can't be
    # written to and there is no log, nobody is writing, and the file can be read as it is.
    if not os.access(Path(path).parent, os.W_OK) and not Path(path + "-wal").exists():
        return "mode=ro&immutable=1"
    # Not mode=ro: the last connection to a file removes the log and its index, and a mode=ro one leaves them there.
    # A file that can't be written to is opened for reading all the same.
    return "mode=rw"


async def prepare(db: aiosqlite.Connection, path: str) -> None:
    """Make `db` ready for writing: write-ahead log, schema. Idempotent, and cheap where nothing is missing."""
    with translated(path):
        if path != MEMORY:
            # This one concerns new files only.
            await db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            await db.execute_fetchall("PRAGMA journal_mode = WAL")
            await db.execute(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // PAGE_BYTES}")
            # What a transaction of many rows changes, before it is written.
            await db.execute("PRAGMA cache_size = -131072")
            # With a write-ahead log no committed transaction is lost when a process dies, however it dies.
            # When the machine itself dies the last ones may be undone: see docs/design.md.
            await db.execute("PRAGMA synchronous = NORMAL")
        if await check_schema(db, path):
            return
        await db.execute("BEGIN IMMEDIATE")
        try:
            await create_schema(db)
        except BaseException:
            # Not the statement, which fails where SQLite has rolled back by itself: the disk is full, say.
            await db.rollback()
            raise
        await db.execute("COMMIT")
