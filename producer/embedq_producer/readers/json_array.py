"""JSON: an array of objects."""

from collections.abc import Iterator
from io import BufferedReader

from embedq_core.errors import SourceError
from embedq_core.items import Item
from embedq_producer.readers.bad_row import BadRow, MalformedRow
from embedq_producer.readers.elements import elements
from embedq_producer.readers.json_rows import JsonRows
from embedq_producer.readers.options import RowOptions
from embedq_producer.readers.rows import too_large
from embedq_producer.readers.source import Rejects


def read_json_array(stream: BufferedReader, name: str, options: RowOptions, rejects: Rejects) -> Iterator[Item]:
    """The item of every object of the array, as it comes.

    Raises SourceError at the first syntax error, after what came before it: behind a quote or a bracket that
    is missing, what looks like a row may be the inside of a text.
    """
    rows = JsonRows(options)
    found = elements(stream, name, options.row_bytes)
    for number, (line, text) in enumerate(found, start=1):
        where = f"{name} row {number} (line {line})"
        try:
            if text is None:
                raise too_large(options)
            item = rows.item(text)
        except MalformedRow as bad:
            raise SourceError(f"{where}: {bad.problem}; the rest can't be read") from bad
        except BadRow as bad:
            rejects.reject(where, bad)
        else:
            yield item
