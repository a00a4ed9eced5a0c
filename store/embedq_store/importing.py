"""Entries that come with their vectors, from a file: compared with what is stored, and written as they are."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import aiosqlite

from embedq_core.errors import BadVectors
from embedq_store.bulk import in_thread, insertion, marks, steps
from embedq_store.configurations import record
from embedq_store.snapshot import StoredEntry
from embedq_store.standing import dimension_of, find_collection
from embedq_store.transaction import check_model, ensure_collection
from embedq_store.writes import Target


@dataclass(frozen=True, slots=True)
class Beside:
    """Of entries beside a collection: the places of those that are `new` to it, and of those that are `different` from
    what it has under their ids. The others are the same, whenever they were updated.
    """

    new: list[int]
    different: list[int]


def compare(db: sqlite3.Connection, collection: str, entries: Sequence[StoredEntry]) -> Beside:
    """What `entries`, no two with one id, are to a collection, which need not be there."""
    found = find_collection(db, collection)
    if found is None:
        return Beside(list(range(len(entries))), [])
    stored: dict[str, tuple[object, ...]] = {}
    for some in steps(entries):
        rows = db.execute(
            "SELECT id, embedding, coalesce(content, content_blob), content_hash, metadata FROM embeddings"  # noqa: S608
            f" WHERE collection_id = ? AND id IN ({marks(len(some))})",
            (found.id, *[entry.id for entry in some]),
        )
        stored.update({row[0]: row[1:] for row in rows})
    new, different = [], []
    for place, entry in enumerate(entries):
        there = stored.get(entry.id)
        if there is None:
            new.append(place)
        elif there != (entry.vector, entry.content, entry.digest, entry.metadata):
            different.append(place)
    return Beside(new, different)


async def write_entries(
    db: aiosqlite.Connection, target: Target, entries: Sequence[StoredEntry], *, replace: bool
) -> tuple[int, int]:
    """Write those of `entries` that are new, and with `replace` those that are different; how many of both.

    Makes the collection where it isn't there. Call it in a transaction. Raises ModelMismatch, ConfigurationMismatch
    and BadVectors, before anything is changed.
    """
    key, model_id = await ensure_collection(db, target)
    check_model(target, model_id)

    def write(connection: sqlite3.Connection) -> tuple[int, int]:
        dimension = dimension_of(connection, key)
        for size in {len(entry.vector) // 4 for entry in entries}:
            if dimension not in (None, size):
                raise BadVectors(
                    f"the collection {target.collection!r} holds vectors of {dimension} dimensions, not of {size}"
                )
        if entries and target.configuration is not None:
            record(connection, key, target.collection, target.model_id, target.configuration)
        beside = compare(connection, target.collection, entries)
        replaced = beside.different if replace else []
        for some in steps([entries[place] for place in sorted(beside.new + replaced)]):
            values = chain.from_iterable(
                (
                    entry.id,
                    entry.vector,
                    entry.content if isinstance(entry.content, str) else None,
                    entry.content if isinstance(entry.content, bytes) else None,
                    entry.digest,
                    entry.metadata,
                    entry.updated,
                )
                for entry in some
            )
            connection.execute(insertion(len(some), timed=True), (key, *values))
        return len(beside.new), len(replaced)

    return await in_thread(db, write)
