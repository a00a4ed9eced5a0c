"""CSV and TSV: rows of cells under a header."""

import csv
from collections.abc import Iterator
from functools import partial
from io import BufferedReader
from typing import Final

from embedq_core.errors import SourceError
from embedq_core.items import Item
from embedq_core.text import plural
from embedq_producer.readers.bad_row import BadRow
from embedq_producer.readers.decoding import decoded
from embedq_producer.readers.options import RowOptions
from embedq_producer.readers.rows import shaped_item, too_large
from embedq_producer.readers.source import Rejects
from embedq_producer.readers.table import table_shape

_BLOCK: Final = 1 << 20
# The module's own limit on a cell is one for the whole process, and small; rows are limited by _Lines.
_CELL_LIMIT: Final = 2**31 - 1


def read_delimited(
    stream: BufferedReader, name: str, options: RowOptions, rejects: Rejects, *, delimiter: str
) -> Iterator[Item]:
    """The item of every row under the header, told apart by physical lines; empty lines are nothing.

    Raises SourceError or UsageError where the header makes no items, and SourceError, after the rows before
    it, at a quote that is never closed.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _CELL_LIMIT))
    lines = _Lines(stream, name, options)
    rows = csv.reader(lines, delimiter=delimiter)
    header = _header(rows, lines, name)
    if header is None:
        return
    _hint_at_semicolons(header, name)
    shape = table_shape(header, name, options)
    width = len(header)
    while True:
        lines.begin_row()
        try:
            row = next(rows, None)
            if row is None:
                return
            if not row:
                continue
            if lines.undecodable is not None or len(row) != width:
                raise lines.undecodable or BadRow(f"has {plural(len(row), 'cell')} where the header has {width}")
            item = shaped_item(shape, row, options, metadata_may_be_text=True)
        except BadRow as bad:
            rejects.reject(f"{name} line {lines.first}", bad)
        except csv.Error as error:
            rejects.reject(f"{name} line {lines.first}", _explained(error))
        else:
            yield item


read_csv = partial(read_delimited, delimiter=",")
read_tsv = partial(read_delimited, delimiter="\t")


class _Lines:
    """The physical lines of a stream as csv.reader asks for them; knows where the row began.

    csv.reader asks for a second line of a row only inside a quoted cell.
    """

    def __init__(self, stream: BufferedReader, name: str, options: RowOptions) -> None:
        self._stream = stream
        self._name = name
        self._options = options
        self._encodings = options.line_encodings()
        self._longest = options.row_bytes
        self._number = 0
        self._row_bytes = 0
        self.first = 1
        self.undecodable: BadRow | None = None

    def begin_row(self) -> None:
        """What is asked for next is the first line of a row."""
        self._row_bytes = 0
        self.first = self._number + 1
        self.undecodable = None

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        room = self._longest - self._row_bytes
        line = self._stream.readline(room + 1)
        if not line:
            if self._row_bytes:
                raise self._unclosed()
            raise StopIteration
        self._number += 1
        if len(line) > room:
            self._skip_row(line)
            raise too_large(self._options)
        self._row_bytes += len(line)
        try:
            return decoded(line, self._encodings)
        except BadRow as bad:
            # The row goes on: where it ends can be seen, what it says can't.
            self.undecodable = bad
            return line.decode("ascii", "replace")

    def _skip_row(self, piece: bytes) -> None:
        """Read to the end of the row: a line's end outside of quotes."""
        quoted = self._row_bytes > 0
        while True:
            quoted ^= piece.count(b'"') % 2 == 1
            if piece.endswith(b"\n"):
                if not quoted:
                    return
                self._number += 1
            piece = self._stream.readline(_BLOCK)
            if not piece:
                if quoted:
                    raise self._unclosed()
                return

    def _unclosed(self) -> SourceError:
        return SourceError(
            f"{self._name} line {self.first}: a quote in this row is never closed; "
            "neither it nor what follows can be read"
        )


def _header(rows: Iterator[list[str]], lines: _Lines, name: str) -> list[str] | None:
    """The names of the columns, or None in an empty file."""
    while True:
        lines.begin_row()
        try:
            header = next(rows, None)
        except csv.Error as error:
            raise SourceError(f"{name}: the header {_explained(error).problem}") from error
        except BadRow as bad:
            raise SourceError(f"{name}: the header {bad.problem}") from bad
        if lines.undecodable is not None:
            raise SourceError(f"{name}: the header {lines.undecodable.problem}")
        if header is None or len(header) > 1 or "".join(header).strip():
            return header


def _hint_at_semicolons(header: list[str], name: str) -> None:
    """Raises SourceError where the one column that was found is many, told apart by another character."""
    separators = ((";", "semicolons"), ("\t", "tabs: try --format tsv"), (",", "commas: try --format csv"))
    for character, words in separators:
        if len(header) == 1 and character in header[0]:
            raise SourceError(f"{name} has one column only; its cells seem to be separated by {words}")


def _explained(error: csv.Error) -> BadRow:
    if "new-line character" in str(error):
        return BadRow("has a bare carriage return in a cell without quotes: quote it, or end lines with \\n")
    return BadRow(f"can't be read ({error})")
