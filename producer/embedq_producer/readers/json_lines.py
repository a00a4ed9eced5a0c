"""Newline-delimited JSON: an object on every line."""

from collections.abc import Iterator
from io import BufferedReader
from typing import Final

from embedq_core.items import Item
from embedq_producer.readers.bad_row import BadRow
from embedq_producer.readers.json_rows import JsonRows
from embedq_producer.readers.options import RowOptions
from embedq_producer.readers.rows import too_large
from embedq_producer.readers.source import Rejects

_BLOCK: Final = 1 << 20


def read_json_lines(stream: BufferedReader, name: str, options: RowOptions, rejects: Rejects) -> Iterator[Item]:
    """The item of every line that holds one; blank lines are nothing. A line is never held beyond the limit."""
    rows = JsonRows(options)
    longest = options.row_bytes
    number = 0
    while line := stream.readline(longest + 1):
        number += 1
        try:
            if len(line) > longest:
                skip_line(stream, line)
                raise too_large(options)
            if line.isspace():
                continue
            item = rows.item(line)
        except BadRow as bad:
            rejects.reject(f"{name} line {number}", bad)
        else:
            yield item


def skip_line(stream: BufferedReader, piece: bytes) -> None:
    """Pass over the rest of a line that begins with `piece`."""
    while piece and not piece.endswith(b"\n"):
        piece = stream.readline(_BLOCK)
