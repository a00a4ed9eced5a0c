"""What a write does in its transaction: it is checked, then rows, dead letters and its chunk's mark are written."""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Final, TypeAlias

import aiosqlite
import msgspec

from embedq_core.collection_names import base_name
from embedq_core.configuration import Configuration
from embedq_core.counts import Counts
from embedq_core.errors import BadVectors, CollectionMoved, ModelMismatch, StoreError
from embedq_store import bulk, burying, holding_back
from embedq_store.burying import Origin, Suspects
from embedq_store.configurations import record
from embedq_store.letters import DeadLetter
from embedq_store.outcomes import Incoming
from embedq_store.reembedding_records import moved
from embedq_store.stale import remove_stale
from embedq_store.standing import dimension_of, find_collection
from embedq_store.writes import ChunkMark, Target, Write

_ChunkKey: TypeAlias = tuple[str, int]
Parts: TypeAlias = Sequence[tuple[object, ...]]
"""Rows as `embedq_store.bulk.packed` makes them."""

_COUNTS: Final = msgspec.json.Encoder()


class Transaction:
    """A transaction that has begun, and what is known within it: which chunks are finished, and the collections."""

    def __init__(self, db: aiosqlite.Connection, finished: set[_ChunkKey], held_back: set[str]) -> None:
        self._db = db
        self._finished = finished
        self.held_back = held_back
        """The collections that take no rows for a moment: see `embedq_store.holding_back`."""
        self._ids: dict[str, tuple[int, str]] = {}
        self._dimensions: dict[int, int | None] = {}
        self._configurations: dict[int, Configuration] = {}
        self._letters: dict[str, Suspects] = {}

    @classmethod
    async def begun(cls, db: aiosqlite.Connection, marks: Sequence[ChunkMark]) -> "Transaction":
        """One that has just begun, in which chunks with these `marks` are to be written."""

        def look(connection: sqlite3.Connection) -> "Transaction":
            finished = {key for mark in marks if _is_finished(connection, key := (mark.run, mark.chunk))}
            return cls(db, finished, holding_back.held_back(connection))

        return await bulk.in_thread(db, look)

    def forget(self) -> None:
        """Forget the collections: something may have changed them, or deleted them."""
        self._ids.clear()
        self._dimensions.clear()
        self._configurations.clear()
        self._letters.clear()

    async def apply(self, write: Write, parts: Parts) -> int:
        """Write it, its rows as `parts`; return how many entries were removed.

        It is checked first, so that one that is refused has changed nothing. Nothing changes either where the chunk is
        finished: a worker that had stalled for longer than its lease comes late, and what others have stored since may
        be newer.
        """
        mark = write.mark
        if mark is not None and (mark.run, mark.chunk) in self._finished:
            return 0
        if base_name(write.target.collection) is not None and (write.rows or write.updates or write.dead):
            await bulk.in_thread(self._db, partial(_check_not_moved, target=write.target))
        if write.mends:
            write = await self._mending(write)
            parts = bulk.packed(write.rows, store=write.store)
        collection_id = None
        if write.rows or write.updates:
            collection_id = await self._collection_id(write.target)
            await self._check_dimension(write, collection_id)
            await self._record_configuration(write, collection_id)
        await bulk.in_thread(self._db, partial(_change, write=write, parts=parts, collection_id=collection_id))
        if collection_id is not None:
            await self._settle(write, collection_id)
        if write.dead:
            await self._bury(write.dead)
        if mark is not None and mark.finished:
            self._finished.add((mark.run, mark.chunk))
        return await self._remove_stale(write, mark) if mark is not None and write.documents else 0

    async def _mending(self, write: Write) -> Write:
        """What is to be written of one that mends: nothing that is newer is written over, deleted, or made anew."""
        ids = [row.item.id for row in write.rows] + [letter.id for letter in write.dead]
        cleared = await bulk.in_thread(self._db, partial(_cleared, target=write.target, ids=ids))
        letters = await self._suspects(write.target.collection).among(ids)
        return replace(
            write,
            rows=[row for row in write.rows if row.item.id in cleared],
            updates=(),
            dead=[letter for letter in write.dead if letter.id in cleared - letters],
            documents=(),
        )

    async def _collection_id(self, target: Target) -> int:
        found = self._ids.get(target.collection)
        if found is None:
            found = await ensure_collection(self._db, target)
            self._ids[target.collection] = found
        collection_id, model_id = found
        check_model(target, model_id)
        return collection_id

    async def _check_dimension(self, write: Write, collection_id: int) -> None:
        if not write.rows:
            return
        if collection_id not in self._dimensions:
            find = partial(dimension_of, collection_id=collection_id)
            self._dimensions[collection_id] = await bulk.in_thread(self._db, find)
        dimension = self._dimensions[collection_id]
        for size in dict.fromkeys([len(row.vector) // 4 for row in write.rows]):
            dimension = size if dimension is None else dimension
            if size != dimension:
                raise BadVectors(
                    f"the model {write.target.model_id} returned a vector of {size} dimensions; the collection "
                    f"{write.target.collection!r} holds vectors of {dimension}"
                )
        self._dimensions[collection_id] = dimension

    async def _record_configuration(self, write: Write, collection_id: int) -> None:
        target, present = write.target, write.target.configuration
        if not write.rows or present is None or self._configurations.get(collection_id) == present:
            return
        recording = partial(
            record,
            collection_id=collection_id,
            collection=target.collection,
            model_id=target.model_id,
            present=present,
        )
        await bulk.in_thread(self._db, recording)
        self._configurations[collection_id] = present

    async def _remove_stale(self, write: Write, mark: ChunkMark) -> int:
        """Remove what is left over of documents, and count it in the mark that is written."""
        among_letters = await self._suspects(write.target.collection).exist()
        removing = partial(_remove_stale, write=write, mark=mark, among_letters=among_letters)
        return await bulk.in_thread(self._db, removing)

    async def _settle(self, write: Write, collection_id: int) -> None:
        """What is stored now is dead no longer."""
        collection = write.target.collection
        suspects = self._suspects(collection)
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

    async def _bury(self, letters: Sequence[DeadLetter]) -> None:
        for collection, model_id in dict.fromkeys((letter.collection, letter.model) for letter in letters):
            own = [letter for letter in letters if (letter.collection, letter.model) == (collection, model_id)]
            rows = await self._db.execute_fetchall(
                "SELECT id FROM collections WHERE name = ? AND model = ?", (collection, model_id)
            )
            collection_id = next((int(row[0]) for row in rows), None)
            await burying.insert(self._db, own, collection_id, self._suspects(collection))

    def _suspects(self, collection: str) -> Suspects:
        return self._letters.setdefault(collection, Suspects(self._db, collection))


def _is_finished(db: sqlite3.Connection, chunk: _ChunkKey) -> bool:
    sql = "SELECT 1 FROM embedq_chunks WHERE run = ? AND chunk = ? AND finished IS NOT NULL"
    return db.execute(sql, chunk).fetchone() is not None


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


def _change(db: sqlite3.Connection, write: Write, parts: Parts, collection_id: int | None) -> None:
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
