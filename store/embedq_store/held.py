"""The rows that a search holds, as unit vectors, and their scores: the first ones mapped, the others in memory."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from embedq_core.vectors import Matrix
from embedq_store.budget import DEFAULT_SEARCH_BYTES
from embedq_store.mapped import MappedRows
from embedq_store.resident import ResidentRows

# Rows that are gathered at a time; and, beyond the memory that may be used, multiplied at a time: each product
# has to wake other threads.
_GATHERED_BYTES: Final = 16 * 1024 * 1024
_PRODUCT_BYTES: Final = 128 * 1024 * 1024

# What the system may map around a row that is looked at.
_FAULT_BYTES: Final = 64 * 1024

# Half of the distance from 1 to the next float32: what one operation may be off, relatively.
_ROUNDING: Final = 2.0**-24


class HeldRows:
    """Rows of one dimension in the order of their rowids. `search_bytes` of mapped rows may be in memory at a time."""

    def __init__(self, search_bytes: int = DEFAULT_SEARCH_BYTES) -> None:
        self._search_bytes = search_bytes
        self._mapped: MappedRows | None = None
        self._mapped_size = 0
        self._tail = ResidentRows()
        self._dimension = 0
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

    def _hold_nothing(self) -> None:
        self._mapped = None
        self._mapped_size = 0
        self._tail = ResidentRows()
        self._dimension = 0
        self._joined = None

    def _hold_until(self, last: int) -> None:
        """Hold only rows up to the rowid `last`."""
        self._tail.cut(0, int(np.searchsorted(self._tail.rowids, last, side="right")))
        if self._mapped is not None:
            known = self._mapped.rowids[: self._mapped_size]
            self._mapped_size = int(np.searchsorted(known, last, side="right"))
        self._joined = None


def _multiply(queries: Matrix, block: Matrix, out: Matrix) -> None:
    if queries.ndim == 1:
        np.matmul(block, queries, out=out)
    else:
        np.matmul(queries, block.T, out=out)
