"""The two connections of an open database, and the ways to read and to change it through them."""

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiosqlite

from embedq_core.errors import DatabaseReadOnly
from embedq_store.bulk import in_thread, stoppable
from embedq_store.connection import MEMORY, translated
from embedq_store.writer import Writer

_T = TypeVar("_T")


class Access:
    """What each part of a store reads and writes through: one connection for reading, and the writer, if there is one.

    SQLite's errors are raised as StoreError, with the file's name.
    """

    def __init__(self, path: str, reader: aiosqlite.Connection, writing: aiosqlite.Connection | None) -> None:
        self.path = path
        self.reader = reader
        self.writing = writing
        self._writer = None if writing is None else Writer(writing, path)

    @property
    def writer(self) -> Writer:
        """The writer. Raises DatabaseReadOnly where the database was opened for reading."""
        if self._writer is None:
            raise DatabaseReadOnly(f"{self.path}: was opened for reading only")
        return self._writer

    @property
    def writable(self) -> bool:
        """Whether there is a writer."""
        return self._writer is not None

    @property
    def in_memory(self) -> bool:
        """Whether the database is no file."""
        return self.path == MEMORY

    async def read(self, look: Callable[[sqlite3.Connection], _T]) -> _T:
        """What `look` reads, in the connection's thread: several statements for one journey. Ends when cancelled."""
        with translated(self.path):
            return await stoppable(self.reader, look)

    async def rows(self, sql: str, *values: object) -> list[Any]:
        """The rows of one statement."""
        return await self.read(lambda db: db.execute(sql, values).fetchall())

    async def has_table(self, name: str) -> bool:
        """Whether the file has a table: one that is only read may be of an earlier embedq, or of llm's."""
        return bool(await self.rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", name))

    async def change(self, operation: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `operation` in a transaction, in the connection's thread: see `Writer.transact`."""
        return await self.transact(lambda db: in_thread(db, operation))

    async def change_in_turn(self, operation: Callable[[sqlite3.Connection], _T]) -> _T:
        """As `change`, for one of very many transactions in a row: see `Writer.transact_in_turn`."""
        return await self.writer.transact_in_turn(lambda db: in_thread(db, operation))

    async def transact(self, operation: Callable[[aiosqlite.Connection], Awaitable[_T]]) -> _T:
        """Run `operation` in a transaction and commit it: see `Writer.transact`."""
        return await self.writer.transact(operation)

    async def close(self) -> None:
        """Commit what is waiting and close both."""
        if self._writer is not None:
            await self._writer.close()
        await self.reader.close()
        if self.writing is not None:
            await self.writing.close()
