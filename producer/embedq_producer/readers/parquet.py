"""Parquet, through pyarrow (the extra `parquet`): record batch by record batch."""

import datetime as dt
import math
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from io import SEEK_END
from typing import TYPE_CHECKING, Any, BinaryIO, Final

if TYPE_CHECKING:
    from pyarrow import RecordBatch
    from pyarrow.parquet import FileMetaData, ParquetFile

from embedq_core.errors import SourceError
from embedq_core.items import Item
from embedq_producer.readers.bad_row import BadRow
from embedq_producer.readers.options import RowOptions
from embedq_producer.readers.rows import Shape, Unreadable, shaped_item
from embedq_producer.readers.source import Progress, Rejects
from embedq_producer.readers.table import table_shape

_BATCH_ROWS: Final = 1024
_BATCH_BYTES: Final = 4 << 20
_BUFFER: Final = 1 << 20


def need_pyarrow(name: str) -> None:
    """Raises SourceError, saying what to install, where pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401 - only whether it is there is asked
    except ImportError as error:
        raise SourceError(f"{name}: reading Parquet needs pyarrow: pip install 'embedq[parquet]'") from error


def read_parquet(
    file: BinaryIO, name: str, options: RowOptions, rejects: Rejects, progress: Progress
) -> Iterator[Item]:
    """The item of every row of a seekable file; only the columns that are used are read.

    Raises SourceError where the file is damaged, after the rows before.
    """
    need_pyarrow(name)
    import pyarrow.parquet as pq

    size, start, number = file.seek(0, SEEK_END), progress.position, 0
    file.seek(0)
    with _damage(name, "isn't Parquet, or is damaged"):
        table = pq.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
        names, total = table.schema_arrow.names, table.metadata.num_rows
    shape = table_shape(names, name, options)
    columns = _used(shape) if len(set(names)) == len(names) else None
    batches = _batches(table, columns)
    while True:
        with _damage(name, f"is damaged after row {number:,}; the rest can't be read"):
            batch = next(batches, None)
            if batch is None:
                return
            read = tuple(batch.schema.names)
            values = [_values(column) for column in batch.columns]
        if read != shape.names:
            shape = table_shape(read, name, options)
        for row in zip(*values, strict=True):
            number += 1
            try:
                item = shaped_item(shape, row, options, metadata_may_be_text=True)
            except BadRow as bad:
                rejects.reject(f"{name} row {number}", bad)
            else:
                yield item
        progress.position = start + size * number // total


def _batches(table: "ParquetFile", columns: list[str] | None) -> "Iterator[RecordBatch]":
    # Group by group: a batch that spans two would be lost where only the second is damaged.
    for group in range(table.num_row_groups):
        yield from table.iter_batches(_batch_rows(table.metadata), row_groups=[group], columns=columns)


def _batch_rows(metadata: "FileMetaData") -> int:
    """Rows to have in hand at a time: fewer where they are large."""
    size = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * metadata.num_rows // max(size, 1)))


@contextmanager
def _damage(name: str, problem: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # A damaged file makes pyarrow raise errors of many kinds, not only its own.
        raise SourceError(f"{name} {problem} ({_first_line(error)})") from error


def _used(shape: Shape) -> list[str]:
    places = {shape.id, *shape.content, *(index for _, index in shape.extra)}
    if shape.metadata is not None:
        places.add(shape.metadata)
    return [shape.names[index] for index in sorted(places)]


def _values(column: Any) -> list[Any]:  # noqa: ANN401 - pyarrow's arrays have a class for every type
    """The values of a column, as what JSON knows, bytes, or Unreadable."""
    try:
        values: list[Any] = column.to_pylist()
    except Exception:
        values = [_value(scalar) for scalar in column]
    if any(type(value) not in _PLAIN for value in {type(value): value for value in values}.values()):
        values = [_plain(value) for value in values]
    return values


_PLAIN: Final = (str, int, bool, bytes, type(None), Unreadable)


def _value(scalar: Any) -> object:  # noqa: ANN401 - as above
    try:
        return scalar.as_py()
    except Exception as error:
        return Unreadable(f"can't be read ({_first_line(error)})")


def _plain(value: object) -> object:
    """`value` as what JSON knows: dates and decimals as text, a number that is none as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, Decimal | dt.timedelta):
        return str(value)
    return value if type(value) in _PLAIN else str(value)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
