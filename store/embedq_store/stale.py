"""Removing what is left over from earlier versions of documents that are stored in parts.

It happens in the transaction that makes a document complete: while one of its parts is missing, being on its way or a
dead letter, all that was there before stays. What decides is in `embedq_core.parts`.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

import aiosqlite

from embedq_core.parts import BEYOND, FIRST, Document, is_complete, is_stale
from embedq_store.deadletters import Origin, Suspects

_DOCUMENTS: Final = 64

# Where the number begins in an id; SQLite counts from 1. Numbers are compared before metadata is read.
_SUSPECT: Final = (
    "({table}.id >= documents.first AND {table}.id < documents.beyond"
    " AND CAST(substr({table}.id, documents.digits) AS INTEGER) >= documents.parts)"
)


class _Left(NamedTuple):
    """Something that may be left over: an entry, or with `key`, a dead letter."""

    document: Document
    id: str
    key: int | None


async def remove_stale(
    db: aiosqlite.Connection,
    collection: str,
    collection_id: int,
    documents: Collection[Document],
    origin: Origin,
    suspects: Suspects,
) -> int:
    """Remove what is left over from other versions of those `documents` that are complete; return how many entries.

    Dead letters of parts that are no more go with them, where they are earlier than `origin`. Call it inside the
    transaction of the parts, when they are written.
    """
    left: list[_Left] = []
    for some in _slices(documents):
        left += await _entries(db, collection_id, some)
        if await suspects.exist():
            left += await _letters(db, collection, some, origin)
    complete = set[Document]()
    for some in _slices({each.document for each in left}):
        complete |= await _complete(db, collection_id, some)
    entries = [(collection_id, each.id) for each in left if each.document in complete and each.key is None]
    letters = [(each.key,) for each in left if each.document in complete and each.key is not None]
    await db.executemany("DELETE FROM embeddings WHERE collection_id = ? AND id = ?", entries)
    await db.executemany("DELETE FROM embedq_dead WHERE key = ?", letters)
    return len(entries)


async def _entries(db: aiosqlite.Connection, collection_id: int, documents: Sequence[Document]) -> list[_Left]:
    source, values = _given(documents)
    suspect = _SUSPECT.format(table="embeddings")
    rows = await db.execute_fetchall(
        f"{source} SELECT documents.id, documents.parts, embeddings.id, metadata FROM documents CROSS JOIN embeddings"  # noqa: S608
        f" ON collection_id = ? AND {suspect}"
        " UNION ALL SELECT documents.id, documents.parts, embeddings.id, metadata FROM documents CROSS JOIN embeddings"
        " ON collection_id = ? AND embeddings.id = documents.id",
        (*values, collection_id, collection_id),
    )
    return [
        _Left(document, entry_id, None)
        for id_, parts, entry_id, metadata in rows
        if is_stale(document := Document(id_, parts), entry_id, metadata)
    ]


async def _letters(
    db: aiosqlite.Connection, collection: str, documents: Sequence[Document], origin: Origin
) -> list[_Left]:
    source, values = _given(documents)
    suspect = _SUSPECT.format(table="embedq_dead")
    rows = await db.execute_fetchall(
        f"{source} SELECT documents.id, documents.parts, embedq_dead.id, metadata, key"  # noqa: S608
        f" FROM documents CROSS JOIN embedq_dead ON collection = ? AND ({suspect} OR embedq_dead.id = documents.id)"
        " WHERE died < ? OR (run = ? AND chunk < ?)",
        (*values, collection, origin.began, *origin),
    )
    return [
        _Left(document, letter_id, key)
        for id_, parts, letter_id, metadata, key in rows
        if is_stale(document := Document(id_, parts), letter_id, metadata)
    ]


async def _complete(db: aiosqlite.Connection, collection_id: int, documents: Sequence[Document]) -> set[Document]:
    """Those of `documents` of which every part is stored."""
    source, values = _given(documents)
    rows = await db.execute_fetchall(
        f"{source} SELECT documents.id, documents.parts, embeddings.id, metadata FROM documents CROSS JOIN embeddings"  # noqa: S608
        " ON collection_id = ? AND embeddings.id >= documents.first AND embeddings.id < documents.beyond",
        (*values, collection_id),
    )
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
