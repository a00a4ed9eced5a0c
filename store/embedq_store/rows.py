"""The rows of one collection as unit vectors, brought up to date before each query.

The first rows, as many as the collection's mapped copy has, are mapped from its files; the others, and all of
a small collection, are in memory. When more than 16 MiB are in memory, they go to the copy. Where there can be no copy
(a database in memory, a folder that can't be written to, a file without embedq's triggers), all are in memory; or, of
a folder that can't be written to, in a temporary file, where they would take much of what the search may hold.

What remains right of rows when the file has changed, `embedq_store.freshness` tells; what of a copy,
`embedq_store.copying`. Rows that are gone, or were replaced, may still be held: whoever uses the scores reads
the rows again.
"""

import asyncio
import logging
import time
from typing import Any, Final

import aiosqlite
import numpy as np

from embedq_store.budget import DEFAULT_SEARCH_BYTES
from embedq_store.copying import UNPUBLISHED, CopyFolder, CopyLock, CopyWriter, PrivateFolder
from embedq_store.freshness import NOTHING, Stamp, is_half_gone, kept_until, may_be_half_gone, read_stamp
from embedq_store.held import HeldRows
from embedq_store.mapped import Head, MappedRows
from embedq_store.resident import unit_rows

# Rows read at a time: few enough for their memory to be used again and again. Eight times as many cost twice the time.
_READ_ROWS: Final = 1024
RESIDENT_BYTES: Final = 16 * 1024 * 1024

# Pages of rows that go to the copy in one step, where nobody waits for it.
_STEP_PAGES: Final = 64

# How long to wait for another process that is making the first copy, and, where there can be none, until trying again.
_WAIT_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 60.0

_log = logging.getLogger("embedq.search")


class _CopyError(Exception):
    """A copy could not be written, for the reason that is its cause."""


