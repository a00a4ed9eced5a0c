"""A graph of a mapped copy's rows, which finds nearly the nearest of them: usearch's HNSW, in a file beside the copy.

It holds the first rows of the copy called NAME, each under its place, with a byte for each dimension. Valid rows of
a copy are never changed, and a copy that is written anew has another name: so a graph is right for as long as the
copy is. Two files:

- `ID-NAME.index` says all about the other, and is put in place whole, by renaming;
- `ID-NAME.RANDOM.graph`, as usearch writes it. It is never changed: more rows make another file.
"""

import contextlib
import importlib.util
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from embedq_core.errors import UsageError
from embedq_core.vectors import Matrix
from embedq_store.mapped import Head, read_sealed, write_sealed
from embedq_store.shortlist import Places

FORM: Final = 1

# Measured: see docs/design.md. Neighbours of a row; rows looked at to find them, and to answer a query.
_CONNECTIVITY: Final = 16
_EXPANSION_ADD: Final = 64
_EXPANSION_SEARCH: Final = 512

# The first rows are added by one thread: added all at once to a graph of nothing, some find nobody to be tied to, and
# are never found again.
_ALONE: Final = 1024

_LOOK_BYTES: Final = 16 * 1024 * 1024


Report: TypeAlias = Callable[[int, int], None]
"""Is told how many of how many rows are in a graph."""


class Built(Enum):
    """What came of building a graph."""

    DONE = "it holds all rows of the copy"
    NO_COPY = "there is no copy, or it is damaged"
    SMALL = "there is no copy, and none is needed"
    BUSY = "another process is building it"


class GraphHead(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a graph: its file, of `size` bytes whose words sum up to `sum`, and the rows it holds."""

    form: int = FORM
    file: str
    size: int
    sum: int
    rows: int
    dimension: int


def need_usearch() -> None:
    """Raise UsageError, saying what to install, where the library isn't there."""
    if importlib.util.find_spec("usearch") is None:
        raise UsageError("approximate search needs usearch: pip install 'embedq[ann]'")


def graph_head_path(folder: Path, copy: Head) -> Path:
    """Where it says which graph a copy has."""
    return folder / f"{copy.collection_id}-{copy.name}.index"


class Graph:
    """The first `size` rows of a copy. Not safe for concurrent use."""

    def __init__(self, dimension: int, index: Any) -> None:  # noqa: ANN401 - usearch may not be there
        self.dimension = dimension
        self._index = index

    @property
    def size(self) -> int:
        """How many rows it holds: those at the places below."""
        return len(self._index)

    @classmethod
    def empty(cls, dimension: int) -> "Graph":
        """A graph of no rows."""
        from usearch.index import Index

        index = Index(
            ndim=dimension,
            metric="cos",
            dtype="i8",
            connectivity=_CONNECTIVITY,
            enable_key_lookups=False,
            **_expansions(),
        )
        return cls(dimension, index)

    @classmethod
    def open(cls, folder: Path, copy: Head, *, to_add: bool) -> "Graph | None":
        """The graph of a copy; None where there is none, or it is damaged. All of it is read once.

        One `to_add` rows to is in memory; others are mapped.
        """
        from usearch.index import Index

        head = read_sealed(graph_head_path(folder, copy), GraphHead)
        if head is None or head.form != FORM or head.dimension != copy.dimension:
            return None
        path = folder / head.file
        try:
            if path.stat().st_size != head.size or _file_sum(path) != head.sum:
                return None
            index = Index.restore(path, view=not to_add, enable_key_lookups=False, **_expansions())
        except Exception:
            # Of an older or a newer release, say: usearch raises whatever comes to hand.
            return None
        return cls(head.dimension, index) if index is not None and len(index) == head.rows else None

    def add(self, units: Matrix) -> None:
        """Add the next rows of the copy, shape (rows, dimension), with as many threads as there are processors."""
        alone = min(max(_ALONE - self.size, 0), len(units))
        for some, threads in ((units[:alone], 1), (units[alone:], _processors())):
            if len(some):
                keys = np.arange(self.size, self.size + len(some), dtype=np.uint64)
                self._index.add(keys, quantised(some), threads=threads)

    def save(self, folder: Path, copy: Head) -> None:
        """Make this the graph of `copy`. Raises OSError."""
        path = folder / f"{copy.collection_id}-{copy.name}.{secrets.token_hex(8)}.graph"
        try:
            self._write(path)
            head = GraphHead(
                file=path.name,
                size=path.stat().st_size,
                sum=_file_sum(path),
                rows=self.size,
                dimension=self.dimension,
            )
            write_sealed(graph_head_path(folder, copy), head)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        tidy(folder, copy)

    def _write(self, path: Path) -> None:
        try:
            self._index.save(path)
        except RuntimeError as error:
            raise OSError(str(error)) from error
        with path.open("rb") as file:
            os.fsync(file.fileno())

    def nearest(self, unit: Matrix, number: int) -> Places:
        """The places of nearly the nearest `number` rows to a unit vector, ascending."""
        found = self._index.search(quantised(unit[np.newaxis])[0], number, threads=1).keys
        return np.sort(found.astype(np.intp))


def tidy(folder: Path, copy: Head) -> None:
    """Remove graphs of `copy` that are not in use: those before, and what the dead have left."""
    head = read_sealed(graph_head_path(folder, copy), GraphHead)
    for path in folder.glob(f"{copy.collection_id}-{copy.name}.*.graph"):
        if head is None or path.name != head.file:
            path.unlink(missing_ok=True)


def discard(folder: Path, copy: Head) -> None:
    """Remove the graph of `copy`."""
    graph_head_path(folder, copy).unlink(missing_ok=True)
    tidy(folder, copy)


def quantised(units: Matrix) -> npt.NDArray[np.int8]:
    """Rows as bytes, the largest number of each ±127: the angles between them stay, nearly. Zero rows stay zero."""
    peaks = np.abs(units).max(axis=1, keepdims=True)
    scale = np.divide(np.float32(127), peaks, out=np.zeros_like(peaks), where=peaks > 0)
    rounded: Matrix = np.rint(units * scale)
    return rounded.astype(np.int8)


def _expansions() -> dict[str, int]:
    return {"expansion_add": _EXPANSION_ADD, "expansion_search": _EXPANSION_SEARCH}


def _processors() -> int:
    with contextlib.suppress(AttributeError):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _file_sum(path: Path) -> int:
    """The sum of a file's words, modulo 2⁶⁴: as fast as memory is read, it notices what is missing."""
    words = np.memmap(path, dtype=np.uint8, mode="r")
    whole = words[: len(words) // 8 * 8].view(np.uint64)
    step = _LOOK_BYTES // 8

    def part(start: int) -> int:
        return int(np.add.reduce(whole[start : start + step], dtype=np.uint64))

    with ThreadPoolExecutor(min(4, _processors())) as threads:
        total = sum(threads.map(part, range(0, len(whole), step)))
    return (total + int.from_bytes(words[len(whole) * 8 :].tobytes(), "little")) % 2**64
