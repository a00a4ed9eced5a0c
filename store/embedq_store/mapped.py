"""A collection's unit vectors in files that can be mapped into memory: their form, and reading them.

Three files for each collection, in a folder beside the database:

- `ID.head` says all about the others, and stands last: it is put in place whole, by renaming;
- `ID-NAME.rows`, the rowids, ascending: little-endian int64;
- `ID-NAME.vectors`, the unit rows, in the same order: little-endian float32.

Only as many rows as the head says are valid; what stands behind them is what somebody is appending, or was when he
died. Valid rows are never changed: rows are appended, or all is written to files of another name. So a reader needs
no lock. Whether the rows are those of the database is another question: see `embedq_store.copying`.
"""

import mmap
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Final, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from embedq_core.vectors import STORED_DTYPE, Matrix
from embedq_store.freshness import Stamp

FORM: Final = 1
ROWID_DTYPE: Final = np.dtype("<i8")
ROWID_BYTES: Final = ROWID_DTYPE.itemsize

# Rows of which each checksum is; and bytes of rows that are looked at at a time.
SUM_ROWS: Final = 4096
_LOOK_BYTES: Final = 4 * 1024 * 1024

_S = TypeVar("_S", bound=msgspec.Struct)


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What the head says.

    `token` names this state of the copy, in the database too; `stamp` is the collection's at that time, and
    `last_rowid` the last rowid that was read then, of whatever row. `compact_rows` and `compact_changes` are the
    number of rows and the count of changes when all was last read anew.
    """

    form: int = FORM
    collection_id: int
    token: int
    stamp: Stamp
    last_rowid: int
    compact_rows: int
    compact_changes: int
    name: str
    dimension: int
    rows: int
    rowids_sum: int
    sums: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of a vector."""
        return self.dimension * STORED_DTYPE.itemsize


def head_path(folder: Path, collection_id: int) -> Path:
    """Where the head of a collection's copy is."""
    return folder / f"{collection_id}.head"


def rowids_path(folder: Path, collection_id: int, name: str) -> Path:
    """Where the rowids of a copy are."""
    return folder / f"{collection_id}-{name}.rows"


def vectors_path(folder: Path, collection_id: int, name: str) -> Path:
    """Where the unit rows of a copy are."""
    return folder / f"{collection_id}-{name}.vectors"


def write_sealed(path: Path, content: msgspec.Struct) -> None:
    """Put `content` in its place, whole and on the disk: a checksum of four bytes, then msgpack. Raises OSError."""
    body = msgspec.msgpack.encode(content)
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(zlib.crc32(body).to_bytes(4, "little") + body)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_sealed(path: Path, type_: type[_S]) -> _S | None:
    """What `write_sealed` has put there. None where nothing is that can be understood."""
    try:
        data = path.read_bytes()
        if zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
            return None
        return msgspec.msgpack.decode(data[4:], type=type_)
    except (OSError, msgspec.MsgspecError):
        return None


def read_head(folder: Path, collection_id: int) -> Head | None:
    """The head of a collection's copy. None where there is none that can be understood."""
    head = read_sealed(head_path(folder, collection_id), Head)
    usable = head is not None and head.form == FORM and head.collection_id == collection_id and head.rows > 0
    return head if usable else None


def block_sum(block: Matrix) -> int:
    """A checksum of rows: of rows one after the other it is the sum of theirs, modulo 2⁶⁴.

    It runs as fast as memory can be read, and notices pages that are missing or are from another time.
    """
    words = np.uint64 if block.shape[1] % 2 == 0 else np.uint32
    return int(np.add.reduce(block.view(words), axis=None, dtype=np.uint64))


class MappedRows:
    """The valid rows of a copy, mapped: the system reads them when they are needed, and may let them go."""

    def __init__(
        self, head: Head, files: tuple[os.stat_result, ...], rowids: npt.NDArray[np.int64], mapping: mmap.mmap
    ) -> None:
        self.head = head
        self._files = files
        self.rowids = rowids
        """Shape (rows,); held in memory."""
        self.matrix: Matrix = np.frombuffer(mapping, dtype=STORED_DTYPE, count=head.rows * head.dimension).reshape(
            head.rows, head.dimension
        )
        """Shape (rows, dimension)."""
        self._mapping = mapping

    @classmethod
    def open(cls, folder: Path, head: Head, *, verify: bool) -> "MappedRows | None":
        """The rows that `head` describes. None where the files are not as it says: gone, cut short, damaged.

        With `verify` all of them are read.
        """
        try:
            with rowids_path(folder, head.collection_id, head.name).open("rb") as file:
                data = file.read(head.rows * ROWID_BYTES)
                rowids_status = os.fstat(file.fileno())
            with vectors_path(folder, head.collection_id, head.name).open("rb") as file:
                size = head.rows * head.row_bytes
                status = os.fstat(file.fileno())
                if len(data) < head.rows * ROWID_BYTES or status.st_size < size:
                    return None
                mapping = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            return None
        rowids = np.frombuffer(data, dtype=ROWID_DTYPE).astype(np.int64, copy=False)
        rows = cls(head, (rowids_status, status), rowids, mapping)
        return rows if not verify or (zlib.crc32(data) == head.rowids_sum and rows._is_whole()) else None

    def are_in(self, *files: IO[bytes]) -> bool:
        """Whether these are the files of rowids and of rows that were opened, and are as long as they were at least."""
        found = [os.fstat(file.fileno()) for file in files]
        return all(
            os.path.samestat(one, then) and one.st_size >= size
            for one, then, size in zip(found, self._files, self._sizes, strict=True)
        )

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.head.rows * ROWID_BYTES, self.head.rows * self.head.row_bytes

    @property
    def bytes(self) -> int:
        """What the rows take."""
        return self.matrix.nbytes

    def blocks(self, stop: int, block_rows: int, first: int = 0) -> Iterator[tuple[int, Matrix]]:
        """The rows from `first` up to `stop` in blocks: the place of the first, and the block.

        Each block is let go of when the next one is asked for; the system is told that it will be.
        """
        for start in range(first, stop, block_rows):
            end = min(start + block_rows, stop)
            self._advise(mmap.MADV_WILLNEED, end, min(end + block_rows, stop))
            yield start, self.matrix[start:end]
            self._advise(mmap.MADV_DONTNEED, start, end)

    def let_go(self) -> None:
        """Hold none of the rows in memory, until they are needed again."""
        self._advise(mmap.MADV_DONTNEED, 0, self.head.rows)

    def _advise(self, advice: int, start: int, stop: int) -> None:
        row_bytes = self.head.row_bytes
        first = start * row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
        length = min(stop * row_bytes, len(self._mapping)) - first
        if start < stop and length > 0:
            self._mapping.madvise(advice, first, length)

    def _is_whole(self) -> bool:
        """Whether the rows have the sums that the head says."""
        head = self.head
        if len(head.sums) != -(-head.rows // SUM_ROWS):
            return False
        step = max(1, _LOOK_BYTES // (SUM_ROWS * head.row_bytes))

        def look(first: int) -> bool:
            stop = min(first + step, len(head.sums))
            sums = (block_sum(self.matrix[at * SUM_ROWS : (at + 1) * SUM_ROWS]) for at in range(first, stop))
            whole = all(found == said for found, said in zip(sums, head.sums[first:stop], strict=True))
            self._advise(mmap.MADV_DONTNEED, first * SUM_ROWS, min(stop * SUM_ROWS, head.rows))
            return whole

        # Threads: numpy gives up the lock of the interpreter, and one core doesn't read as fast as memory gives.
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
            return all(threads.map(look, range(0, len(head.sums), step)))
