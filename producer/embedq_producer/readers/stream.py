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
def open_stream(path: Path | None, name: str, progress: Progress) -> Iterator[Stream]:
    """Open `path`, or standard input for None; gzip, bzip2 and xz are unpacked, whatever the name says.

    Raises SourceError, then and while reading, for all that goes wrong.
    """
    with ExitStack() as stack:
        file: BinaryIO | None
        if path is None:
            file = getattr(sys.stdin, "buffer", None)
            if file is None:
                raise SourceError("there is no standard input to read")
        else:
            with explained(name):
                file = stack.enter_context(path.open("rb"))
        reader, head = _opened(file, name, progress.advance)
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


def _opened(file: Any, name: str, seen: Callable[[int], None] | None) -> tuple[io.BufferedReader, bytes]:  # noqa: ANN401 - files, pipes and unpackers have no common type
    """A reader of the bytes of `file`, and the first of them: up to the end of a line, or 64 KiB."""
    pipe = _Pipe(file, name, seen)
    head = b""
    while len(head) < _HEAD and b"\n" not in head[16:]:
        piece = pipe.read(_HEAD - len(head))
        if not piece:
            break
        head += piece
    pipe.put_back(head)
    return io.BufferedReader(pipe, _BLOCK), head


class _Pipe(io.RawIOBase):
    """The bytes of a file, counted by `seen`, with every error explained."""

    def __init__(self, file: Any, name: str, seen: Callable[[int], None] | None) -> None:  # noqa: ANN401 - as above
        super().__init__()
        self._file = file
        self._name = name
        self._seen = seen
        self._pending = b""

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
        try:
            count = int(self._file.readinto1(buffer))
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise SourceError(
                f"{self._name}: the compressed data is damaged or cut short; the rest can't be read"
            ) from error
        except (OSError, ValueError) as error:
            raise SourceError(f"{self._name} can't be read any further: {shown(str(error))}") from error
        if self._seen is not None:
            self._seen(count)
        return count
