"""Entries as Parquet, through pyarrow (the extra `parquet`): a column for each field, vectors as lists of one size.

What the collection is stands in the file's own metadata, under `embedq`.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec
import numpy as np

from embedq.transfer.entry_files import (
    PAGE_BYTES,
    PAGE_ENTRIES,
    EntryFile,
    Head,
    Shape,
    Told,
    head_from,
    one_dimension,
    strict_metadata,
)
from embedq_core.errors import SourceError, UsageError
from embedq_core.items import metadata_text
from embedq_core.text import shown
from embedq_core.vectors import STORED_DTYPE
from embedq_producer.readers.parquet import need_pyarrow
from embedq_store import Snapshot, SnapshotFigures, StoredEntry

if TYPE_CHECKING:
    import pyarrow as pa

_KEY: Final = b"embedq"
_BUFFER: Final = 1 << 20


async def write_parquet(file: BinaryIO, snapshot: Snapshot, head: Head, shape: Shape, told: Told) -> int:
    """Write all entries; how many. Without vectors, those without content are left out.

    Contents are one column, of text or of bytes; where there are both, bytes have their own. Raises UsageError where
    pyarrow is missing, and where both kinds would be written without vectors, which could not be submitted.
    """
    try:
        need_pyarrow("--format parquet")
    except SourceError as error:
        raise UsageError("writing Parquet needs pyarrow: pip install 'embedq[parquet]'") from error
    import pyarrow.parquet as pq

    figures = await snapshot.figures()
    if not shape.vectors and figures.blobs and figures.texts:
        raise UsageError("a file of both texts and bytes can't be submitted: leave --no-vectors out")
    schema = _schema(figures, head, shape)
    done = 0
    with pq.ParquetWriter(file, schema, use_dictionary=False) as writer:
        async for page in snapshot.pages():
            entries = page if shape.vectors else [entry for entry in page if entry.content is not None]
            if entries:
                writer.write_batch(_batch(entries, schema))
            done += len(entries)
            told(done)
    return done


def _schema(figures: SnapshotFigures, head: Head, shape: Shape) -> "pa.Schema":
    import pyarrow as pa

    binary = figures.blobs and not figures.texts
    fields: list[tuple[str, pa.DataType]] = [("id", pa.string()), ("content", pa.binary() if binary else pa.string())]
    if figures.blobs and figures.texts:
        fields.append(("content_blob", pa.binary()))
    fields.append(("metadata", pa.string()))
    if not shape.vectors:
        return pa.schema(fields)
    dimension = one_dimension(head, figures.dimensions)
    fields += [
        ("content_hash", pa.binary()),
        ("updated", pa.int64()),
        ("embedding", pa.list_(pa.float32(), dimension) if dimension else pa.list_(pa.float32())),
    ]
    return pa.schema(fields, metadata={_KEY: msgspec.json.encode(head)})


def _batch(entries: list[StoredEntry], schema: "pa.Schema") -> "pa.RecordBatch":
    import pyarrow as pa

    names = schema.names
    whole = "embedding" in names
    contents = [entry.content for entry in entries]
    columns: dict[str, Any] = {
        "id": [entry.id for entry in entries],
        "content": contents,
        "metadata": [entry.metadata if whole else strict_metadata(entry.metadata) for entry in entries],
        "content_hash": [entry.digest for entry in entries],
        "updated": [entry.updated for entry in entries],
    }
    if "content_blob" in names:
        columns["content"] = [content if isinstance(content, str) else None for content in contents]
        columns["content_blob"] = [content if isinstance(content, bytes) else None for content in contents]
    arrays = [pa.array(columns[name], schema.field(name).type) for name in names if name != "embedding"]
    if whole:
        kind = schema.field("embedding").type
        values = np.frombuffer(b"".join(entry.vector for entry in entries), dtype=STORED_DTYPE)
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(values, pa.float32()), kind.list_size))
    return pa.record_batch(arrays, schema=schema)


class ParquetEntries(EntryFile):
    """A Parquet file: of embedq, or of another tool, with columns `id` and `embedding`."""

    def __init__(self, path: Path) -> None:
        self.name = shown(str(path))
        need_pyarrow(self.name)
        import pyarrow.parquet as pq

        with ExitStack() as stack:
            with self._explained():
                self._file = stack.enter_context(path.open("rb"))
                self._table = pq.ParquetFile(self._file, buffer_size=_BUFFER, pre_buffer=False)
            self._read_schema()
            stack.pop_all()

    def _read_schema(self) -> None:
        schema = self._table.schema_arrow
        said = (schema.metadata or {}).get(_KEY)
        self.head = None if said is None else head_from(said, self.name)
        self.names = set(schema.names)
        self._done = 0
        if "id" not in self.names:
            raise SourceError(f"{self.name}: has no column 'id': it has {shown(', '.join(schema.names))}")
        if "embedding" not in self.names:
            raise SourceError(
                f"{self.name}: has no column 'embedding': 'embedq submit COLLECTION {self.name}' embeds what has none"
            )

    @property
    def share(self) -> float | None:
        """How much of it has been read."""
        rows = self._table.metadata.num_rows
        return self._done / rows if rows else None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def pages(self) -> Iterator[list[StoredEntry]]:
        """The entries from the first to the last."""
        self._done = 0
        known = ("id", "content", "content_blob", "metadata", "content_hash", "updated", "embedding")
        columns = [name for name in known if name in self.names]
        batches = self._batches(columns)
        while True:
            with self._explained():
                batch = next(batches, None)
            if batch is None:
                return
            with self._explained():
                values = {name: batch.column(name).to_pylist() for name in columns if name != "embedding"}
                vectors = _vectors(batch.column("embedding"))
            yield [self._entry(values, vectors, place) for place in range(len(vectors))]
            self._done += len(vectors)

    def _batches(self, columns: list[str]) -> "Iterator[pa.RecordBatch]":
        said = self._table.metadata
        for group in range(said.num_row_groups):
            rows, size = said.row_group(group).num_rows, said.row_group(group).total_byte_size
            count = max(1, min(PAGE_ENTRIES, PAGE_BYTES * rows // max(size, 1)))
            yield from self._table.iter_batches(count, row_groups=[group], columns=columns)

    def _entry(self, values: dict[str, list[Any]], vectors: list[bytes | None], place: int) -> StoredEntry:
        where = f"{self.name} row {self._done + place + 1:,}"
        vector = vectors[place]
        of = {name: column[place] for name, column in values.items()}
        if of["id"] is None or vector is None:
            raise SourceError(f"{where}: has no {'id' if of['id'] is None else 'embedding'}")
        content = of.get("content_blob") if of.get("content") is None else of["content"]
        metadata = of.get("metadata")
        if isinstance(metadata, dict):
            metadata = metadata_text(metadata)
        digest = of.get("content_hash")
        for value, kinds, name in (
            (content, str | bytes, "content"),
            (metadata, str, "metadata"),
            (digest, bytes, "content_hash"),
            (of.get("updated"), int, "updated"),
        ):
            if value is not None and not isinstance(value, kinds):
                raise SourceError(f"{where}: its {name} is {type(value).__name__}")
        return StoredEntry(str(of["id"]), vector, content, digest, metadata, of.get("updated"))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SourceError:
            raise
        except OSError as error:
            raise SourceError(f"{self.name} can't be read: {(error.strerror or str(error)).lower()}") from error
        except Exception as error:
            # A damaged file makes pyarrow raise errors of many kinds, not only its own.
            problem = (str(error).splitlines() or [type(error).__name__])[0]
            raise SourceError(f"{self.name} isn't Parquet of entries, or is damaged ({problem})") from error


def _vectors(column: Any) -> list[bytes | None]:  # noqa: ANN401 - pyarrow's arrays have a class for every type
    """Vectors in stored form; None where there is none."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(column.type) and column.type.value_type == pa.float32() and not column.null_count:
        size = column.type.list_size
        matrix = column.flatten().to_numpy(zero_copy_only=False).astype(STORED_DTYPE, copy=False).reshape(-1, size)
        return [row.tobytes() for row in matrix]
    return [None if row is None else _stored(row) for row in column.to_pylist()]


def _stored(row: list[float | None]) -> bytes:
    with np.errstate(over="ignore"):
        return (
            np.array([np.nan if value is None else value for value in row], np.float64).astype(STORED_DTYPE).tobytes()
        )
