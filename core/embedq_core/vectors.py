"""Vectors: their stored form, their similarity, and the check of what a model returns."""

import math
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from embedq_core.errors import WrongVectorCount

Matrix: TypeAlias = npt.NDArray[np.float32]
Vector: TypeAlias = Sequence[float] | npt.NDArray[np.floating[Any]]

STORED_DTYPE = np.dtype("<f4")

# Between these, sums of squares of a million numbers are exact to float64's precision; all of float32 is.
_SMALL: Final = 1e-100
_LARGE: Final = 1e100

# What numpy raises for rows that are not numbers, are ragged, or hold integers beyond any float.
_NOT_NUMBERS: Final = (TypeError, ValueError, OverflowError)


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
    left, right = moderate(np.asarray(a, dtype=np.float64)), moderate(np.asarray(b, dtype=np.float64))
    if left.shape != right.shape:
        raise ValueError(f"vectors of {left.size} and {right.size} dimensions can't be compared")
    norms = float(np.linalg.norm(left) * np.linalg.norm(right))
    if norms == 0 or not math.isfinite(norms):
        return 0.0
    return float(np.clip(float(left @ right) / norms, -1.0, 1.0))


def moderate(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`vector`, made shorter or longer where the squares of its numbers would leave float64: no cosine changes."""
    largest = float(np.abs(vector).max(initial=0.0))
    extreme = 0 < largest < _SMALL or _LARGE < largest < math.inf
    return vector / largest if extreme else vector


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
        return _whole(returned)
    if returned is None or not isinstance(returned, Iterable):
        raise WrongVectorCount(f"the model returned {type(returned).__name__} instead of {count} vectors")
    rows: list[Any] = list(islice(_iterate(returned), count + 1))
    if len(rows) != count:
        some = f"more than {count}" if len(rows) > count else str(len(rows))
        raise WrongVectorCount(f"the model returned {some} vectors for a batch of {count}")
    return _whole(rows)


def _iterate(returned: Iterable[Any]) -> Iterator[Any]:
    """The rows of `returned`; a generator is closed at the end even if it was not exhausted."""
    iterator = iter(returned)
    try:
        yield from iterator
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def _whole(rows: npt.NDArray[Any] | list[Any]) -> CheckedRows:
    packed = _packed(rows) if isinstance(rows, list) else None
    if packed is not None:
        return _without_faults(packed, {})
    try:
        with np.errstate(over="ignore"):
            matrix = np.ascontiguousarray(rows, dtype=np.float32)
    except _NOT_NUMBERS:
        return _row_by_row(list(rows))
    return _without_faults(matrix, {}) if matrix.ndim == 2 else _row_by_row(list(rows))


def _packed(rows: list[Any]) -> Matrix | None:
    """Plain lists of floats, all of one length, as a matrix in about half of NumPy's time; None for anything else."""
    if not rows or not all(type(row) is list for row in rows):
        return None
    width = len(rows[0])
    pack = struct.Struct(f"<{width}f").pack
    try:
        # Too short or too long a row, no number, or one beyond 32-bit floats: struct refuses it.
        data = b"".join([pack(*row) for row in rows])
    except (struct.error, OverflowError):
        return None
    return np.frombuffer(data, dtype=STORED_DTYPE).reshape(len(rows), width).astype(np.float32, copy=False)


def _row_by_row(rows: list[Any]) -> CheckedRows:
    faults: dict[int, str] = {}
    vectors: dict[int, npt.NDArray[np.float32]] = {}
    for index, row in enumerate(rows):
        try:
            with np.errstate(over="ignore"):
                vector = np.array(row if isinstance(row, np.ndarray | Sequence) else list(row), np.float32)
        except _NOT_NUMBERS:
            faults[index] = "the model returned something that is no vector of numbers"
            continue
        if vector.ndim != 1:
            faults[index] = f"the model returned a value of {vector.ndim} dimensions instead of a vector"
        else:
            vectors[index] = vector
    # Most rows decide, and of two equally frequent dimensions the one seen first.
    sizes = Counter(len(vector) for vector in vectors.values()).most_common(1)
    usual = sizes[0][0] if sizes else 0
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
