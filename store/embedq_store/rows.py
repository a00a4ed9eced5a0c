"""The rows of one collection, normalised, held in memory and brought up to date before each query.

No new row is ever missed, whoever wrote it:

- `PRAGMA data_version` (and, for a connection's own writes, `total_changes`) says whether anything changed;
- a new or replaced row always has a rowid beyond the largest one seen, unless that very row was deleted;
- triggers count deletions and updates in place, for each collection: then the matrix is read anew;
- `PRAGMA schema_version` says whether the table was made anew or the file vacuumed: then all rowids may be others.

Rows that are gone, or were replaced, may still be held: whoever uses the scores reads the rows again.
"""

from collections.abc import Iterator
from typing import Any, Final

import aiosqlite
import numpy as np
import numpy.typing as npt

from embedq_core.vectors import STORED_DTYPE, Matrix

_READ_ROWS: Final = 8192

# A float32 dot product of unit vectors is off by at most about 1e-6 at some thousand dimensions; of two scores
# within twice that, and a bit, either may be the larger.
_SLACK: Final = 4e-6


class CollectionRows:
    """What is held of the rows of one collection. Not safe for concurrent use."""

    def __init__(self, db: aiosqlite.Connection, collection_id: int) -> None:
        self._db = db
        self._collection_id = collection_id
        self._seen: tuple[int, int] | None = None
        self._changes: tuple[int, int] | None = None
        self._compact_size = 0
        self._forget()

    def _forget(self) -> None:
        self._rowids: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._matrix: Matrix = np.empty((0, 0), dtype=np.float32)
        self._size = 0
        self._last_rowid = -(2**63)

    @property
    def size(self) -> int:
        """How many rows are held: rows of the collection, and some that are gone."""
        return self._size

    @property
    def dimension(self) -> int:
        """The dimension of the rows; 0 while there are none."""
        return int(self._matrix.shape[1])

    @property
    def rowids(self) -> npt.NDArray[np.int64]:
        """Their rowids, ascending; shape (size,)."""
        return self._rowids[: self._size]

    @property
    def slack(self) -> float:
        """Of two rows whose scores differ by no more than this, either may be the nearer."""
        return _SLACK

    def scores(self, queries: Matrix, rows: npt.NDArray[np.intp] | None = None) -> Matrix:
        """Cosines with unit vectors, nearly: shape (dimension,) gives (rows,), (queries, dimension) (queries, rows).

        Of the rows at the places `rows`, ascending, or of all.
        """
        matrix = self._matrix[: self._size]
        return np.asarray(queries @ (matrix if rows is None else matrix[rows]).T, dtype=np.float32)

    def blocks(self, block_rows: int) -> Iterator[tuple[int, Matrix]]:
        """The unit rows from the first to the last, in blocks: the place of the first, and the block."""
        for start in range(0, self._size, block_rows):
            yield start, self._matrix[start : min(start + block_rows, self._size)]

    async def refresh(self) -> None:
        """Read what is new since the last query; everything, if rows went or changed in place."""
        versions = await self._db.execute_fetchall("PRAGMA data_version")
        seen = (next(int(row[0]) for row in versions), self._db.total_changes)
        if seen == self._seen:
            return
        changes = await self._count_changes()
        if changes is None or changes != self._changes:
            self._forget()
        first = not self._size
        await self._read_new_rows()
        if first:
            self._compact_size = self._size
        elif self._size > 2 * self._compact_size + _READ_ROWS:
            # Replaced rows leave their old places behind: reading anew at each doubling bounds what they take.
            self._forget()
            await self._read_new_rows()
            self._compact_size = self._size
        self._changes = changes
        self._seen = seen

    async def _count_changes(self) -> tuple[int, int] | None:
        """The schema's version and the collection's change counter.

        None in a file without embedq's triggers, where nothing is counted.
        """
        triggers = await self._db.execute_fetchall(
            "SELECT count(*) FROM sqlite_master WHERE type = 'trigger'"
            " AND name IN ('embedq_embedding_updated', 'embedq_embedding_deleted')"
        )
        if next(row[0] for row in triggers) != len(("updated", "deleted")):
            return None
        rows = await self._db.execute_fetchall(
            "SELECT schema_version, (SELECT changes FROM embedq_changes WHERE collection_id = ?)"
            " FROM pragma_schema_version",
            (self._collection_id,),
        )
        return next((int(row[0]), int(row[1] or 0)) for row in rows)

    async def _read_new_rows(self) -> None:
        while True:
            # The plus sign keeps SQLite from sorting all rows of the collection for each page of them.
            rows = await self._db.execute_fetchall(
                "SELECT rowid, embedding FROM embeddings WHERE +collection_id = ? AND rowid > ? ORDER BY rowid LIMIT ?",
                (self._collection_id, self._last_rowid, _READ_ROWS),
            )
            read = list(rows)
            if read:
                self._append(read)
            if len(read) < _READ_ROWS:
                return

    def _append(self, rows: list[Any]) -> None:
        self._last_rowid = int(rows[-1][0])
        dimension = self._matrix.shape[1] or len(rows[0][1]) // 4
        # Another tool may have stored a vector of another dimension: nothing can be compared with it.
        fitting = [(rowid, blob) for rowid, blob in rows if len(blob) == 4 * dimension]
        if not fitting:
            return
        block = np.frombuffer(b"".join(blob for _, blob in fitting), dtype=STORED_DTYPE)
        block = block.reshape(len(fitting), dimension).astype(np.float64)
        norms = np.linalg.norm(block, axis=1, keepdims=True)
        unit = np.divide(block, norms, out=np.zeros_like(block), where=(norms > 0) & np.isfinite(norms))
        needed = self._size + len(fitting)
        if needed > len(self._rowids):
            self._grow(max(needed, 2 * self._size), dimension)
        self._rowids[self._size : needed] = [rowid for rowid, _ in fitting]
        self._matrix[self._size : needed] = unit
        self._size = needed

    def _grow(self, capacity: int, dimension: int) -> None:
        rowids = np.empty(capacity, dtype=np.int64)
        matrix = np.empty((capacity, dimension), dtype=np.float32)
        rowids[: self._size] = self._rowids[: self._size]
        if self._size:
            matrix[: self._size] = self._matrix[: self._size]
        self._rowids, self._matrix = rowids, matrix
