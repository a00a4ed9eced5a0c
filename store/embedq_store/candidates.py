"""Candidates of a search: read from the database as they are now, and scored exactly."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

import aiosqlite
import numpy as np
import numpy.typing as npt

from embedq_core.vectors import STORED_DTYPE

_FETCH_ROWS: Final = 512


class Candidate(NamedTuple):
    """A row as it is now; `vector` is float64, of shape (dimension,), and `norm` its length."""

    rowid: int
    id: str
    vector: npt.NDArray[np.float64]
    norm: float
    content: str | None
    metadata: str | None

    @classmethod
    def of(cls, row: Sequence[Any]) -> "Candidate":
        """The candidate that a row of `read_rows` is."""
        rowid, id_, blob, content, metadata = row
        vector = np.frombuffer(blob, dtype=STORED_DTYPE).astype(np.float64)
        return cls(rowid, id_, vector, float(np.linalg.norm(vector)), content, metadata)

    def score(self, vector: npt.NDArray[np.float64], norm: float) -> float:
        """The cosine of the angle with `vector`, whose length is `norm`; 0 where one of them has no direction."""
        norms = self.norm * norm
        if norms == 0 or not np.isfinite(norms):
            return 0.0
        return float(np.clip(float(self.vector @ vector) / norms, -1.0, 1.0))


async def read_rows(
    db: aiosqlite.Connection, collection_id: int, rowids: Sequence[int]
) -> AsyncIterator[tuple[int, str, bytes, str | None, str | None]]:
    """Rowid, id, vector, content and metadata of those of the rows that are there."""
    for start in range(0, len(rowids), _FETCH_ROWS):
        some = rowids[start : start + _FETCH_ROWS]
        rows = await db.execute_fetchall(
            "SELECT rowid, id, embedding, content, metadata FROM embeddings"  # noqa: S608 - only question marks
            f" WHERE collection_id = ? AND rowid IN ({','.join('?' * len(some))})",
            (collection_id, *some),
        )
        for row in rows:
            yield tuple(row)
