"""What a database says of its collections, and of a chunk that is to be worked on: read in the connection's thread."""

import sqlite3
from dataclasses import dataclass
from typing import Final

import msgspec

from embedq_core.collection_names import base_name
from embedq_core.configuration import Configuration
from embedq_core.counts import Counts
from embedq_store.configurations import configuration_in_force
from embedq_store.reembedding import Moved
from embedq_store.reembedding_records import moved

# So many times as long it takes to look a row up as to come past it.
_WORTH_A_SCAN: Final = 4


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection: its key, its name, the full id of its model."""

    id: int
    name: str
    model_id: str


@dataclass(frozen=True, slots=True)
class CollectionFigures:
    """What there is in a collection. Sizes are in bytes, times in seconds since the epoch."""

    entries: int
    dimension: int | None
    with_content: int
    with_metadata: int
    vector_bytes: int
    content_bytes: int
    oldest: int | None
    newest: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What bears on a chunk as a whole: its mark, its collection, and what the collection's vectors are: how long, and
    made with which configuration of its model. `moved` is set where the chunk was cut for what the collection was
    before it was embedded anew.
    """

    mark: tuple[Counts, bool] | None
    collection: CollectionInfo | None
    dimension: int | None
    configuration: Configuration | None
    moved: Moved | None = None


def find_collection(db: sqlite3.Connection, name: str) -> CollectionInfo | None:
    """The collection called `name`, or None."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'collections'").fetchone() is None:
        return None
    row = db.execute("SELECT id, name, model FROM collections WHERE name = ?", (name,)).fetchone()
    return None if row is None else CollectionInfo(*row)


def chunk_mark(db: sqlite3.Connection, run: str, chunk: int) -> tuple[Counts, bool] | None:
    """What a chunk had come to when it was last written, and whether it was finished then."""
    row = db.execute(
        "SELECT counts, finished IS NOT NULL FROM embedq_chunks WHERE run = ? AND chunk = ?", (run, chunk)
    ).fetchone()
    return None if row is None else (msgspec.json.decode(row[0], type=Counts), bool(row[1]))


def standing(db: sqlite3.Connection, run: str, chunk: int, collection: str, model_id: str) -> Standing:
    """What bears on a chunk for `collection` that is to be embedded with the model `model_id`."""
    found = find_collection(db, collection)
    dimension = None if found is None else dimension_of(db, found.id)
    configuration = None if found is None else configuration_in_force(db, found.id)
    where = None
    # Of all other chunks nothing has to be asked.
    if found is None or found.model_id != model_id or base_name(collection) is not None:
        where = moved(db, collection, model_id)
    return Standing(chunk_mark(db, run, chunk), found, dimension, configuration, where)


def scanned(db: sqlite3.Connection, collection_id: int) -> str:
    """What to put before `collection_id` in the condition of a statement that reads all rows of a collection.

    SQLite would look each row up by way of the index of ids. Where the collection is much of the table, '+' has it read
    the table from end to end instead, which takes a quarter of the time for a million rows whose ids are in no order.
    """
    entries = db.execute("SELECT count(*) FROM embeddings WHERE collection_id = ?", (collection_id,)).fetchone()[0]
    last = db.execute("SELECT coalesce(max(rowid), 0) FROM embeddings").fetchone()[0]
    return "+" if entries * _WORTH_A_SCAN >= last else ""


def figures_of(db: sqlite3.Connection, collection_id: int) -> CollectionFigures:
    """The figures of a collection: reads all of its rows."""
    row = db.execute(
        "SELECT count(*), sum(content IS NOT NULL OR content_blob IS NOT NULL), sum(metadata IS NOT NULL),"  # noqa: S608
        " sum(length(embedding)), sum(coalesce(length(CAST(content AS BLOB)), length(content_blob), 0)),"
        f" min(updated), max(updated) FROM embeddings WHERE {scanned(db, collection_id)}collection_id = ?",
        (collection_id,),
    ).fetchone()
    sums = [value or 0 for value in row[1:5]]
    return CollectionFigures(row[0], dimension_of(db, collection_id), *sums, *row[5:])


def dimension_of(db: sqlite3.Connection, collection_id: int) -> int | None:
    """The dimension of a collection's vectors; None while it has none."""
    row = db.execute(
        "SELECT length(embedding) / 4 FROM embeddings WHERE collection_id = ? AND length(embedding) > 0 LIMIT 1",
        (collection_id,),
    ).fetchone()
    return None if row is None else int(row[0])
