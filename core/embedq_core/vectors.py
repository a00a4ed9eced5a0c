"""Vectors: their stored form, their similarity, and the check of what a model returns."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedq_core.errors import WrongVectorCount

Matrix: TypeAlias = npt.NDArray[np.float32]
Vector: TypeAlias = Sequence[float] | npt.NDArray[np.floating[Any]]

STORED_DTYPE = np.dtype("<f4")


def encode(values: Vector | Iterable[float]) -> bytes:
    """The stored form of a vector: little-endian 32-bit floats, 4 bytes a dimension, no header."""
    if not isinstance(values, np.ndarray):
        values = np.fromiter(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        return values.astype(STORED_DTYPE).tobytes()


def decode(binary: bytes) -> tuple[float, ...]:
    """The vector whose stored form is `binary`. Raises ValueError where its length is no multiple of 4."""
    return tuple(np.frombuffer(binary, dtype=STORED_DTYPE).tolist())


def cosine_similarity(a: Vector, b: Vector) -> float:
    """The cosine of the angle between two vectors of one dimension, in [-1, 1], reckoned in float64.

    A zero vector has no direction: its similarity to anything is 0. Raises ValueError where the dimensions
    differ.
    """
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(f"vectors of {left.size} and {right.size} dimensions can't be compared")
    norms = float(np.linalg.norm(left) * np.linalg.norm(right))
    if norms == 0 or not math.isfinite(norms):
        return 0.0
    return float(np.clip(float(left @ right) / norms, -1.0, 1.0))


@dataclass(frozen=True, slots=True)
class CheckedRows:
    """What a model returned for a batch: a matrix, and what is wrong with the rows that can't be stored.

    `matrix` has one row an item (float32, shape (items, dimension)); a row named in `faults` is zero.
    """

    matrix: Matrix
    faults: dict[int, str]


def checked_rows(returned: object, count: int) -> CheckedRows:
    """Check what `embed_batch` returned for `count` items: an array, lists of floats, or an iterator of rows.

    At most `count` + 1 rows are taken, so that a generator without end is noticed and not followed. A row
    that is no vector, is empty, has another dimension than most, or holds NaN or infinity is a fault of that
    row alone. Raises WrongVectorCount where rows and items can't be matched.
    """
    if isinstance(returned, np.ndarray):
        if returned.ndim != 2 or len(returned) != count:
            raise WrongVectorCount(
                f"the model returned an array of shape {returned.shape} for a batch of {count}; "
                f"({count}, dimension) is needed"
            )
        with np.errstate(over="ignore"):
            matrix = np.ascontiguousarray(returned, dtype=np.float32)
        return _without_faults(matrix, {})
    if returned is None or not isinstance(returned, Iterable):
        raise WrongVectorCount(f"the model returned {type(returned).__name__} instead of {count} vectors")
    rows: list[Any] = list(islice(_iterate(returned), count + 1))
    if len(rows) != count:
        some = f"more than {count}" if len(rows) > count else str(len(rows))
        raise WrongVectorCount(f"the model returned {some} vectors for a batch of {count}")
    try:
        with np.errstate(over="ignore"):
            matrix = np.array(rows, dtype=np.float32)
    except (TypeError, ValueError):
        return _row_by_row(rows)
    if matrix.ndim != 2:
        return _row_by_row(rows)
    return _without_faults(matrix, {})


def _iterate(returned: Iterable[Any]) -> Iterator[Any]:
    """The rows of `returned`; a generator is closed at the end even if it was not exhausted."""
    iterator = iter(returned)
    try:
        yield from iterator
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def _row_by_row(rows: list[Any]) -> CheckedRows:
    faults: dict[int, str] = {}
    vectors: dict[int, npt.NDArray[np.float32]] = {}
    for index, row in enumerate(rows):
        try:
            with np.errstate(over="ignore"):
                vector = np.array(row if isinstance(row, np.ndarray | Sequence) else list(row), np.float32)
        except (TypeError, ValueError):
            faults[index] = "the model returned something that is no vector of numbers"
            continue
        if vector.ndim != 1:
            faults[index] = f"the model returned a value of {vector.ndim} dimensions instead of a vector"
        else:
            vectors[index] = vector
    sizes = [len(vector) for vector in vectors.values()]
    # Most rows decide, and of two equally frequent dimensions the one seen first.
    usual = max(sizes, key=sizes.count, default=0)
    matrix = np.zeros((len(rows), usual), dtype=np.float32)
    for index, vector in vectors.items():
        if len(vector) == usual:
            matrix[index] = vector
        else:
            faults[index] = (
                f"the model returned a vector of {len(vector)} dimensions among vectors of {usual} dimensions"
            )
    return _without_faults(matrix, faults)


def _without_faults(matrix: Matrix, faults: dict[int, str]) -> CheckedRows:
    if matrix.shape[1] == 0:
        empty = dict.fromkeys(range(len(matrix)), "the model returned an empty vector")
        return CheckedRows(matrix, empty | faults)
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        for index in np.flatnonzero(~finite).tolist():
            faults[index] = "the model returned NaN or infinity, or a number beyond 32-bit floats"
    if faults:
        matrix = matrix.copy()
        matrix[list(faults)] = 0.0
    return CheckedRows(matrix, faults)
