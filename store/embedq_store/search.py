"""Exact cosine search over a collection, answered from the rows as they are now.

The scores of all rows, from `CollectionRows`, find the candidates; the database has the last word: candidates are
read back, scored again in float64, and those that are gone are dropped. So what is held of the rows can be behind
and cost time, but never gives a stale answer, as long as every *new* row is noticed: see `embedq_store.rows`.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import aiosqlite
import numpy as np
import numpy.typing as npt

from embedq_core.items import metadata_object
from embedq_core.vectors import STORED_DTYPE, Matrix, Vector, moderate
from embedq_store.copying import CopyFolder
from embedq_store.rows import CollectionRows

_FETCH_ROWS: Final = 512

# How often a query is answered anew, at most, while others change the collection.
_TRIES: Final = 3


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
    """Answers queries to one collection, one after the other: `search` holds a lock."""

    def __init__(
        self, db: aiosqlite.Connection, collection_id: int, copies: CopyFolder | None, search_bytes: int
    ) -> None:
        self._db = db
        self._collection_id = collection_id
        self._lock = asyncio.Lock()
        self._rows = CollectionRows(db, collection_id, copies, search_bytes)

    async def search(self, query: Query) -> list[Entry]:
        """The `number` entries nearest to the query, best first, ties in the order of their ids."""
        async with self._lock:
            for _ in range(_TRIES):
                answer = await self._search(query)
                # Rows that were replaced or numbered anew meanwhile may be missing.
                if not await self._rows.have_moved():
                    break
            return answer

    async def _search(self, query: Query) -> list[Entry]:
        await self._rows.refresh()
        if not self._rows.size:
            return []
        if len(query.vector) != self._rows.dimension:
            raise ValueError(
                f"the query has {len(query.vector)} dimensions; the collection's vectors have {self._rows.dimension}"
            )
        rows = None if query.prefix is None else await self._rows_with_prefix(query.prefix)
        scores = await asyncio.to_thread(self._rows.scores, _unit(query.vector), rows)
        return await self._best(query, scores, rows)

    async def _best(self, query: Query, scores: Matrix, rows: npt.NDArray[np.intp] | None) -> list[Entry]:
        """Score candidates again, exactly, taking more of them while some turn out to be gone."""
        wanted = query.number
        while True:
            candidates = await asyncio.to_thread(_candidates, scores, wanted, self._rows.slack)
            rowids = self._rows.rowids[candidates if rows is None else rows[candidates]]
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
            # The plus sign keeps SQLite from going through the collection instead of to the rows.
            rows = await self._db.execute_fetchall(
                "SELECT id, embedding, content, metadata FROM embeddings"  # noqa: S608 - only question marks
                f" WHERE +collection_id = ? AND rowid IN ({','.join('?' * len(some))})",
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
        known = self._rows.rowids
        places = np.searchsorted(known, rowids)
        places = places[(places < len(known))]
        return np.asarray(places[np.isin(known[places], rowids, assume_unique=False)], dtype=np.intp)


def _unit(vector: npt.NDArray[np.float64]) -> Matrix:
    norm = float(np.linalg.norm(vector))
    return (vector / norm if norm > 0 else vector).astype(np.float32)


def _candidates(scores: Matrix, number: int, slack: float) -> npt.NDArray[np.intp]:
    """Indices of all scores that may be among the `number` largest, where they differ by up to `slack`."""
    # One more than asked for: the entry to skip may be the nearest of all.
    if number + 1 >= len(scores):
        return np.arange(len(scores))
    last = np.partition(scores, len(scores) - number - 1)[len(scores) - number - 1]
    return np.flatnonzero(scores >= last - slack)


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
