"""Rows held in memory: a matrix of unit vectors that grows at its end, and their rowids."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from embedq_core.vectors import STORED_DTYPE, Matrix

# Rows normalised at a time: few enough for a processor's cache.
_ROWS: Final = 512


class ResidentRows:
    """Unit rows of one dimension (float32) and their rowids, ascending. Without rows the dimension is 0."""

    def __init__(self) -> None:
        self._rowids: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._matrix: Matrix = np.empty((0, 0), dtype=np.float32)
        self.size = 0

    def clear(self) -> None:
        """Hold nothing, but keep the memory for what comes next."""
        self.size = 0

    @property
    def rowids(self) -> npt.NDArray[np.int64]:
        """Shape (size,)."""
        return self._rowids[: self.size]

    @property
    def matrix(self) -> Matrix:
        """Shape (size, dimension)."""
        return self._matrix[: self.size]

    @property
    def bytes(self) -> int:
        """What the rows take."""
        return self.matrix.nbytes

    def append(self, rowids: Sequence[int], units: Matrix) -> None:
        """Add rows at the end."""
        needed = self.size + len(rowids)
        if needed > len(self._rowids) or units.shape[1] != self._matrix.shape[1]:
            self._grow(max(needed, 2 * self.size), units.shape[1])
        self._rowids[self.size : needed] = rowids
        self._matrix[self.size : needed] = units
        self.size = needed

    def cut(self, start: int, stop: int) -> None:
        """Keep the rows from `start` to `stop` only."""
        if start >= stop:
            self.clear()
        else:
            self._rowids, self._matrix = self._rowids[start:stop], self._matrix[start:stop]
            self.size = stop - start

    def _grow(self, capacity: int, dimension: int) -> None:
        rowids = np.empty(capacity, dtype=np.int64)
        matrix = np.empty((capacity, dimension), dtype=np.float32)
        if self.size:
            rowids[: self.size] = self.rowids
            matrix[: self.size] = self.matrix
        self._rowids, self._matrix = rowids, matrix


def unit_rows(blobs: Sequence[bytes], dimension: int) -> Matrix:
    """Stored vectors of `dimension`, made unit vectors, reckoned in float64; zero ones stay zero."""
    block = np.frombuffer(b"".join(blobs), dtype=STORED_DTYPE).reshape(len(blobs), dimension)
    units = np.empty(block.shape, dtype=np.float32)
    for start in range(0, len(block), _ROWS):
        some = block[start : start + _ROWS].astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", some, some))[:, np.newaxis]
        usable = (norms > 0) & np.isfinite(norms)
        np.divide(some, norms, out=some, where=usable)
        if not usable.all():
            some[~usable[:, 0]] = 0.0
        units[start : start + _ROWS] = some
    return units
