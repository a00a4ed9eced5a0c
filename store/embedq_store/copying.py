"""The mapped copy of a collection: when it is that of this database, and making it.

A copy holds all rows up to its `last_rowid`, as they were at its `stamp`. What is right of it later, the rules of
`embedq_store.freshness` tell, but only of a database whose history goes *through* that state. A file that was restored
from a back-up, or put in the place of another, has another history. So each state of a copy has a token, random and
used once, which is committed to the database before the copy's head is put in place: a database that knows
the token had that state. The token is a rowid: a file that was copied row by row, with other rowids, doesn't know it.

Who makes or extends a copy holds a lock. In the order: rows into the files, and synced; the token into the database,
with the last one; the head. Whoever dies in between leaves the last state of the copy as it was.
"""

import asyncio
import contextlib
import fcntl
import os
import secrets
import stat
import threading
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Final

import aiosqlite
import numpy as np
import numpy.typing as npt

from embedq_core.errors import StoreError
from embedq_core.vectors import STORED_DTYPE, Matrix
from embedq_store.connection import connect, translated
from embedq_store.freshness import Stamp, kept_until, read_stamp
from embedq_store.mapped import (
    ROWID_BYTES,
    ROWID_DTYPE,
    SUM_ROWS,
    Head,
    MappedRows,
    block_sum,
    head_path,
    read_head,
    rowids_path,
    vectors_path,
    write_sealed,
)

# The token of what could not be published, and is this process's alone.
UNPUBLISHED: Final = 0

# What the name of the lock ends with that those who build an index of a copy hold.
INDEX_LOCK: Final = ".index-lock"

_BUSY_SECONDS: Final = 5.0
_COPY_BYTES: Final = 8 * 1024 * 1024
_POLL_SECONDS: Final = 0.02


class CopyFolder:
    """Where the copies of a database's collections are."""

    published = True
    """Whether others get to see them."""

    def __init__(self, database: str) -> None:
        self.database = database
        beside = Path(database).absolute()
        self.path = beside.with_name(beside.name + ".embedq") / "vectors"

    async def standing(self, db: aiosqlite.Connection, head: Head | None) -> int | None:
        """Up to which rowid the copy described by `head` is right. None where it is not a copy of this database."""
        if head is None:
            return None
        known = await db.execute_fetchall(
            "SELECT 1 FROM embedq_copies WHERE rowid = ? AND collection_id = ?", (head.token, head.collection_id)
        )
        return await kept_until(db, head.stamp, await read_stamp(db, head.collection_id)) if list(known) else None

    def read_head(self, collection_id: int) -> Head | None:
        """The head of a collection's copy, if there is one, in a folder that nobody else can write to."""
        with contextlib.suppress(OSError):
            status = self.path.stat()
            if status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return read_head(self.path, collection_id)
        return None

    async def lock(self, collection_id: int, seconds: float) -> "CopyLock | None":
        """The right to change a collection's copy; None where another has it for all of `seconds`.

        Raises OSError where there can be no copies.
        """
        if not os.access(self.database, os.W_OK):
            raise PermissionError(self.database)
        for folder in (self.path.parent, self.path):
            folder.mkdir(mode=0o700, exist_ok=True)
        if self.path.stat().st_uid != os.geteuid():
            raise PermissionError(self.path)
        lock = CopyLock(self, collection_id)
        try:
            async with asyncio.timeout(seconds):
                while not lock.take():  # noqa: ASYNC110 - the lock is another process's
                    await asyncio.sleep(_POLL_SECONDS)
        except BaseException as error:
            lock.release()
            if isinstance(error, TimeoutError):
                return None
            raise
        return lock

    def leave(self) -> None:
        """Say that nothing more will be written."""

    def remove(self, collection_id: int) -> None:
        """Remove the copy of a collection that is no more, if nobody is at it."""
        with contextlib.suppress(OSError), contextlib.closing(CopyLock(self, collection_id)) as lock:
            if lock.take():
                head_path(self.path, collection_id).unlink(missing_ok=True)
                lock.tidy(None)
                lock.unlink()
                # Who is building an index notices that there is no copy any more.
                CopyLock(self, collection_id, INDEX_LOCK).unlink()


