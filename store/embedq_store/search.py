"""Exact cosine search over a collection, answered from the rows as they are now.

A resident matrix of normalised float32 rows finds the candidates with one matrix-vector product; the database
has the last word: candidates are read back, scored again in float64, and those that are gone are dropped. So
a stale matrix can cost time but never give a stale answer, as long as every *new* row is noticed. It is:

- `PRAGMA data_version` (and, for a connection's own writes, `total_changes`) says whether anything changed;
- a new or replaced row always has a rowid beyond the largest one seen, unless that very row was deleted;
- triggers count deletions and updates in place, for each collection: then the matrix is read anew;
- `PRAGMA schema_version` says whether the table was made anew or the file vacuumed: then all rowids may be others.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import aiosqlite
import numpy as np
import numpy.typing as npt

from embedq_core.items import metadata_object
from embedq_core.vectors import STORED_DTYPE, Matrix, Vector, moderate

_READ_ROWS: Final = 8192
_FETCH_ROWS: Final = 512

# A float32 dot product of unit vectors is off by at most about 1e-6 at some thousand dimensions; candidates
# within that distance of the last place are scored again.
_SLACK: Final = 4e-6


@dataclass(frozen=True, slots=True)
class Entry:
    """A search result. `score` is the cosine similarity, in [-1, 1]; higher is more similar."""

    id: str
    score: float | None
    content: str | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of a collection."""

    vector: npt.NDArray[np.float64]
    number: int
    skip_id: str | None = None
    prefix: str | None = None

    @classmethod
    def of(cls, vector: Vector, number: int, skip_id: str | None, prefix: str | None) -> "Query":
        """A query by `vector`. Raises ValueError where it isn't one, or `number` is below 1."""
        values = np.asarray(vector, dtype=np.float64)
        if values.ndim != 1 or not len(values):
            raise ValueError(f"a query needs one vector, not an array of shape {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError("the query's vector holds NaN or infinity")
        if number < 1:
            raise ValueError(f"number must be at least 1, not {number}")
        return cls(moderate(values), number, skip_id, prefix or None)


class CollectionIndex:
    """The resident matrix of one collection. Not safe for concurrent use: `search` holds a lock."""

    def __init__(self, db: aiosqlite.Connection, collection_id: int) -> None:
        self._db = db
        self._collection_id = collection_id
        self._lock = asyncio.Lock()
        self._seen: tuple[int, int] | None = None
        self._changes: tuple[int, int] | None = None
        self._compact_size = 0
        self._forget()

    def _forget(self) -> None:
        self._rowids: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._matrix: Matrix = np.empty((0, 0), dtype=np.float32)
        self._size = 0
        self._last_rowid = -(2**63)

    async def search(self, query: Query) -> list[Entry]:
        """The `number` entries nearest to the query, best first, ties in the order of their ids."""
        async with self._lock:
            await self._refresh()
            if not self._size:
                return []
            dimension = self._matrix.shape[1]
            if len(query.vector) != dimension:
                raise ValueError(
                    f"the query has {len(query.vector)} dimensions; the collection's vectors have {dimension}"
                )
            rows = None if query.prefix is None else await self._rows_with_prefix(query.prefix)
            scores = await asyncio.to_thread(self._scores, query.vector, rows)
            return await self._best(query, scores, rows)

    def _scores(self, vector: npt.NDArray[np.float64], rows: npt.NDArray[np.intp] | None) -> Matrix:
        norm = float(np.linalg.norm(vector))
        unit = (vector / norm if norm > 0 else vector).astype(np.float32)
        matrix = self._matrix[: self._size]
        return np.asarray((matrix if rows is None else matrix[rows]) @ unit, dtype=np.float32)

    async def _best(self, query: Query, scores: Matrix, rows: npt.NDArray[np.intp] | None) -> list[Entry]:
        """Score candidates again, exactly, taking more of them while some turn out to be gone."""
        wanted = query.number
        while True:
            candidates = await asyncio.to_thread(_candidates, scores, wanted)
            rowids = self._rowids[: self._size][candidates if rows is None else rows[candidates]]
            entries = await self._read(query, rowids)
            if len(entries) >= query.number or len(candidates) == len(scores):
                break
            wanted = max(2 * wanted, len(candidates) + query.number)
        entries.sort(key=lambda scored: (-scored[0], scored[1]))
        return [
            Entry(id_, score, content, metadata_object(metadata))
            for score, id_, content, metadata in entries[: query.number]
        ]

    async def _read(
        self, query: Query, rowids: npt.NDArray[np.int64]
    ) -> list[tuple[float, str, str | None, str | None]]:
        found: list[tuple[float, str, str | None, str | None]] = []
        norm = float(np.linalg.norm(query.vector))
        for start in range(0, len(rowids), _FETCH_ROWS):
            some = rowids[start : start + _FETCH_ROWS].tolist()
            rows = await self._db.execute_fetchall(
                "SELECT id, embedding, content, metadata FROM embeddings"  # noqa: S608 - only question marks
                f" WHERE collection_id = ? AND rowid IN ({','.join('?' * len(some))})",
                (self._collection_id, *some),
            )
            for id_, blob, content, metadata in rows:
                if id_ == query.skip_id or (query.prefix and not id_.startswith(query.prefix)):
                    continue
                stored = np.frombuffer(blob, dtype=STORED_DTYPE).astype(np.float64)
                if len(stored) == len(query.vector):
                    found.append((_cosine(stored, query.vector, norm), id_, content, metadata))
        return found

    async def _rows_with_prefix(self, prefix: str) -> npt.NDArray[np.intp]:
        after = _after(prefix)
        rows = await self._db.execute_fetchall(
            "SELECT rowid FROM embeddings WHERE collection_id = ?1 AND id >= ?2 AND (?3 IS NULL OR id < ?3)"
            " ORDER BY rowid",
            (self._collection_id, prefix, after),
        )
        rowids = np.fromiter((row[0] for row in rows), dtype=np.int64)
        known = self._rowids[: self._size]
        places = np.searchsorted(known, rowids)
        places = places[(places < self._size)]
        return np.asarray(places[np.isin(known[places], rowids, assume_unique=False)], dtype=np.intp)

    async def _refresh(self) -> None:
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


def _candidates(scores: Matrix, number: int) -> npt.NDArray[np.intp]:
    """Indices of all scores that may be among the `number` largest, their error allowed for."""
    # One more than asked for: the entry to skip may be the nearest of all.
    if number + 1 >= len(scores):
        return np.arange(len(scores))
    last = np.partition(scores, len(scores) - number - 1)[len(scores) - number - 1]
    return np.flatnonzero(scores >= last - _SLACK)


def _cosine(stored: npt.NDArray[np.float64], vector: npt.NDArray[np.float64], norm: float) -> float:
    norms = float(np.linalg.norm(stored)) * norm
    if norms == 0 or not np.isfinite(norms):
        return 0.0
    return float(np.clip(float(stored @ vector) / norms, -1.0, 1.0))


def _after(prefix: str) -> str | None:
    """The first text after all that start with `prefix`, in SQLite's order (UTF-8 bytes, so code points)."""
    for end in range(len(prefix), 0, -1):
        point = ord(prefix[end - 1]) + 1
        if 0xD800 <= point <= 0xDFFF:
            point = 0xE000
        if point <= 0x10FFFF:
            return prefix[: end - 1] + chr(point)
    return None
