"""Removing entries that their source no longer has: looking through a collection page by page, and deleting.

What is gone is decided elsewhere (`embedq_producer.pruning`). Dead letters of ids that go, go with them; and so do
entries that are being made anew beside the collection, which would bring them back.
"""

import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Final, NamedTuple

from embedq_core.collection_names import NEXT
from embedq_store.access import Access
from embedq_store.bulk import marks, steps
from embedq_store.ranges import with_prefix
from embedq_store.standing import CollectionInfo, find_collection

_PAGE: Final = 4096

# More entries with one content are not asked for.
_SAME: Final = 100

# Only with this in its id, an entry may be a part of a document, as its metadata says.
_METADATA: Final = "CASE WHEN instr(id, '#') THEN metadata END"


class Candidate(NamedTuple):
    """What tells whether a source still has an entry: its id, the metadata that may make it a part, and the hash of
    its content, None where another tool kept none.
    """

    id: str
    metadata: str | None
    digest: bytes | None


class Moment(NamedTuple):
    """When a collection was looked at: the last rowid that its table had, and the time in seconds since the epoch.

    What is stored, or replaced, from then on has a greater rowid; what dies, a later time.
    """

    rowid: int
    time: float


def _moment(db: sqlite3.Connection) -> Moment:
    """Now."""
    return Moment(int(db.execute("SELECT coalesce(max(rowid), 0) FROM embeddings").fetchone()[0]), time.time())


class Prunable:
    """The entries of a collection whose ids start with a prefix, as they were when this was made, to be looked through
    and to be deleted from. Made by `Store.prunable`.
    """

    def __init__(self, access: Access, info: CollectionInfo, prefix: str) -> None:
        self._access = access
        self._info = info
        self._prefix = prefix
        self._looked: Moment | None = None

    async def entries(self) -> AsyncIterator[list[Candidate]]:
        """All entries, page by page, in the order of ids."""
        self._looked = await self._access.read(_moment)
        beyond: str | None = None
        while page := await self._access.read(
            partial(_entries_page, info=self._info, prefix=self._prefix, beyond=beyond)
        ):
            yield page
            beyond = page[-1].id

    async def letters(self) -> AsyncIterator[list[Candidate]]:
        """All dead letters, page by page, in the order of ids; of several with one id, one."""
        beyond: str | None = None
        while page := await self._access.read(
            partial(_letters_page, info=self._info, prefix=self._prefix, beyond=beyond)
        ):
            yield page
            beyond = page[-1].id

    async def ids_with(self, digests: Sequence[bytes]) -> list[tuple[bytes, str]]:
        """The contents of which these are the hashes: each with the ids under which the collection holds it, at most
        a hundred of them.
        """
        return await self._access.read(partial(_ids_with, info=self._info, digests=digests))

    async def delete(self, ids: Sequence[str]) -> int:
        """Delete the entries with `ids` and their dead letters, in one transaction; return how many entries.

        What was stored, or died, since the entries were looked through stays: somebody has submitted it again.
        """
        if self._looked is None:
            raise ValueError("nothing may be deleted before all entries were looked through")
        return await self._access.change_in_turn(
            partial(_delete, collection=self._info.name, ids=ids, looked=self._looked)
        )


def _entries_page(db: sqlite3.Connection, info: CollectionInfo, prefix: str, beyond: str | None) -> list[Candidate]:
    """The next entries whose ids start with `prefix`, in the order of ids."""
    condition, bounds = with_prefix(prefix, beyond)
    rows = db.execute(
        f"SELECT id, {_METADATA}, content_hash FROM embeddings WHERE collection_id = ? AND {condition}"  # noqa: S608
        " ORDER BY id LIMIT ?",
        (info.id, *bounds, _PAGE),
    )
    return [Candidate(*row) for row in rows]


def _letters_page(db: sqlite3.Connection, info: CollectionInfo, prefix: str, beyond: str | None) -> list[Candidate]:
    """The next dead letters whose ids start with `prefix`, in the order of ids; one for each id."""
    condition, bounds = with_prefix(prefix, beyond)
    rows = db.execute(
        f"SELECT id, {_METADATA}, NULL FROM embedq_dead WHERE collection = ? AND {condition}"  # noqa: S608
        " GROUP BY id ORDER BY id LIMIT ?",
        (info.name, *bounds, _PAGE),
    )
    return [Candidate(*row) for row in rows]


def _ids_with(db: sqlite3.Connection, info: CollectionInfo, digests: Sequence[bytes]) -> list[tuple[bytes, str]]:
    sql = "SELECT content_hash, id FROM embeddings WHERE content_hash = ? AND collection_id = ? LIMIT ?"
    return [row for digest in digests for row in db.execute(sql, (digest, info.id, _SAME))]


def _delete(db: sqlite3.Connection, collection: str, ids: Sequence[str], looked: Moment) -> int:
    """Delete the entries with `ids`, and their dead letters; return how many entries. Call it in a transaction.

    What was stored, or died, after the collection was `looked` at stays: somebody has submitted it since.
    """
    found = find_collection(db, collection)
    if found is None:
        return 0
    beside = find_collection(db, collection + NEXT)
    deleted = 0
    for some in steps(ids):
        among = f"id IN ({marks(len(some))})"
        sql = f"DELETE FROM embeddings WHERE collection_id = ? AND rowid <= ? AND {among}"  # noqa: S608
        deleted += db.execute(sql, (found.id, looked.rowid, *some)).rowcount
        if beside is not None:
            # By their ids alone: what is made anew is later than what it is made of.
            sql = (
                f"DELETE FROM embeddings WHERE collection_id = ? AND {among}"  # noqa: S608
                " AND NOT EXISTS (SELECT 1 FROM embeddings s WHERE s.collection_id = ? AND s.id = embeddings.id)"
            )
            db.execute(sql, (beside.id, *some, found.id))
        # Nor does a rollback bring back what only the old vectors have.
        db.execute(f"DELETE FROM embedq_reembedding_ids WHERE shadow = ? AND {among}", (found.id, *some))  # noqa: S608
        sql = f"DELETE FROM embedq_dead WHERE collection IN (?, ?) AND died < ? AND {among}"  # noqa: S608
        db.execute(sql, (collection, collection + NEXT, looked.time, *some))
    return deleted
