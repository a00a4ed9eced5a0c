"""A file of rows, or standard input, in any of the formats."""

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final

from embedq_core.errors import SourceError, UsageError
from embedq_core.items import Item
from embedq_core.text import shown, suggestion
from embedq_producer.readers.decoding import starts_with_utf16_mark
from embedq_producer.readers.delimited import read_csv, read_tsv
from embedq_producer.readers.json_array import read_json_array
from embedq_producer.readers.json_lines import read_json_lines
from embedq_producer.readers.options import RowOptions
from embedq_producer.readers.parquet import need_pyarrow, read_parquet
from embedq_producer.readers.source import Progress, Rejects, Source
from embedq_producer.readers.stream import Stream, check_file, open_stream

_TextReader = Callable[[BufferedReader, str, RowOptions, Rejects], Iterator[Item]]
_TEXT: Final[dict[str, _TextReader]] = {
    "csv": read_csv,
    "tsv": read_tsv,
    "json": read_json_array,
    "nl": read_json_lines,
}
FORMATS: Final = (*_TEXT, "parquet")
_SUFFIXES: Final = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".jsonl": "nl",
    ".ndjson": "nl",
    ".nl": "nl",
    ".parquet": "parquet",
}
_PACKED: Final = (".gz", ".bz2", ".xz")
BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class FileSource(Source):
    """A file of rows; `path` None is standard input. The format is told by the name, else by the first bytes."""

    path: Path | None
    format: str | None = None

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise UsageError(
                f"{shown(self.format)!r} is no format.{suggestion(self.format, FORMATS)} "
                f"There are: {', '.join(FORMATS)}"
            )

    def describe(self) -> str:
        """The path as it was given."""
        return "standard input" if self.path is None else shown(str(self.path))

    def check(self, options: RowOptions) -> None:
        """Look whether the file is there and may be read, and whether what reads it is installed."""
        name = self.describe()
        if (self.format or format_by_name(self.path)) == "parquet":
            need_pyarrow(name)
        options.line_encodings()
        if self.path is not None:
            check_file(self.path, name)

    def size(self) -> int | None:
        """Bytes of the file, packed as it may be; None for standard input, a pipe or a device."""
        if self.path is None:
            return None
        status = check_file(self.path, self.describe())
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def read(self, options: RowOptions, rejects: Rejects, progress: Progress) -> Iterator[Item]:
        """The item of every row; none in an empty file."""
        name = self.describe()
        with open_stream(self.path, name, progress) as stream:
            if not stream.head:
                return
            chosen = self.format or format_by_name(self.path) or _by_content(stream.head, name)
            if chosen == "parquet":
                yield from _parquet(stream, name, options, rejects, progress)
            else:
                yield from _TEXT[chosen](text_of_stream(stream, name), name, options, rejects)


def text_of_stream(stream: Stream, name: str) -> BufferedReader:
    """The bytes of the text that `stream` holds, without a mark. Raises SourceError where lines can't be told apart."""
    if starts_with_utf16_mark(stream.head):
        raise SourceError(f"{name} is in UTF-16: convert it first (iconv -f UTF-16 -t UTF-8)")
    if stream.head.startswith(BOM):
        stream.reader.read(len(BOM))
    return stream.reader


def format_by_name(path: Path | None) -> str | None:
    """The format that the name of a file tells, or None."""
    if path is None:
        return None
    suffix = Path(path.stem).suffix if path.suffix.lower() in _PACKED else path.suffix
    return _SUFFIXES.get(suffix.lower())


def _by_content(head: bytes, name: str) -> str:
    """The format of what begins like this. Raises SourceError where nothing tells."""
    text = head.removeprefix(BOM).lstrip()
    first_line = text.partition(b"\n")[0]
    signs = (
        (head.startswith(b"PAR1"), "parquet"),
        (text.startswith(b"["), "json"),
        # White space alone is no row of anything.
        (not text or text.startswith(b"{"), "nl"),
        (b"\t" in first_line, "tsv"),
        (b"," in first_line, "csv"),
    )
    for sign, format_name in signs:
        if sign:
            return format_name
    raise SourceError(f"{name} is in no format that can be told: name it with --format {'|'.join(FORMATS)}")


def _parquet(stream: Stream, name: str, options: RowOptions, rejects: Rejects, progress: Progress) -> Iterator[Item]:
    if stream.packed or not stream.file.seekable():
        raise SourceError(f"{name}: Parquet can't be read from a pipe or compressed: name the file itself")
    progress.position = max(progress.position - len(stream.head), 0)
    yield from read_parquet(stream.file, name, options, rejects, progress)
