"""The group-commit writer: one task gathers what all jobs want written into transactions of thousands.

A transaction costs about as much as a thousand rows, so whatever arrives while one is being committed goes
into the next one together. A caller's `write` returns when its rows are committed, and not before.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, cast

import aiosqlite

from embedq_core.errors import EmbedqError, StoreError
from embedq_store import bulk, holding_back
from embedq_store.connection import translated
from embedq_store.holding_back import HeldBack
from embedq_store.log import Log
from embedq_store.transaction import Transaction
from embedq_store.writes import ChunkMark, Write

# In a large table with ids in no order, each transaction touches most pages of both indexes: the fewer, the better.
# At a million rows, half of this writes half as much again for each row.
GROUP_ROWS: Final = 32_768

# As often does SQLite look for a lock that it waits for, and a little more.
_LOOK_SECONDS: Final = 0.11

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Something to be written, and whom to tell."""

    apply: Callable[[Transaction], Awaitable[object]]
    size: int
    mark: ChunkMark | None
    done: asyncio.Future[object]

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Writer:
    """Owns the only connection of this process that writes to the database at `path`."""

    def __init__(self, db: aiosqlite.Connection, path: str) -> None:
        self._db = db
        self._path = path
        self._log = Log(path)
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._held_back: set[asyncio.Future[None]] = set()
        self.on_commit: Callable[[int, float], object] | None = None
        """Called after each transaction with its rows, about, and the seconds that it took. It must not raise."""

    async def write(self, write: Write) -> int:
        """Commit `write`, in one transaction with what others want written now; return how many entries it removed.

        It waits for some seconds where rows are for a collection that is about to be switched: see
        `embedq_store.holding_back`.

        Raises ModelMismatch where the collection was embedded with another model, CollectionMoved where it stood
        beside another and is gone, ConfigurationMismatch where it was embedded with another configuration of the model,
        BadVectors where its vectors have another dimension, StoreError where the database can't be written; then
        nothing of it is written.
        """
        # Here, and not in the transaction: meanwhile another one is being committed.
        parts = bulk.packed(write.rows, store=write.store)

        async def apply(transaction: Transaction) -> int:
            return await transaction.apply(write, parts)

        async def apply_if_let(transaction: Transaction) -> int:
            if write.target.collection in transaction.held_back and (write.rows or write.updates):
                raise HeldBack
            return await apply(transaction)

        try:
            return cast("int", await self._enqueue(apply_if_let, write.size, write.mark))
        except HeldBack:
            await self._let(write.target.collection)
            return cast("int", await self._enqueue(apply, write.size, write.mark))

    async def _let(self, collection: str) -> None:
        """Wait until rows can be written to a collection: not for long, and not when this is being closed."""
        until, waiting = time.monotonic() + holding_back.MOST_SECONDS, asyncio.get_running_loop().create_future()
        self._held_back.add(waiting)
        try:
            while time.monotonic() < until and not self._closing.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), holding_back.LOOK_SECONDS)
                with translated(self._path):
                    if collection not in await bulk.in_thread(self._db, holding_back.held_back):
                        break
        finally:
            self._held_back.discard(waiting)
            waiting.set_result(None)

    async def transact(self, operation: Callable[[aiosqlite.Connection], Awaitable[_T]]) -> _T:
        """Run `operation` in a transaction and commit it. Raises StoreError, and what `operation` raises.

        An EmbedqError that `operation` raises must come before it has changed anything.
        """

        async def apply(transaction: Transaction) -> _T:
            try:
                return await operation(self._db)
            finally:
                transaction.forget()

        return cast("_T", await self._enqueue(apply, 1, None))

    async def transact_in_turn(self, operation: Callable[[aiosqlite.Connection], Awaitable[_T]]) -> _T:
        """As `transact`, for one of very many transactions in a row; then lets the lock go for a moment.

        Who waits for it looks ten times a second, and would find it taken again and again for seconds.
        """
        began = time.monotonic()
        result = await self.transact(operation)
        await asyncio.sleep(gap(time.monotonic() - began))
        return result

    async def _enqueue(
        self, apply: Callable[[Transaction], Awaitable[object]], size: int, mark: ChunkMark | None
    ) -> object:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="embedq-writer")
        waiting = _Waiting(apply, size, mark, asyncio.get_running_loop().create_future())
        self._waiting.put_nowait(waiting)
        return await waiting.done

    async def close(self) -> None:
        """Commit what is waiting, then stop."""
        if self._task is None:
            return
        self._closing.set()
        if self._held_back:
            await asyncio.wait(self._held_back)
        task, self._task = self._task, None
        await self._waiting.join()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            group = [await self._waiting.get()]
            size = group[0].size
            while size < GROUP_ROWS and not self._waiting.empty():
                group.append(self._waiting.get_nowait())
                size += group[-1].size
            try:
                if self._log.is_long:
                    await bulk.in_thread(self._db, self._log.hold_back)
                    await self._commit_or_part(group)
                    await bulk.in_thread(self._db, self._log.shorten)
                else:
                    await self._commit_or_part(group)
            finally:
                for _ in group:
                    self._waiting.task_done()

    async def _commit_or_part(self, group: Sequence[_Waiting]) -> None:
        """Commit the group; where one of them can't be written, each by itself, so that it fails alone."""
        try:
            await self._commit(group)
        except Exception as error:
            if len(group) > 1 and _is_one_s_own(error):
                for waiting in group:
                    await self._commit_or_part([waiting])
            else:
                for waiting in group:
                    waiting.fail(error)

    async def _commit(self, group: Sequence[_Waiting]) -> None:
        refused: list[tuple[_Waiting, EmbedqError]] = []
        accepted: list[tuple[_Waiting, object]] = []
        began = time.monotonic()
        with translated(self._path):
            await self._db.execute("BEGIN IMMEDIATE")
            try:
                marks = [waiting.mark for waiting in group if waiting.mark is not None]
                transaction = await Transaction.begun(self._db, marks)
                for waiting in group:
                    try:
                        accepted.append((waiting, await waiting.apply(transaction)))
                    except EmbedqError as error:
                        refused.append((waiting, error))
                await self._db.execute("COMMIT")
            except BaseException:
                # Not the statement, which fails where nothing is open any more: after some errors, a full disk among
                # them, SQLite has rolled back by itself; and whoever was cancelled at the end may have committed.
                await self._db.rollback()
                raise
        for waiting, refusal in refused:
            waiting.fail(refusal)
        for waiting, result in accepted:
            if not waiting.done.done():
                waiting.done.set_result(result)
        if self.on_commit is not None:
            self.on_commit(sum(waiting.size for waiting, _ in accepted), time.monotonic() - began)


def gap(held: float) -> float:
    """For how many seconds to leave the lock to others after it was held for `held`, before it is taken again."""
    return min(_LOOK_SECONDS, held / 4)


def _is_one_s_own(error: Exception) -> bool:
    """Whether an error comes from what was to be written. Others are the database's: locked, full, corrupt."""
    cause = error.__cause__ if isinstance(error, StoreError) else error
    return not (isinstance(cause, sqlite3.OperationalError) or type(cause) is sqlite3.DatabaseError)
