"""The bytes of a file or of standard input: unpacked, counted, and with their errors explained."""

import bz2
import gzip
import io
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from embedq_core.errors import SourceError
from embedq_core.text import shown
from embedq_producer.readers.source import Progress

_BLOCK: Final = 1 << 20
_HEAD: Final = 1 << 16
_UNPACKERS: Final[dict[bytes, Callable[[Any], Any]]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
# "BZh" may be how a text begins; what follows the level, a block or the end, may not.
_BZIP2_BLOCKS: Final = (b"1AY&SY", b"\x17rE8P\x90")
_FOREIGN: Final = {b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}


@dataclass(frozen=True)
class Stream:
    """Open bytes: `head` is how they begin, `reader` gives them all, `file` is what lies below, packed."""

    head: bytes
    reader: io.BufferedReader
    file: BinaryIO
    packed: bool


@contextmanager
def open_stream(path: Path | BinaryIO | None, name: str, progress: Progress) -> Iterator[Stream]:
    """Open `path`, or standard input for None; gzip, bzip2 and xz are unpacked, whatever the name says.

    A file that is open already is read from its beginning, and stays open.

    Raises SourceError, then and while reading, for all that goes wrong.
    """
    with ExitStack() as stack:
        file: BinaryIO | None
        if path is None:
            file = getattr(sys.stdin, "buffer", None)
            if file is None:
                raise SourceError("there is no standard input to read")
        elif isinstance(path, Path):
            with explained(name):
                file = stack.enter_context(path.open("rb"))
        else:
            file = path
            file.seek(0)
        reader, head = _opened(file, name, progress)
        for magic, kind in _FOREIGN.items():
            if head.startswith(magic):
                raise SourceError(f"{name} is compressed with {kind}: unpack it first (gz, bz2 and xz can be read)")
        packed = False
        for magic, unpacker in _UNPACKERS.items():
            if head.startswith(magic) and (magic != b"BZh" or head[4:10] in _BZIP2_BLOCKS):
                packed = True
                unpacked = stack.enter_context(unpacker(reader))
                reader, head = _opened(unpacked, name, None)
                break
        yield Stream(head, reader, file, packed)


def check_file(path: Path, name: str) -> os.stat_result:
    """What the system knows of a file. Raises SourceError where it isn't there, can't be read, is no file."""
    with explained(name):
        status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise SourceError(f"{name} is a directory: name a file, or use --files DIRECTORY GLOB")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{name} can't be read: permission denied")
    return status


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Errors of the system as SourceErrors of one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError(f"{name} doesn't exist") from error
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the name.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SourceError(f"{name} can't be read: {shown(reason).lower()}") from error


def _opened(file: Any, name: str, progress: Progress | None) -> tuple[io.BufferedReader, bytes]:  # noqa: ANN401 - files, pipes and unpackers have no common type
    """A reader of the bytes of `file`, and the first of them: up to the end of a line, or 64 KiB."""
    pipe = _Pipe(file, name, progress)
    head = b""
    while len(head) < _HEAD and b"\n" not in head[16:]:
        piece = pipe.read(_HEAD - len(head))
        if not piece:
            break
        head += piece
    pipe.put_back(head)
    return io.BufferedReader(pipe, _BLOCK), head


def _pipe_descriptor(file: Any) -> int | None:  # noqa: ANN401 - as above
    """The descriptor of what may have nothing to read for a while: a pipe, a terminal; None for a file."""
    try:
        descriptor = int(file.fileno())
    except (AttributeError, OSError, ValueError):
        return None
    return None if stat.S_ISREG(os.fstat(descriptor).st_mode) else descriptor


class _Pipe(io.RawIOBase):
    """The bytes of a file, counted and waited for by `progress`, with every error explained."""

    def __init__(self, file: Any, name: str, progress: Progress | None) -> None:  # noqa: ANN401 - as above
        super().__init__()
        self._name = name
        self._progress = progress
        self._pending = b""
        self._descriptor = None if progress is None else _pipe_descriptor(file)
        # What a buffer below has, the descriptor does not tell of.
        below = file if self._descriptor is None else getattr(file, "raw", file)
        self._readinto = getattr(below, "readinto1", None) or below.readinto

    def put_back(self, data: bytes) -> None:
        """Give `data` once more."""
        self._pending = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        if self._pending:
            count = min(len(buffer), len(self._pending))
            buffer[:count], self._pending = self._pending[:count], self._pending[count:]
            return count
        if self._progress is not None and self._progress.wait is not None and self._descriptor is not None:
            self._progress.wait(self._descriptor)
        try:
            count = int(self._readinto(buffer))
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise SourceError(
                f"{self._name}: the compressed data is damaged or cut short; the rest can't be read"
            ) from error
        except (OSError, ValueError) as error:
            raise SourceError(f"{self._name} can't be read any further: {shown(str(error))}") from error
        if self._progress is not None:
            self._progress.advance(count)
        return count
