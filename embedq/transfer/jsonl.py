"""Entries as JSON lines: one object for each, as `embedq submit` reads them, with vector, hash and time beside.

The first object also says, under `embedq_collection`, what the collection is; of an empty one it says nothing else.
Bytes are base64, of little-endian 32-bit floats where they are a vector's.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import numpy as np

from embedq.transfer.entry_files import (
    PAGE_BYTES,
    PAGE_ENTRIES,
    EntryFile,
    Head,
    Shape,
    Told,
    check_version,
    strict_metadata,
)
from embedq.transfer.keeping import kept
from embedq_core.errors import SourceError, UsageError
from embedq_core.text import shown
from embedq_core.vectors import STORED_DTYPE
from embedq_producer.readers.source import Progress
from embedq_producer.readers.stream import open_stream
from embedq_store import Snapshot, StoredEntry

# No line is longer: a vector, a content, in base64.
_LINE_BYTES: Final = 1 << 30

_encoder = msgspec.json.Encoder()
_NO_METADATA: Final = msgspec.Raw(b"null")


class _Line(msgspec.Struct, kw_only=True):
    """A line of a file that is read. Unknown fields are passed over."""

    id: str | int | None = None
    content: str | None = None
    content_base64: bytes | None = None
    metadata: msgspec.Raw = _NO_METADATA
    metadata_text: str | None = None
    content_hash: str | None = None
    updated: int | None = None
    embedding: list[float] | None = None
    embedding_base64: bytes | None = None
    embedq_collection: Head | None = None


_decoder = msgspec.json.Decoder(_Line)


async def write_jsonl(file: BinaryIO, snapshot: Snapshot, head: Head, shape: Shape, told: Told) -> int:
    """Write all entries; how many. Without vectors, those without content are left out.

    Raises UsageError where bytes would be written without vectors: no reader of a corpus takes base64 for bytes.
    """
    figures = await snapshot.figures()
    if not shape.vectors and figures.blobs:
        raise UsageError("JSON lines of binary contents can't be submitted: say --format parquet")
    first: dict[str, object] = {"embedq_collection": head} if shape.vectors else {}
    if first and not figures.entries:
        file.write(_encoder.encode(first) + b"\n")
    done = 0
    async for page in snapshot.pages():
        lines: list[dict[str, object]] = []
        for entry in page:
            if not shape.vectors:
                if entry.content is not None:
                    lines.append(_row(entry))
                continue
            lines.append(first | _whole(entry, shape))
            first = {}
        file.write(_encoder.encode_lines(lines))
        done += len(lines)
        told(done)
    return done


def _row(entry: StoredEntry) -> dict[str, object]:
    """What `submit` reads."""
    row: dict[str, object] = {"id": entry.id, "content": entry.content}
    text = strict_metadata(entry.metadata)
    return row if text is None else row | {"metadata": msgspec.Raw(text.encode())}


def _whole(entry: StoredEntry, shape: Shape) -> dict[str, object]:
    row: dict[str, object] = {"id": entry.id}
    if entry.content is not None:
        row["content" if isinstance(entry.content, str) else "content_base64"] = entry.content
    if entry.metadata is not None:
        if _stands_in_a_line(entry.metadata):
            row["metadata"] = msgspec.Raw(entry.metadata.encode())
        else:
            row["metadata_text"] = entry.metadata
    if entry.digest is not None:
        row["content_hash"] = entry.digest.hex()
    if entry.updated is not None:
        row["updated"] = entry.updated
    vector = np.frombuffer(entry.vector, dtype=STORED_DTYPE)
    # JSON has no word for NaN and infinity.
    if shape.base64 or not np.isfinite(vector).all():
        row["embedding_base64"] = entry.vector
    else:
        row["embedding"] = vector.tolist()
    return row


def _stands_in_a_line(text: str) -> bool:
    """Whether the text of metadata can stand in a line as it is: an object, without line breaks, in strict JSON."""
    if "\n" in text or "\r" in text or not text.startswith("{"):
        return False
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


class JsonLinesFile(EntryFile):
    """A file of JSON lines, packed or not. `path` None is standard input.

    What comes out of a pipe is kept in `folder` until it is closed.
    """

    def __init__(self, path: Path | None, folder: Path) -> None:
        self.name = "standard input" if path is None else shown(str(path))
        # As it is named on a command line.
        self._argument = "-" if path is None else self.name
        self._progress = Progress()
        try:
            status = None if path is None else path.stat()
        except OSError as error:
            raise SourceError(f"{self.name} can't be read: {(error.strerror or str(error)).lower()}") from error
        self._file: Path | BinaryIO
        if path is None or status is None or not stat.S_ISREG(status.st_mode):
            self.piped = True
            self._file = kept(path, self.name, folder)
            self._size = os.fstat(self._file.fileno()).st_size
        else:
            self._file = path
            self._size = status.st_size
        try:
            self.head = self._read_head()
        except BaseException:
            self.close()
            raise

    def _read_head(self) -> Head | None:
        if self.piped and not self._size:
            # Of a collection without entries there is a line, too.
            raise SourceError(f"{self.name} was empty: nothing was imported")
        for number, line in self._lines():
            head = line.embedq_collection
            if head is None or line.id is not None:
                # One without vectors is told from one that lacks a model.
                self._entry(line, f"{self.name} line {number:,}")
            if head is not None:
                check_version(head, self.name)
            return head
        return None

    @property
    def share(self) -> float | None:
        """How much of it has been read."""
        return min(1.0, self._progress.position / self._size) if self._size else None

    def close(self) -> None:
        """Let go of what was kept; of a file nothing is open but while it is read."""
        if not isinstance(self._file, Path):
            self._file.close()

    def pages(self) -> Iterator[list[StoredEntry]]:
        """The entries from the first to the last."""
        page: list[StoredEntry] = []
        size = 0
        for number, line in self._lines():
            if line.id is None and line.embedq_collection is not None:
                continue
            entry = self._entry(line, f"{self.name} line {number:,}")
            page.append(entry)
            size += entry.size
            if len(page) >= PAGE_ENTRIES or size >= PAGE_BYTES:
                yield page
                page, size = [], 0
        if page:
            yield page

    def _lines(self) -> Iterator[tuple[int, _Line]]:
        self._progress.position = 0
        with open_stream(self._file, self.name, self._progress) as stream:
            number = 0
            while line := stream.reader.readline(_LINE_BYTES):
                number += 1
                if not line.strip():
                    continue
                try:
                    yield number, _decoder.decode(line)
                except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                    problem = str(error).removeprefix("JSON is malformed: ")
                    raise SourceError(f"{self.name} line {number:,} is no entry: {problem}") from error

    def _entry(self, line: _Line, where: str) -> StoredEntry:
        if line.id is None:
            raise SourceError(f"{where}: has no id")
        if line.embedding_base64 is not None:
            vector = line.embedding_base64
        elif line.embedding is not None:
            with np.errstate(over="ignore"):
                vector = np.array(line.embedding, dtype=np.float64).astype(STORED_DTYPE).tobytes()
        else:
            raise SourceError(
                f"{where}: has no embedding: 'embedq submit COLLECTION {self._argument}' embeds what has none"
            )
        try:
            metadata = bytes(line.metadata).decode()
        except UnicodeDecodeError as error:
            raise SourceError(f"{where}: its metadata is not text in UTF-8") from error
        if not metadata.startswith("{") and metadata != "null":
            raise SourceError(f"{where}: its metadata is no object")
        try:
            digest = None if line.content_hash is None else bytes.fromhex(line.content_hash)
        except ValueError as error:
            raise SourceError(f"{where}: its content_hash is no hexadecimal number") from error
        return StoredEntry(
            str(line.id),
            vector,
            line.content if line.content_base64 is None else line.content_base64,
            digest,
            line.metadata_text if metadata == "null" else metadata,
            line.updated,
        )
