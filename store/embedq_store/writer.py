"""The group-commit writer: one task gathers what all jobs want written into transactions of thousands.

A transaction costs about as much as a thousand rows, so whatever arrives while one is being committed goes
into the next one together. A caller's `write` returns when its rows are committed, and not before.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Final, TypeAlias, TypeVar, cast

import aiosqlite
import msgspec

from embedq_core.collection_names import base_name
from embedq_core.configuration import Configuration
from embedq_core.counts import Counts
from embedq_core.errors import BadVectors, CollectionMoved, EmbedqError, ModelMismatch, StoreError
from embedq_store import bulk, burying, holding_back
from embedq_store.burying import Origin, Suspects
from embedq_store.configurations import record
from embedq_store.connection import translated
from embedq_store.holding_back import HeldBack
from embedq_store.letters import DeadLetter
from embedq_store.log import Log
from embedq_store.outcomes import Incoming
from embedq_store.reembedding_records import moved
from embedq_store.stale import remove_stale
from embedq_store.standing import dimension_of, find_collection
from embedq_store.writes import ChunkMark, Target, Write

# In a large table with ids in no order, each transaction touches most pages of both indexes: the fewer, the better.
# At a million rows, half of this writes half as much again for each row.
GROUP_ROWS: Final = 32_768

# As often does SQLite look for a lock that it waits for, and a little more.
_LOOK_SECONDS: Final = 0.11

_T = TypeVar("_T")

_COUNTS = msgspec.json.Encoder()


_ChunkKey: TypeAlias = tuple[str, int]
_Parts: TypeAlias = Sequence[tuple[object, ...]]


@dataclass(slots=True)
class _Transaction:
    """What is known within one transaction: which of the chunks to be written are finished, which collections take no
    rows for a moment, and the collections.
    """

    finished: set[_ChunkKey]
    held_back: set[str]
    ids: dict[str, tuple[int, str]] = field(default_factory=dict)
    dimensions: dict[int, int | None] = field(default_factory=dict)
    configurations: dict[int, Configuration] = field(default_factory=dict)
    suspects: dict[str, Suspects] = field(default_factory=dict)

    def forget(self) -> None:
        """Forget the collections: something may have changed them, or deleted them."""
        self.ids.clear()
        self.dimensions.clear()
        self.configurations.clear()
        self.suspects.clear()


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Something to be written, and whom to tell."""

    apply: Callable[[_Transaction], Awaitable[object]]
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

        async def apply(transaction: _Transaction) -> int:
            return await self._apply(write, parts, transaction)

        async def apply_if_let(transaction: _Transaction) -> int:
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

        async def apply(transaction: _Transaction) -> _T:
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
        self, apply: Callable[[_Transaction], Awaitable[object]], size: int, mark: ChunkMark | None
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
                chunks = [(waiting.mark.run, waiting.mark.chunk) for waiting in group if waiting.mark is not None]
                transaction = await bulk.in_thread(self._db, partial(_begun, chunks=chunks))
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

    async def _apply(self, write: Write, parts: _Parts, transaction: _Transaction) -> int:
        """Check first, so that a write that is refused has changed nothing. Return how many entries were removed.

        Nothing changes either where the chunk is finished: a worker that had stalled for longer than its lease
        comes late, and what others have stored since may be newer.
        """
        mark = write.mark
        if mark is not None and (mark.run, mark.chunk) in transaction.finished:
            return 0
        if base_name(write.target.collection) is not None and (write.rows or write.updates or write.dead):
            await bulk.in_thread(self._db, partial(_check_not_moved, target=write.target))
        if write.mends:
            write = await self._mending(write, transaction)
            parts = bulk.packed(write.rows, store=write.store)
        collection_id = None
        if write.rows or write.updates:
            collection_id = await self._collection_id(write.target, transaction)
            await self._check_dimension(write, collection_id, transaction)
            await self._record_configuration(write, collection_id, transaction)
        await bulk.in_thread(self._db, partial(_change, write=write, parts=parts, collection_id=collection_id))
        if collection_id is not None:
            await self._settle(write, collection_id, transaction)
        if write.dead:
            await self._bury(write.dead, transaction)
        if mark is not None and mark.finished:
            transaction.finished.add((mark.run, mark.chunk))
        return await self._remove_stale(write, mark, transaction) if mark is not None and write.documents else 0

    async def _mending(self, write: Write, transaction: _Transaction) -> Write:
        """What is to be written of one that mends: nothing that is newer is written over, deleted, or made anew."""
        ids = [row.item.id for row in write.rows] + [letter.id for letter in write.dead]
        cleared = await bulk.in_thread(self._db, partial(_cleared, target=write.target, ids=ids))
        letters = await self._suspects(write.target.collection, transaction).among(ids)
        return replace(
            write,
            rows=[row for row in write.rows if row.item.id in cleared],
            updates=(),
            dead=[letter for letter in write.dead if letter.id in cleared - letters],
            documents=(),
        )

    async def _collection_id(self, target: Target, transaction: _Transaction) -> int:
        found = transaction.ids.get(target.collection)
        if found is None:
            found = await ensure_collection(self._db, target)
            transaction.ids[target.collection] = found
        collection_id, model_id = found
        check_model(target, model_id)
        return collection_id

    async def _check_dimension(self, write: Write, collection_id: int, transaction: _Transaction) -> None:
        if not write.rows:
            return
        if collection_id not in transaction.dimensions:
            find = partial(dimension_of, collection_id=collection_id)
            transaction.dimensions[collection_id] = await bulk.in_thread(self._db, find)
        dimension = transaction.dimensions[collection_id]
        for size in dict.fromkeys([len(row.vector) // 4 for row in write.rows]):
            dimension = size if dimension is None else dimension
            if size != dimension:
                raise BadVectors(
                    f"the model {write.target.model_id} returned a vector of {size} dimensions; the collection "
                    f"{write.target.collection!r} holds vectors of {dimension}"
                )
        transaction.dimensions[collection_id] = dimension

    async def _record_configuration(self, write: Write, collection_id: int, transaction: _Transaction) -> None:
        target, present = write.target, write.target.configuration
        if not write.rows or present is None or transaction.configurations.get(collection_id) == present:
            return
        recording = partial(
            record,
            collection_id=collection_id,
            collection=target.collection,
            model_id=target.model_id,
            present=present,
        )
        await bulk.in_thread(self._db, recording)
        transaction.configurations[collection_id] = present

    async def _remove_stale(self, write: Write, mark: ChunkMark, transaction: _Transaction) -> int:
        """Remove what is left over of documents, and count it in the mark that is written."""
        among_letters = await self._suspects(write.target.collection, transaction).exist()
        removing = partial(_remove_stale, write=write, mark=mark, among_letters=among_letters)
        return await bulk.in_thread(self._db, removing)

    async def _settle(self, write: Write, collection_id: int, transaction: _Transaction) -> None:
        """What is stored now is dead no longer."""
        collection = write.target.collection
        suspects = self._suspects(collection, transaction)
        dead = await suspects.among(
            item.id for item in chain((row.item for row in write.rows), (entry.item for entry in write.updates))
        )
        if dead:
            stored = [Incoming(row.item, row.digest) for row in write.rows if row.item.id in dead]
            stored += [entry for entry in write.updates if entry.item.id in dead]
            origin = None if write.mark is None else Origin(write.mark.run, write.mark.chunk)
            # Which of several versions it is, is not known: only letters of its own end.
            origin = Origin("", 0) if write.mends else origin
            await burying.settle(self._db, collection, collection_id, stored, origin)

    async def _bury(self, letters: Sequence[DeadLetter], transaction: _Transaction) -> None:
        for collection, model_id in dict.fromkeys((letter.collection, letter.model) for letter in letters):
            own = [letter for letter in letters if (letter.collection, letter.model) == (collection, model_id)]
            rows = await self._db.execute_fetchall(
                "SELECT id FROM collections WHERE name = ? AND model = ?", (collection, model_id)
            )
            collection_id = next((int(row[0]) for row in rows), None)
            await burying.insert(self._db, own, collection_id, self._suspects(collection, transaction))

    def _suspects(self, collection: str, transaction: _Transaction) -> Suspects:
        return transaction.suspects.setdefault(collection, Suspects(self._db, collection))


def gap(held: float) -> float:
    """For how many seconds to leave the lock to others after it was held for `held`, before it is taken again."""
    return min(_LOOK_SECONDS, held / 4)


def _begun(db: sqlite3.Connection, chunks: Sequence[_ChunkKey]) -> _Transaction:
    """A transaction that has just begun, in which `chunks` are to be written."""
    sql = "SELECT 1 FROM embedq_chunks WHERE run = ? AND chunk = ? AND finished IS NOT NULL"
    finished = {key for key in chunks if db.execute(sql, key).fetchone() is not None}
    return _Transaction(finished, holding_back.held_back(db))


def _cleared(db: sqlite3.Connection, target: Target, ids: Sequence[str]) -> set[str]:
    """Those of `ids` that the collection has without hash. Raises ModelMismatch."""
    found = find_collection(db, target.collection)
    if found is None:
        return set()
    check_model(target, found.model_id)
    sql = "SELECT id FROM embeddings WHERE collection_id = ? AND content_hash IS NULL AND id IN"
    return {
        str(row[0])
        for some in bulk.steps(ids)
        for row in db.execute(f"{sql} ({bulk.marks(len(some))})", (found.id, *some))
    }


def _change(db: sqlite3.Connection, write: Write, parts: _Parts, collection_id: int | None) -> None:
    """Write rows, updates and mark; there is a collection where there are rows or updates."""
    now = time.time()
    if collection_id is not None:
        bulk.insert(db, collection_id, parts, int(now))
        bulk.update(db, collection_id, write.updates, int(now), store=write.store)
    if write.mark is not None:
        db.execute(
            "INSERT OR REPLACE INTO embedq_chunks (run, chunk, counts, finished) VALUES (?, ?, ?, ?)",
            (write.mark.run, write.mark.chunk, _text(write.mark.counts), now if write.mark.finished else None),
        )


def _remove_stale(db: sqlite3.Connection, write: Write, mark: ChunkMark, *, among_letters: bool) -> int:
    target = write.target
    removed = remove_stale(
        db,
        target.collection,
        target.model_id,
        write.documents,
        Origin(mark.run, mark.chunk),
        among_letters=among_letters,
    )
    if removed:
        counts = _text(mark.counts + Counts(removed=removed))
        db.execute("UPDATE embedq_chunks SET counts = ? WHERE run = ? AND chunk = ?", (counts, mark.run, mark.chunk))
    return removed


def _text(counts: Counts) -> str:
    return _COUNTS.encode(counts).decode()


def _is_one_s_own(error: Exception) -> bool:
    """Whether an error comes from what was to be written. Others are the database's: locked, full, corrupt."""
    cause = error.__cause__ if isinstance(error, StoreError) else error
    return not (isinstance(cause, sqlite3.OperationalError) or type(cause) is sqlite3.DatabaseError)


async def ensure_collection(db: aiosqlite.Connection, target: Target) -> tuple[int, str]:
    """The id and the model of a collection, made if it isn't there. Call it inside a transaction."""
    await db.execute(
        "INSERT INTO collections (name, model) SELECT ?1, ?2"
        " WHERE NOT EXISTS (SELECT 1 FROM collections WHERE name = ?1)",
        (target.collection, target.model_id),
    )
    rows = await db.execute_fetchall("SELECT id, model FROM collections WHERE name = ?", (target.collection,))
    for collection_id, model_id in rows:
        return int(collection_id), str(model_id)
    raise StoreError(f"the collection {target.collection!r} could not be made")


def _check_not_moved(db: sqlite3.Connection, target: Target) -> None:
    """Raise CollectionMoved for vectors beside a collection that are gone: it is not for a write to make them anew."""
    if find_collection(db, target.collection) is None and moved(db, target.collection, target.model_id) is not None:
        raise CollectionMoved(
            f"{target.collection!r} held vectors beside {base_name(target.collection)!r} while it was embedded anew:"
            " it is gone since"
        )


def check_model(target: Target, model_id: str) -> None:
    """Raise ModelMismatch where the collection's model, `model_id`, is not the target's."""
    if target.model_id != model_id:
        raise ModelMismatch(
            f"the collection {target.collection!r} was embedded with {model_id}, not with {target.model_id}: "
            "leave the model out, or name another collection"
        )
