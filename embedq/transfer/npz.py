"""Entries for numpy: `numpy.load(FILE)` gives `ids` (text, n) and `vectors` (float32, n by dimension), in one order.

Nothing in it is pickled. What numpy has no array for stands beside, as JSON: `collection.json` says what the collection
is, `entries.jsonl` has a line for each entry, in the same order, with its content, metadata, hash and time.
"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

import msgspec
import numpy as np
import numpy.typing as npt

from embedq.transfer.entry_files import PAGE_BYTES, PAGE_ENTRIES, EntryFile, Head, Shape, Told, head_from, one_dimension
from embedq_core.errors import SourceError, UsageError
from embedq_core.text import shown
from embedq_core.vectors import STORED_DTYPE
from embedq_store import Snapshot, StoredEntry

_IDS: Final = "ids.npy"
_VECTORS: Final = "vectors.npy"
_ENTRIES: Final = "entries.jsonl"
_HEAD: Final = "collection.json"


class _Rest(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What an entry has beside id and vector."""

    content: str | None = None
    content_base64: bytes | None = None
    metadata: str | None = None
    content_hash: bytes | None = None
    updated: int | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Rest)


async def write_npz(file: BinaryIO, snapshot: Snapshot, head: Head, shape: Shape, told: Told) -> int:
    """Write all entries; how many. Reads them twice, and their ids once more: once for each part of the file.

    Raises UsageError for vectors of several dimensions, and where numpy's texts can't hold an id.
    """
    if not shape.vectors:
        raise UsageError("--format npz is for vectors: with --no-vectors, say --format jsonl or parquet")
    figures = await snapshot.figures()
    if figures.nul_ids:
        raise UsageError("an id holds a NUL character, which numpy's texts can't end with: say --format jsonl")
    dimension = one_dimension(head, figures.dimensions)
    kind = np.dtype(f"<U{max(figures.longest_id, 1)}")
    done = written = 0
    with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        archive.writestr(_HEAD, msgspec.json.encode(head))
        with _member(archive, _IDS, zipfile.ZIP_DEFLATED) as member:
            _write_heading(member, kind, (figures.entries,))
            async for ids in snapshot.ids():
                member.write(np.array(ids, dtype=kind).tobytes())
        with _member(archive, _VECTORS, zipfile.ZIP_STORED) as member:
            _write_heading(member, STORED_DTYPE, (figures.entries, dimension))
            async for page in snapshot.pages():
                member.write(b"".join([entry.vector for entry in page]))
                done += len(page)
                told(done // 2)
        with _member(archive, _ENTRIES, zipfile.ZIP_DEFLATED) as member:
            async for page in snapshot.pages():
                member.write(_encoder.encode_lines([_rest(entry) for entry in page]))
                written += len(page)
                told((done + written) // 2)
    return done


def _member(archive: zipfile.ZipFile, name: str, compression: int) -> IO[bytes]:
    info = zipfile.ZipInfo(name)
    info.compress_type = compression
    return archive.open(info, "w", force_zip64=True)


def _write_heading(member: IO[bytes], kind: "np.dtype[Any]", form: tuple[int, ...]) -> None:
    said = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": form}
    np.lib.format.write_array_header_1_0(member, said)


def _rest(entry: StoredEntry) -> _Rest:
    return _Rest(
        content=entry.content if isinstance(entry.content, str) else None,
        content_base64=entry.content if isinstance(entry.content, bytes) else None,
        metadata=entry.metadata,
        content_hash=entry.digest,
        updated=entry.updated,
    )


class NumpyFile(EntryFile):
    """An .npz file: of embedq, or one that `numpy.savez(FILE, ids=…, vectors=…)` wrote."""

    def __init__(self, path: Path) -> None:
        self.name = shown(str(path))
        self._done = 0
        self._rows: int | None = None
        with ExitStack() as stack:
            with self._explained():
                self._archive = stack.enter_context(zipfile.ZipFile(path))
                self._members = set(self._archive.namelist())
                said = self._archive.read(_HEAD) if _HEAD in self._members else None
            self._check_members()
            self.head = None if said is None else head_from(said, self.name)
            stack.pop_all()

    def _check_members(self) -> None:
        for name in (_IDS, _VECTORS):
            if name not in self._members:
                raise SourceError(f"{self.name}: has no array {name.removesuffix('.npy')!r}")

    @property
    def share(self) -> float | None:
        """How much of it has been read."""
        return self._done / self._rows if self._rows else None

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def pages(self) -> Iterator[list[StoredEntry]]:
        """The entries from the first to the last."""
        self._done = 0
        with ExitStack() as stack:
            with self._explained():
                ids = _Array(stack.enter_context(self._archive.open(_IDS)))
                vectors = _Array(stack.enter_context(self._archive.open(_VECTORS)))
                rest = stack.enter_context(self._archive.open(_ENTRIES)) if _ENTRIES in self._members else None
                if ids.kind.kind != "U" or len(ids.form) != 1 or vectors.kind.kind != "f" or len(vectors.form) != 2:
                    raise SourceError(
                        f"{self.name}: 'ids' must be texts and 'vectors' a matrix of floats; they are {ids.said} "
                        f"and {vectors.said}"
                    )
                if ids.form[0] != vectors.form[0]:
                    raise SourceError(f"{self.name}: has {ids.form[0]:,} ids and {vectors.form[0]:,} vectors")
            self._rows = ids.form[0]
            while self._done < self._rows:
                with self._explained():
                    others = _next_of(rest, min(PAGE_ENTRIES, self._rows - self._done))
                    names = ids.read(len(others)).tolist()
                    with np.errstate(over="ignore"):
                        matrix = vectors.read(len(others)).astype(STORED_DTYPE)
                yield [
                    StoredEntry(
                        name,
                        vector.tobytes(),
                        other.content if other.content_base64 is None else other.content_base64,
                        other.content_hash,
                        other.metadata,
                        other.updated,
                    )
                    for name, vector, other in zip(names, matrix, others, strict=True)
                ]
                self._done += len(others)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise SourceError(f"{self.name} can't be read: no such file or directory") from error
        except (
            OSError,
            ValueError,
            EOFError,
            RuntimeError,
            zlib.error,
            zipfile.BadZipFile,
            msgspec.MsgspecError,
        ) as error:
            # A RuntimeError: it is encrypted, or packed in a way that this Python has not.
            raise SourceError(f"{self.name} isn't an .npz file of entries, or is damaged ({error})") from error


def _next_of(member: IO[bytes] | None, count: int) -> list[_Rest]:
    """What the next entries have beside id and vector: `count` of them, or fewer where they are large."""
    if member is None:
        return [_Rest()] * count
    found: list[_Rest] = []
    size = 0
    while len(found) < count and size < PAGE_BYTES:
        line = member.readline()
        found.append(_decoder.decode(line))
        size += len(line)
    return found


class _Array:
    """An array that is read row by row."""

    def __init__(self, member: IO[bytes]) -> None:
        self._member = member
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.form, by_columns, self.kind = read(member)
        if by_columns and len(self.form) > 1:
            raise ValueError("it is stored column by column: save numpy.ascontiguousarray(vectors)")
        if self.kind.hasobject:
            raise ValueError("it is pickled: save texts with dtype str")
        self._row = self.kind.itemsize * int(np.prod(self.form[1:]))

    @property
    def said(self) -> str:
        """Type and shape, in words."""
        return f"{self.kind} of shape {self.form}"

    def read(self, count: int) -> npt.NDArray[Any]:
        """The next `count` rows. Raises ValueError where there are fewer."""
        data = self._member.read(count * self._row)
        if len(data) < count * self._row:
            raise ValueError("it ends too early")
        return np.frombuffer(data, dtype=self.kind).reshape(count, *self.form[1:])
