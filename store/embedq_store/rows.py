"""The rows of one collection as unit vectors, brought up to date before each query, and their scores.

The first rows, as many as the collection's mapped copy has, are mapped from its files; the others, and all of
a small collection, are in memory. When more than 16 MiB are in memory, they go to the copy. Where there can be no copy
(a database in memory, a folder that can't be written to, a file without embedq's triggers), all are in memory.

What remains right of rows when the file has changed, `embedq_store.freshness` tells; what of a copy,
`embedq_store.copying`. Rows that are gone, or were replaced, may still be held: whoever uses the scores reads
the rows again.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any, Final

import aiosqlite
import numpy as np
import numpy.typing as npt

from embedq_core.vectors import Matrix
from embedq_store.copying import UNPUBLISHED, CopyFolder, CopyWriter
from embedq_store.freshness import NOTHING, Stamp, is_worth_compacting, kept_until, read_stamp
from embedq_store.mapped import Head, MappedRows
from embedq_store.resident import ResidentRows, unit_rows

DEFAULT_SEARCH_BYTES: Final = 4 * 1024**3

_READ_ROWS: Final = 8192
_RESIDENT_BYTES: Final = 16 * 1024 * 1024
# Rows that are gathered at a time; and, beyond the memory that may be used, multiplied at a time: each product
# has to wake other threads.
_GATHERED_BYTES: Final = 16 * 1024 * 1024
_PRODUCT_BYTES: Final = 128 * 1024 * 1024

# What the system may map around a row that is looked at.
_FAULT_BYTES: Final = 64 * 1024

# How long to wait for another process that is making the first copy, and, where there can be none, until trying again.
_WAIT_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 60.0

# Half of the distance from 1 to the next float32: what one operation may be off, relatively.
_ROUNDING: Final = 2.0**-24

_log = logging.getLogger("embedq.search")


class _CopyError(Exception):
    """A copy could not be written, for the reason that is its cause."""


class CollectionRows:
    """What is held of the rows of one collection. Not safe for concurrent use.

    `copies` is where the database's mapped copies are, if it can have any; `search_bytes` how much of mapped rows
    may be in memory at a time.
    """

    def __init__(
        self,
        db: aiosqlite.Connection,
        collection_id: int,
        copies: CopyFolder | None = None,
        search_bytes: int = DEFAULT_SEARCH_BYTES,
    ) -> None:
        self._db = db
        self._collection_id = collection_id
        self._copies = copies
        self._search_bytes = search_bytes
        self._copy_after = 0.0
        self._damaged: int | None = None
        self._seen: tuple[int, int] | None = None
        self._stamp: Stamp | None = None
        self._forget()

    def _forget(self) -> None:
        self._mapped: MappedRows | None = None
        self._mapped_size = 0
        self._mapped_until = NOTHING
        self._tail = ResidentRows()
        self._dimension = 0
        self._misfits = False
        self._last_rowid = NOTHING
        self._compact: tuple[int, int] | None = None
        self._joined: npt.NDArray[np.int64] | None = None

    @property
    def size(self) -> int:
        """How many rows are held: rows of the collection, and some that are gone."""
        return self._mapped_size + self._tail.size

    @property
    def dimension(self) -> int:
        """The dimension of the rows; 0 while there are none."""
        return self._dimension

    @property
    def rowids(self) -> npt.NDArray[np.int64]:
        """Their rowids, ascending; shape (size,)."""
        if self._mapped is None:
            return self._tail.rowids
        if self._joined is None or len(self._joined) != self.size:
            self._joined = np.concatenate([self._mapped.rowids[: self._mapped_size], self._tail.rowids])
        return self._joined

    @property
    def copy(self) -> tuple[Head, int] | None:
        """The head of the mapped copy that the first rows are those of, and how many of them are; None without one."""
        return None if self._mapped is None else (self._mapped.head, self._mapped_size)

    @property
    def stamp(self) -> Stamp | None:
        """The state that the rows are of, or a later one; None where the file counts no changes."""
        return self._stamp

    @property
    def slack(self) -> float:
        """Of two rows whose scores differ by no more than this, either may be the nearer.

        The bound of the error of a float32 dot product of unit vectors, in whatever order it is summed, with their
        own rounding: n + 4 operations each off by 2⁻²⁴ at most (Higham, Accuracy and Stability of Numerical
        Algorithms, section 3.1); for both scores.
        """
        terms = (self._dimension + 4) * _ROUNDING
        return 2.02 * terms / (1 - terms)

    def scores(self, queries: Matrix, rows: npt.NDArray[np.intp] | None = None) -> Matrix:
        """Cosines with unit vectors, nearly: shape (dimension,) gives (rows,), (queries, dimension) (queries, rows).

        Of the rows at the places `rows`, ascending, or of all. May take long: call it in a thread.
        """
        count = self.size if rows is None else len(rows)
        scores = np.empty((*queries.shape[:-1], count), dtype=np.float32)
        if rows is None:
            for start, block in self._products():
                _multiply(queries, block, scores[..., start : start + len(block)])
        else:
            step = max(1, min(_GATHERED_BYTES // (4 * self._dimension), self._search_bytes // _FAULT_BYTES))
            for at in range(0, count, step):
                some = rows[at : at + step]
                _multiply(queries, self._gathered(some), scores[..., at : at + len(some)])
                self._let_go()
        return scores

    def blocks(self, block_rows: int, first: int = 0) -> Iterator[tuple[int, Matrix]]:
        """The unit rows in blocks: the place of the first, and the block. Of the mapped ones those from `first` on.

        A block is valid until the next one is asked for.
        """
        if self._mapped is not None and self._mapped.bytes > self._search_bytes:
            yield from self._mapped.blocks(self._mapped_size, block_rows, first)
        elif self._mapped is not None:
            for start in range(first, self._mapped_size, block_rows):
                yield start, self._mapped.matrix[start : min(start + block_rows, self._mapped_size)]
        for start in range(0, self._tail.size, block_rows):
            yield self._mapped_size + start, self._tail.matrix[start : start + block_rows]

    def _products(self) -> Iterator[tuple[int, Matrix]]:
        """All rows, in as large blocks as the memory allows."""
        if self._mapped is not None and self._mapped.bytes <= self._search_bytes:
            yield 0, self._mapped.matrix[: self._mapped_size]
        elif self._mapped is not None:
            block_bytes = min(_PRODUCT_BYTES, self._search_bytes // 2)
            yield from self._mapped.blocks(self._mapped_size, max(1, block_bytes // (4 * self._dimension)))
        if self._tail.size:
            yield self._mapped_size, self._tail.matrix

    def _gathered(self, rows: npt.NDArray[np.intp]) -> Matrix:
        if self._mapped is None:
            return self._tail.matrix[rows]
        border = int(np.searchsorted(rows, self._mapped_size))
        mapped = self._mapped.matrix[rows[:border]]
        if border == len(rows):
            return mapped
        return np.concatenate([mapped, self._tail.matrix[rows[border:] - self._mapped_size]])

    def _let_go(self) -> None:
        if self._mapped is not None and self._mapped.bytes > self._search_bytes:
            self._mapped.let_go()

    # --- bringing up to date

    async def refresh(self) -> None:
        """Hold every row of the collection that was committed before the call."""
        seen = await self._versions()
        if seen == self._seen:
            return
        now = await read_stamp(self._db, self._collection_id)
        self._cut(await kept_until(self._db, self._stamp, now))
        self._stamp = now
        if now is not None and self._compact is not None:
            rows, changes = self._compact
            if is_worth_compacting(self.size, rows, now.changes - changes):
                self._forget()
        if not self.size and now is not None:
            await self._take_copy()
        anew = not self.size
        await self._read_on()
        if self._misfits and not anew:
            # The collection may have been made anew for another model: its old rows say nothing of the new ones.
            self._forget()
            await self._read_on()
        if self._compact is None:
            self._compact = (self.size, 0 if now is None else now.changes)
        self._misfits = False
        self._seen = seen

    async def _read_on(self) -> None:
        try:
            await self._read_new_rows()
        except _CopyError as error:
            self._forget()
            self._do_without(error.__cause__)
            await self._read_new_rows()
        except BaseException:
            # What was moved to files that are not in use yet is held no longer.
            self._forget()
            raise

    async def have_moved(self) -> bool:
        """Whether any rows of the collection were added, changed or deleted since `refresh`, or are numbered anew."""
        if await self._versions() == self._seen:
            return False
        if await read_stamp(self._db, self._collection_id) != self._stamp or self._stamp is None:
            return True
        rows = await self._db.execute_fetchall(
            "SELECT 1 FROM embeddings WHERE +collection_id = ? AND rowid > ? LIMIT 1",
            (self._collection_id, self._last_rowid),
        )
        return bool(list(rows))

    async def _versions(self) -> tuple[int, int]:
        """What changes with every change of the file: by others, and by this connection."""
        rows = await self._db.execute_fetchall("PRAGMA data_version")
        return next(int(row[0]) for row in rows), self._db.total_changes

    def _cut(self, last: int) -> None:
        """Hold only rows up to the rowid `last`."""
        if last >= self._last_rowid:
            return
        if last == NOTHING:
            self._forget()
            return
        self._tail.cut(0, int(np.searchsorted(self._tail.rowids, last, side="right")))
        if self._mapped is not None:
            known = self._mapped.rowids[: self._mapped_size]
            self._mapped_size = int(np.searchsorted(known, last, side="right"))
        self._last_rowid = last
        self._mapped_until = min(self._mapped_until, last)
        self._joined = None
        if not self.size:
            self._forget()

    async def _take_copy(self) -> Head | None:
        """Hold the rows of the copy that is there, if it is right and not mostly of rows that are gone; its head.

        It is given in any case.
        """
        if self._copies is None or self._stamp is None:
            return None
        head = await asyncio.to_thread(self._copies.read_head, self._collection_id)
        until = await self._copies.standing(self._db, head)
        if head is None or until is None or until == NOTHING or head.token == self._damaged:
            return head
        if is_worth_compacting(head.rows, head.compact_rows, self._stamp.changes - head.compact_changes):
            return head
        mapped = await asyncio.to_thread(MappedRows.open, self._copies.path, head, verify=True)
        if mapped is None:
            _log.warning("%s: the copy of a collection for searching is damaged: made anew", self._copies.database)
            self._damaged = head.token
            return head
        keep_tail = self._mapped is not None and self._mapped.head.last_rowid <= head.last_rowid
        if keep_tail:
            first = int(np.searchsorted(self._tail.rowids, head.last_rowid, side="right"))
            self._tail.cut(first, self._tail.size)
        else:
            self._tail.clear()
        self._last_rowid = max(head.last_rowid, self._last_rowid) if keep_tail else head.last_rowid
        self._mapped, self._mapped_size, self._mapped_until = mapped, head.rows, head.last_rowid
        self._dimension = head.dimension
        self._compact = (head.compact_rows, head.compact_changes)
        self._joined = None
        self._cut(until)
        return head

    async def _read_new_rows(self) -> None:
        writer: CopyWriter | None = None
        try:
            while True:
                more = await self._read_page()
                if writer is None and self._tail.bytes > _RESIDENT_BYTES:
                    writer = await self._begin_copy()
                if writer is not None and (not more or self._tail.bytes > _RESIDENT_BYTES):
                    await asyncio.to_thread(writer.append, self._tail.rowids, self._tail.matrix)
                    self._tail.clear()
                if not more and (writer is None or await self._publish(writer)):
                    return
                if not more and writer is not None:
                    await asyncio.to_thread(writer.close)
                    writer = None
        except OSError as error:
            # A full disk, say: what went to the files is to be read again.
            raise _CopyError from error
        finally:
            if writer is not None:
                await asyncio.to_thread(writer.close)

    async def _read_page(self) -> bool:
        """Read the next rows into memory; whether there may be more."""
        # The plus sign keeps SQLite from sorting all rows of the collection for each page of them.
        rows = await self._db.execute_fetchall(
            "SELECT rowid, embedding FROM embeddings WHERE +collection_id = ? AND rowid > ? ORDER BY rowid LIMIT ?",
            (self._collection_id, self._last_rowid, _READ_ROWS),
        )
        read = list(rows)
        if read:
            await asyncio.to_thread(self._append, read)
        return len(read) == _READ_ROWS

    def _append(self, rows: list[Any]) -> None:
        self._last_rowid = int(rows[-1][0])
        if not self._dimension:
            self._dimension = next((len(blob) // 4 for _, blob in rows if blob), 0)
        # Another tool may have stored a vector of another dimension: nothing can be compared with it.
        fitting = [(rowid, blob) for rowid, blob in rows if blob and len(blob) == 4 * self._dimension]
        self._misfits |= len(fitting) < len(rows)
        if fitting:
            self._tail.append(
                [rowid for rowid, _ in fitting], unit_rows([blob for _, blob in fitting], self._dimension)
            )

    async def _begin_copy(self) -> CopyWriter | None:
        """A writer for what is in memory; None where there can be no copy now, or another's was taken instead."""
        if self._copies is None or self._stamp is None or time.monotonic() < self._copy_after:
            return None
        try:
            lock = await self._copies.lock(self._collection_id, _WAIT_SECONDS if self._mapped is None else 0)
        except OSError as error:
            self._do_without(error)
            return None
        if lock is None:
            if self._mapped is None:
                self._do_without("another process has been making it for a long time")
            return None
        try:
            head = await asyncio.to_thread(self._copies.read_head, self._collection_id)
            if head is not None and (self._mapped is None or self._mapped.head.token != head.token):
                head = await self._take_copy()
                if self._tail.bytes <= _RESIDENT_BYTES:
                    lock.release()
                    return None
            return CopyWriter(lock, head, self._mapped, self._mapped_size, self._compact)
        except BaseException:
            lock.release()
            raise

    async def _publish(self, writer: CopyWriter) -> bool:
        """Map what was written. False where it can't be used: then the rows are to be read again, into memory."""
        if self._stamp is None:
            return False
        mapped = await writer.publish(self._stamp, self._last_rowid, self._stamp.changes)
        if mapped is None or mapped.head.token == UNPUBLISHED:
            self._do_without("the database is locked, or is changing")
        if mapped is None:
            self._last_rowid = self._mapped_until
            return False
        self._mapped, self._mapped_size, self._mapped_until = mapped, mapped.head.rows, self._last_rowid
        self._compact = (mapped.head.compact_rows, mapped.head.compact_changes)
        self._joined = None
        return True

    def _do_without(self, reason: object) -> None:
        """Try to make no copy for a while."""
        _log.info("collection %d: no copy for searching: %s", self._collection_id, reason)
        self._copy_after = time.monotonic() + _RETRY_SECONDS


def _multiply(queries: Matrix, block: Matrix, out: Matrix) -> None:
    if queries.ndim == 1:
        np.matmul(block, queries, out=out)
    else:
        np.matmul(queries, block.T, out=out)
