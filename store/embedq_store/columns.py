"""What the metadata of all rows of a collection holds under some keys, kept from one query to the next.

Metadata is JSON text in SQLite, and reading a million of them takes seconds. So for each key that is asked for, one
number a row is held, `code_of` its value, and brought up to date before it is used:

- new and replaced rows have rowids beyond the largest one seen: they are read;
- triggers count changes in place and deletions, for each collection: when there were any, all is read anew, and so it
  is after any change to a file that lacks the triggers.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

import aiosqlite
import numpy as np
import numpy.typing as npt

from embedq_store.filters import Condition, code_of, kinded_at, parsed
from embedq_store.shortlist import Mask

Rowids: TypeAlias = npt.NDArray[np.int64]
Codes: TypeAlias = npt.NDArray[np.uint32]

_READ_ROWS: Final = 8192

# Four bytes a row each. The one that was used longest ago makes room.
KEYS: Final = 8

_TRIGGERS: Final = ("embedq_embedding_updated", "embedq_embedding_deleted", "embedq_metadata_updated")


class Columns:
    """The columns of one collection, each aligned with the rows that a search holds. Not safe for concurrent use."""

    def __init__(self, db: aiosqlite.Connection, collection_id: int) -> None:
        self._db = db
        self._collection_id = collection_id
        self._rowids: Rowids = np.empty(0, dtype=np.int64)
        self._codes: dict[str, Codes] = {}
        self._seen: tuple[int, int] | None = None
        self._changes: tuple[int, int, int] | None = None

    def holds(self, condition: Condition) -> bool:
        """Whether there is a column for this condition, up to date or nearly."""
        return condition.key in self._codes

    async def mask(self, conditions: Sequence[Condition], rowids: Rowids) -> Mask:
        """Which of the rows `rowids`, ascending, meet the conditions; shape (rows,). `rowids` is kept: don't change it.

        Rows may be among them whose values only have the same codes: whoever answers with a row looks again.
        """
        await self._refresh(rowids)
        mask = np.ones(len(rowids), dtype=np.bool_)
        for condition in conditions:
            codes = np.array([code_of(value) for value in condition.values], dtype=np.uint32)
            mask &= np.isin(await self._column(condition.key), codes)
        return mask

    async def _column(self, key: str) -> Codes:
        column = self._codes.pop(key, None)
        if column is None:
            column = (await self._read([key], self._rowids, -(2**63)))[0]
            while len(self._codes) >= KEYS:
                del self._codes[next(iter(self._codes))]
        self._codes[key] = column  # the last one used is the last to go
        return column

    async def _refresh(self, rowids: Rowids) -> None:
        """Bring all columns up to date, and in line with `rowids`."""
        versions = await self._db.execute_fetchall("PRAGMA data_version")
        seen = (next(int(row[0]) for row in versions), self._db.total_changes)
        known = len(self._rowids)
        same = rowids is self._rowids
        grown = same or (known <= len(rowids) and np.array_equal(self._rowids, rowids[:known]))
        if seen == self._seen and grown and known == len(rowids):
            return
        changes = self._changes if seen == self._seen else await self._count_changes()
        if changes is None or changes != self._changes or not grown:
            self._codes.clear()
        if self._codes and known < len(rowids):
            after = int(self._rowids[-1]) if known else -(2**63)
            new = await self._read(list(self._codes), rowids[known:], after)
            self._codes = {
                key: np.concatenate((column, more))
                for (key, column), more in zip(self._codes.items(), new, strict=True)
            }
        self._rowids = rowids
        self._changes = changes
        self._seen = seen

    async def _count_changes(self) -> tuple[int, int, int] | None:
        """The schema's version and the collection's counters of changes; None where nothing is counted."""
        triggers = await self._db.execute_fetchall(
            "SELECT count(*) FROM sqlite_master WHERE type = 'trigger'"  # noqa: S608 - only question marks
            f" AND name IN ({','.join('?' * len(_TRIGGERS))})",
            _TRIGGERS,
        )
        if next(row[0] for row in triggers) != len(_TRIGGERS):
            return None
        rows = await self._db.execute_fetchall(
            "SELECT schema_version, (SELECT changes FROM embedq_changes WHERE collection_id = ?1),"
            " (SELECT changes FROM embedq_metadata_changes WHERE collection_id = ?1) FROM pragma_schema_version",
            (self._collection_id,),
        )
        return next((int(row[0]), int(row[1] or 0), int(row[2] or 0)) for row in rows)

    async def _read(self, keys: Sequence[str], rowids: Rowids, after: int) -> list[Codes]:
        """The columns of `keys` for `rowids`, all of which are beyond `after`; rows that are gone have nothing."""
        columns = [np.zeros(len(rowids), dtype=np.uint32) for _ in keys]
        while len(rowids):
            # The plus sign keeps SQLite from sorting all rows of the collection for each page of them.
            rows = await self._db.execute_fetchall(
                "SELECT rowid, metadata FROM embeddings WHERE +collection_id = ? AND rowid > ? AND rowid <= ?"
                " AND metadata IS NOT NULL ORDER BY rowid LIMIT ?",
                (self._collection_id, after, int(rowids[-1]), _READ_ROWS),
            )
            read = [(int(row[0]), parsed(row[1])) for row in rows]
            if not read:
                break
            found = np.fromiter((rowid for rowid, _ in read), dtype=np.int64, count=len(read))
            places = np.searchsorted(rowids, found)
            held = rowids[places] == found
            for key, column in zip(keys, columns, strict=True):
                codes = np.fromiter(
                    (code_of(kinded_at(metadata, key)) for _, metadata in read), dtype=np.uint32, count=len(read)
                )
                column[places[held]] = codes[held]
            after = int(found[-1])
        return columns