class CollectionRows(HeldRows):
    """What is held of the rows of one collection. Not safe for concurrent use.

    `copies` is where the database's mapped copies are, if it can have any; `search_bytes` how much of mapped rows
    may be in memory at a time. Who searches nothing, and has only written, makes one that does not `search`, and
    extends the copy with it.
    """

    def __init__(
        self,
        db: aiosqlite.Connection,
        collection_id: int,
        copies: CopyFolder | None = None,
        search_bytes: int = DEFAULT_SEARCH_BYTES,
        *,
        search: bool = True,
    ) -> None:
        super().__init__(search_bytes)
        self._db = db
        self._collection_id = collection_id
        self._copies = copies
        self._search = search
        self._copy_after = 0.0
        self._no_private = False
        self._damaged: int | None = None
        self._seen: tuple[int, int] | None = None
        self._stamp: Stamp | None = None
        self._forget()

    def _forget(self) -> None:
        self._hold_nothing()
        self._mapped_until = NOTHING
        self._last_rowid = NOTHING
        self._misfits = False
        self._compact: tuple[int, int] | None = None

    @property
    def copy(self) -> tuple[Head, int] | None:
        """The head of the mapped copy that the first rows are those of, and how many of them are; None without one."""
        return None if self._mapped is None else (self._mapped.head, self._mapped_size)

    @property
    def stamp(self) -> Stamp | None:
        """The state that the rows are of, or a later one; None where the file counts no changes."""
        return self._stamp

    # --- bringing up to date

    async def refresh(self) -> None:
        """Hold every row of the collection that was committed before the call."""
        seen = await self._versions()
        if seen == self._seen:
            return
        now = await self._catch_up()
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

    async def extend_copy(self) -> bool:
        """Put new rows into the copy, some 65,000 at most; whether there may be more of them.

        False, too, where it is not to be done here and now: others are at it, or there can be no copy. It is given
        up for a query to do where other rows must be read anew. Raises OSError.
        """
        if await self._catch_up() is None:
            return False
        try:
            more = await self._read_new_rows(_STEP_PAGES)
        except _CopyError as error:
            raise OSError(str(error.__cause__)) from error
        return more and not self._misfits

    async def _catch_up(self) -> Stamp | None:
        """Hold only what is right now, or the copy, if nothing is; the stamp of now."""
        now = await read_stamp(self._db, self._collection_id)
        self._cut(await kept_until(self._db, self._stamp, now))
        self._stamp = now
        if now is not None and self._compact is not None:
            self._compact = await self._still_compact(self.size, self._last_rowid, self._compact, now.changes)
            if self._compact is None:
                self._forget()
        if not self.size and now is not None:
            await self._take_copy()
        return now

    async def _still_compact(
        self, size: int, last_rowid: int, compact: tuple[int, int], changes: int
    ) -> tuple[int, int] | None:
        """Where half of `size` rows up to `last_rowid` are gone, None; else what to compare with the next time."""
        if not may_be_half_gone(size, compact[0], changes - compact[1]):
            return compact
        rows = await self._db.execute_fetchall(
            "SELECT count(*) FROM embeddings WHERE collection_id = ? AND rowid <= ?", (self._collection_id, last_rowid)
        )
        return None if is_half_gone(size, next(int(row[0]) for row in rows)) else (size, changes)

    async def _read_on(self) -> None:
        try:
            await self._read_new_rows()
        except _CopyError as error:
            self._forget()
            self._do_without(error.__cause__)
            self._no_private = True
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
        # What is written to a copy from its own files must be whole: it is looked at when the copy is taken again.
        unseen = not self._search and self._mapped is not None
        if last == NOTHING or (unseen and last < self._last_rowid):
            self._forget()
        else:
            self._shorten(last)

    def _shorten(self, last: int) -> None:
        if last < self._last_rowid:
            self._hold_until(last)
            self._last_rowid = last
            self._mapped_until = min(self._mapped_until, last)
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
        compact = await self._still_compact(
            head.rows, head.last_rowid, (head.compact_rows, head.compact_changes), self._stamp.changes
        )
        if compact is None:
            return head
        verify = self._search or until < head.last_rowid
        mapped = await asyncio.to_thread(MappedRows.open, self._copies.path, head, verify=verify)
        if mapped is None:
            _log.warning("%s: the copy of a collection for searching is damaged: made anew", self._copies.database)
            self._damaged = head.token
            return head
        if mapped.rowids[0] > until:
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
        self._compact = compact
        self._joined = None
        self._shorten(until)
        return head

    async def _read_new_rows(self, pages: int | None = None) -> bool:
        """Read all rows beyond the last one, or `pages` of them, for the copy alone; whether there may be more."""
        writer: CopyWriter | None = None
        try:
            page = 0
            while True:
                page += 1
                more = await self._read_page()
                if writer is None and self._tail.bytes > RESIDENT_BYTES:
                    read = self._last_rowid
                    writer = await self._begin_copy() or await self._begin_private_copy()
                    if writer is None and not self._search and self._tail.bytes > RESIDENT_BYTES:
                        return False
                    # Another's copy may have taken the place of rows that it lacks.
                    more |= self._last_rowid < read
                ended = not more or page == pages
                if writer is not None and (ended or self._tail.bytes > RESIDENT_BYTES):
                    await asyncio.to_thread(writer.append, self._tail.rowids, self._tail.matrix)
                    self._tail.clear()
                if ended and (writer is None or await self._publish(writer)):
                    return more
                if ended and not self._search:
                    return False
                if ended and writer is not None:
                    await asyncio.to_thread(writer.close)
                    writer = None
        except OSError as error:
            # A full disk, say: what went to the files is to be read again.
            raise _CopyError from error
        finally:
            if writer is not None:
                await asyncio.shield(asyncio.to_thread(writer.close))

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
            lock = await self._copies.lock(self._collection_id, self._patience)
        except OSError as error:
            self._do_without(error)
            return None
        if lock is None:
            if self._patience:
                self._do_without("another process has been making it for a long time")
            return None
        try:
            head = await asyncio.to_thread(self._copies.read_head, self._collection_id)
            # One of another dimension is of rows that have all been replaced since.
            fits = head is not None and head.dimension == self._dimension
            if head is not None and fits and (self._mapped is None or self._mapped.head.token != head.token):
                head = await self._take_copy()
                if self._tail.bytes <= RESIDENT_BYTES:
                    lock.release()
                    return None
            return CopyWriter(lock, head, self._mapped, self._mapped_size, self._compact)
        except BaseException:
            lock.release()
            raise

    async def _begin_private_copy(self) -> CopyWriter | None:
        """A writer for more than may be in memory, where there can be no copy for all: it goes to a temporary file."""
        if self._copies is None or self._stamp is None or not self._search or self._no_private:
            return None
        # What is held grows by doubling, and what is read next takes some more.
        if self._tail.bytes <= self._search_bytes // 4:
            return None
        try:
            lock = CopyLock(await asyncio.to_thread(PrivateFolder, self._copies.database), self._collection_id)
            lock.take()
        except OSError as error:
            self._do_without(error)
            return None
        return CopyWriter(lock, None, self._mapped, self._mapped_size, self._compact)

    @property
    def _patience(self) -> float:
        """Seconds to wait for another process that is at the copy: it saves reading everything."""
        return _WAIT_SECONDS if self._search and self._mapped is None else 0

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
