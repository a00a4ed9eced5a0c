"""Removing what is left over from earlier versions of documents that are stored in parts.

It happens in the transaction that makes a document complete: while one of its parts is missing, being on its way or a
dead letter, all that was there before stays. What decides is in `embedq_core.parts`.
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from embedq_core.parts import BEYOND, FIRST, Document, is_complete, is_stale
from embedq_store.burying import Origin

_DOCUMENTS: Final = 64

# Where the number begins in an id; SQLite counts from 1. Numbers are compared before metadata is read.
_SUSPECT: Final = (
    "({table}.id >= documents.first AND {table}.id < documents.beyond"
    " AND CAST(substr({table}.id, documents.digits) AS INTEGER) >= documents.parts)"
)


def remove_stale(
    db: sqlite3.Connection,
    collection: str,
    model_id: str,
    documents: Collection[Document],
    origin: Origin,
    *,
    among_letters: bool,
) -> int:
    """Remove what is left over from other versions of those `documents` that are complete; return how many entries.

    With `among_letters`, dead letters of parts that are no more go with them, where they are earlier than `origin`.
    Call it inside the transaction of the parts, when they are written.
    """
    found = db.execute("SELECT id FROM collections WHERE name = ? AND model = ?", (collection, model_id)).fetchone()
    if found is None:
        return 0
    key = int(found[0])
    entries: list[tuple[int, str]] = []
    letters: list[tuple[int]] = []
    for some in _slices(documents):
        stale = _entries(db, key, some)
        dead = _letters(db, collection, some, origin) if among_letters else []
        complete = _complete(db, key, list({document for document, _ in stale + dead}))
        entries += [(key, id_) for document, id_ in stale if document in complete]
        letters += [(letter,) for document, letter in dead if document in complete]
    db.executemany("DELETE FROM embeddings WHERE collection_id = ? AND id = ?", entries)
    db.executemany("DELETE FROM embedq_dead WHERE key = ?", letters)
    return len(entries)


def _entries(db: sqlite3.Connection, key: int, documents: Sequence[Document]) -> list[tuple[Document, Any]]:
    """What may be left over of which document, by ids."""
    source, values = _given(documents)
    rows = db.execute(
        f"{source} SELECT documents.id, documents.parts, embeddings.id, metadata FROM documents CROSS JOIN embeddings"  # noqa: S608
        f" ON collection_id = ? AND {_SUSPECT.format(table='embeddings')}"
        " UNION ALL SELECT documents.id, documents.parts, embeddings.id, metadata FROM documents CROSS JOIN embeddings"
        " ON collection_id = ? AND embeddings.id = documents.id",
        (*values, key, key),
    ).fetchall()
    return [
        (document, entry_id)
        for id_, parts, entry_id, metadata in rows
        if is_stale(document := Document(id_, parts), entry_id, metadata)
    ]


def _letters(
    db: sqlite3.Connection, collection: str, documents: Sequence[Document], origin: Origin
) -> list[tuple[Document, Any]]:
    """Dead letters of what may be left over of which document, by keys."""
    source, values = _given(documents)
    earlier = (collection, origin.began, *origin)
    # Two queries: for either condition in one, SQLite would look at all letters of the collection for each document.
    letters = (
        "SELECT documents.id, documents.parts, embedq_dead.id, metadata, key FROM documents CROSS JOIN embedq_dead"
        " ON collection = ? AND (died < ? OR (run = ? AND chunk < ?))"
    )
    rows = db.execute(
        f"{source} {letters} AND {_SUSPECT.format(table='embedq_dead')}"
        f" UNION ALL {letters} AND embedq_dead.id = documents.id",
        (*values, *earlier, *earlier),
    ).fetchall()
    return [
        (document, key)
        for id_, parts, letter_id, metadata, key in rows
        if is_stale(document := Document(id_, parts), letter_id, metadata)
    ]


def _complete(db: sqlite3.Connection, key: int, documents: Sequence[Document]) -> set[Document]:
    """Those of `documents` of which every part is stored."""
    if not documents:
        return set()
    source, values = _given(documents)
    rows = db.execute(
        f"{source} SELECT documents.id, documents.parts, embeddings.id, metadata FROM documents CROSS JOIN embeddings"  # noqa: S608
        " ON collection_id = ? AND embeddings.id >= documents.first AND embeddings.id < documents.beyond",
        (*values, key),
    ).fetchall()
    entries: dict[Document, list[tuple[str, str | None]]] = {document: [] for document in documents}
    for id_, parts, entry_id, metadata in rows:
        entries[Document(id_, parts)].append((entry_id, metadata))
    return {document for document in documents if is_complete(document, entries[document])}


def _given(documents: Sequence[Document]) -> tuple[str, list[str | int]]:
    """`documents` as a table of a statement, and its values."""
    values: list[str | int] = []
    for id_, parts in documents:
        values += [id_, parts, id_ + FIRST, id_ + BEYOND, len(id_) + 2]
    rows = ",".join(["(?, ?, ?, ?, ?)"] * len(documents))
    return f"WITH documents (id, parts, first, beyond, digits) AS (VALUES {rows})", values


def _slices(documents: Collection[Document]) -> Iterator[list[Document]]:
    left = iter(documents)
    while some := list(islice(left, _DOCUMENTS)):
        yield some