class PrivateFolder(CopyFolder):
    """A temporary folder, for a copy that only this process gets to see. Raises OSError where there can be none."""

    published = False

    def __init__(self, database: str) -> None:
        super().__init__(database)
        self._temporary = TemporaryDirectory(prefix="embedq-")
        self.path = Path(self._temporary.name)

    def leave(self) -> None:
        """Remove the folder: what is mapped stays so."""
        self._temporary.cleanup()


class CopyLock:
    """The right to change the copy of one collection, from `take` to `release`. The system releases it for the dead."""

    def __init__(self, folder: CopyFolder, collection_id: int, suffix: str = ".lock") -> None:
        self.folder = folder
        self.collection_id = collection_id
        self._path = folder.path / f"{collection_id}{suffix}"
        self._file: IO[bytes] | None = None

    def take(self) -> bool:
        """Whether nobody else has it."""
        file = self._path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The file may have been removed, and made anew, since it was opened.
            if os.path.samestat(os.fstat(file.fileno()), self._path.stat()):
                self._file = file
                return True
        except (BlockingIOError, FileNotFoundError):
            pass
        file.close()
        return False

    def release(self) -> None:
        """Let others have it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    close = release

    def unlink(self) -> None:
        """Remove the file of the lock."""
        self._path.unlink(missing_ok=True)

    def tidy(self, head: Head | None) -> None:
        """Remove whatever is no part of the copy that `head` describes, nor its index: what the dead have left."""
        for path in self.folder.path.glob(f"{self.collection_id}-*"):
            if head is None or not path.name.startswith(f"{self.collection_id}-{head.name}."):
                path.unlink(missing_ok=True)


class CopyWriter:
    """Writes the next state of a copy. Whoever has made one closes it; what was not published is as if it were not.

    `head` is the one that is there; `kept` rows of `base` begin the new state. Where they are all that `head`
    describes, the others are appended to its files. `append` and `close` may take long: call them in a thread. Where
    whoever waits for one of them is cancelled, its thread goes on: the next one, such as `close`, waits for it.
    """

    def __init__(
        self,
        lock: CopyLock,
        head: Head | None,
        base: MappedRows | None = None,
        kept: int = 0,
        compact: tuple[int, int] | None = None,
    ) -> None:
        self._lock = lock
        self._head = head
        self._base = base
        self._kept = kept
        self._compact = compact
        self._appends = False
        self._name = secrets.token_hex(8)
        self._dimension = 0 if base is None else base.head.dimension
        self._rows = 0
        self._rowids_sum = 0
        self._sums: list[int] = []
        self._files: tuple[IO[bytes], IO[bytes]] | None = None
        self._in_turn = threading.Lock()
        self._closed = False

    def append(self, rowids: npt.NDArray[np.int64], units: Matrix) -> None:
        """Write rows behind those that are there. Raises OSError."""
        with self._in_turn:
            if self._files is None and not self._closed:
                self._open()
            self._put(rowids, units)

    def _open(self) -> None:
        self._lock.tidy(self._head)
        self._files = self._open_to_append()
        if self._files is None:
            rowids, vectors = self._paths(self._name)
            self._files = (rowids.open("xb"), vectors.open("xb"))
            if self._base is not None:
                step = max(1, _COPY_BYTES // self._base.head.row_bytes)
                for start, block in self._base.blocks(self._kept, step):
                    self._put(self._base.rowids[start : start + len(block)], block)

    def _open_to_append(self) -> tuple[IO[bytes], IO[bytes]] | None:
        """The files of what is there, where all of it is kept and they are still those that are mapped."""
        head, base = self._head, self._base
        if head is None or base is None or base.head.token != head.token or self._kept < head.rows:
            return None
        with contextlib.ExitStack() as opened, contextlib.suppress(FileNotFoundError):
            rowids, vectors = (opened.enter_context(path.open("r+b")) for path in self._paths(head.name))
            if not base.are_in(rowids, vectors):
                return None
            # What a writer that died has left behind the valid rows is overwritten.
            rowids.seek(rowids.truncate(head.rows * ROWID_BYTES))
            vectors.seek(vectors.truncate(head.rows * head.row_bytes))
            self._appends, self._name = True, head.name
            self._rows, self._rowids_sum, self._sums = head.rows, head.rowids_sum, list(head.sums)
            opened.pop_all()
            return rowids, vectors
        return None

    def _paths(self, name: str) -> tuple[Path, Path]:
        folder, collection_id = self._lock.folder.path, self._lock.collection_id
        return rowids_path(folder, collection_id, name), vectors_path(folder, collection_id, name)

    def _put(self, rowids: npt.NDArray[np.int64], units: Matrix) -> None:
        if self._files is None or not len(units):
            return
        data = rowids.astype(ROWID_DTYPE, copy=False).tobytes()
        stored = np.ascontiguousarray(units, dtype=STORED_DTYPE)
        self._files[0].write(data)
        self._files[1].write(stored.data)
        self._rowids_sum = zlib.crc32(data, self._rowids_sum)
        self._dimension = units.shape[1]
        at = 0
        while at < len(stored):
            some = stored[at : at + SUM_ROWS - self._rows % SUM_ROWS]
            if self._rows % SUM_ROWS == 0:
                self._sums.append(0)
            self._sums[-1] = (self._sums[-1] + block_sum(some)) % 2**64
            at += len(some)
            self._rows += len(some)

    def sync(self) -> None:
        """Have all that was written on the disk."""
        with self._in_turn:
            for file in self._files or ():
                file.flush()
                os.fsync(file.fileno())

    async def publish(self, stamp: Stamp, last_rowid: int, changes: int) -> MappedRows | None:
        """Put the new state in the place of the old one, and map it.

        `stamp` was taken before the rows were read, when `changes` had been counted. Where some have changed since,
        or the database can't be written to, nobody else gets to see the new state: it is mapped for this process
        alone if its files are its own, and None if not. Raises OSError.
        """
        if self._files is None:
            return None
        token = secrets.randbelow(2**62) + 1
        await asyncio.to_thread(self.sync)
        standing = None
        if self._lock.folder.published:
            standing = await _commit_token(
                self._lock.folder.database, self._lock.collection_id, token, self._head, stamp, last_rowid
            )
        compact_rows, compact_changes = self._compact or (self._rows, changes)
        head = Head(
            collection_id=self._lock.collection_id,
            token=UNPUBLISHED if standing is None else token,
            stamp=stamp if standing is None else standing,
            last_rowid=last_rowid,
            compact_rows=compact_rows,
            compact_changes=compact_changes,
            name=self._name,
            dimension=self._dimension,
            rows=self._rows,
            rowids_sum=self._rowids_sum,
            sums=tuple(self._sums),
        )
        if standing is not None:
            return await asyncio.to_thread(self._put_head, head)
        return None if self._appends else MappedRows.open(self._lock.folder.path, head, verify=False)

    def _put_head(self, head: Head) -> MappedRows | None:
        with self._in_turn:
            return None if self._closed else self._replace_head(head)

    def _replace_head(self, head: Head) -> MappedRows | None:
        folder = self._lock.folder.path
        # Mapped before it is known to others: once it is, they may replace it.
        rows = MappedRows.open(folder, head, verify=False)
        write_sealed(head_path(folder, head.collection_id), head)
        self._lock.tidy(head)
        return rows

    def close(self) -> None:
        """Let go of the files and of the lock."""
        with self._in_turn:
            self._closed = True
            for file in self._files or ():
                with contextlib.suppress(OSError):  # what could not be written is not published
                    file.close()
            self._files = None
            with contextlib.suppress(OSError):
                self._lock.tidy(read_head(self._lock.folder.path, self._lock.collection_id))
            self._lock.release()
            self._lock.folder.leave()


async def _commit_token(
    database: str, collection_id: int, token: int, old: Head | None, stamp: Stamp, last_rowid: int
) -> Stamp | None:
    """Commit the token of a new state, if the rows up to `last_rowid` are still as they were at `stamp`.

    Returns the stamp of that moment; None where they are not, or the database can't be written to. The token of the
    `old` state stays, until the new one's head is in its place.
    """
    try:
        db = await connect(database, read_only=False, busy_seconds=_BUSY_SECONDS)
    except StoreError:
        return None
    try:
        with translated(database):
            await db.execute("BEGIN IMMEDIATE")
            now = await read_stamp(db, collection_id)
            if now is None or await kept_until(db, stamp, now) < last_rowid:
                return None
            await db.execute(
                "DELETE FROM embedq_copies WHERE collection_id = ? AND rowid IS NOT ?",
                (collection_id, None if old is None else old.token),
            )
            await db.execute("INSERT INTO embedq_copies (rowid, collection_id) VALUES (?, ?)", (token, collection_id))
            await db.execute("COMMIT")
            return now
    except StoreError:
        return None
    finally:
        await db.close()
