"""A file of queries: rows in any format of a corpus, or plain text with a query on every line."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final

from embedq_core.items import Item
from embedq_producer.readers.bad_row import BadRow
from embedq_producer.readers.decoding import decoded
from embedq_producer.readers.file import BOM, FileSource, format_by_name, text_of_stream
from embedq_producer.readers.json_array import read_json_array
from embedq_producer.readers.json_lines import read_json_lines, skip_line
from embedq_producer.readers.options import RowOptions
from embedq_producer.readers.rows import finished_item, too_large
from embedq_producer.readers.source import Progress, Rejects, Source
from embedq_producer.readers.stream import open_stream

LINES: Final = "lines"

# How JSON begins; no more is guessed, since a text may hold commas and tabs.
_JSON: Final = {b"{": read_json_lines, b"[": read_json_array}


@dataclass(frozen=True)
class QuerySource(Source):
    """A file of queries; `path` None is standard input.

    The format is `format`, `LINES` among others, or the one that the name tells. Other files hold JSON where they
    begin so, else a query on every line, whose id is the number of the line.
    """

    path: Path | None
    format: str | None = None

    def describe(self) -> str:
        """The path as it was given."""
        return FileSource(self.path).describe()

    def check(self, options: RowOptions) -> None:
        """Look whether the file is there and may be read."""
        FileSource(self.path, None if self.format == LINES else self.format).check(options)

    def size(self) -> int | None:
        """Bytes of the file; None where nobody knows."""
        return FileSource(self.path).size()

    def read(self, options: RowOptions, rejects: Rejects, progress: Progress) -> Iterator[Item]:
        """The item of every query."""
        chosen = self.format or format_by_name(self.path)
        if chosen is not None and chosen != LINES:
            yield from FileSource(self.path, chosen).read(options, rejects, progress)
            return
        name = self.describe()
        with open_stream(self.path, name, progress) as stream:
            begin = stream.head.removeprefix(BOM).lstrip()
            read = _read_lines if chosen == LINES else _JSON.get(begin[:1], _read_lines)
            yield from read(text_of_stream(stream, name), name, options, rejects)


def _read_lines(stream: BufferedReader, name: str, options: RowOptions, rejects: Rejects) -> Iterator[Item]:
    """The item of every line that isn't blank. A line is never held beyond the limit."""
    number = 0
    while line := stream.readline(options.row_bytes + 1):
        number += 1
        try:
            if len(line) > options.row_bytes:
                skip_line(stream, line)
                raise too_large(options)
            text = decoded(line, options.line_encodings()).strip()
            if not text:
                continue
            item = finished_item(str(number), text, None, options)
        except BadRow as bad:
            rejects.reject(f"{name} line {number}", bad)
        else:
            yield item
