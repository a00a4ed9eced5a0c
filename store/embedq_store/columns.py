"""What the metadata of all rows of a collection holds under some keys, kept from one query to the next.

Metadata is JSON text in SQLite, and reading a million of them takes seconds. So for each key that is asked for, one
number a row is held, `code_of` its value, and brought up to date before it is used:

- `embedq_store.freshness` tells up to which rowid all is still as it was read: what is beyond is read anew;
- a trigger counts metadata that is changed in place, for each collection: then all is read anew, and so it is after
  any change to a file that lacks the triggers.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

import aiosqlite
import numpy as np
import numpy.typing as npt

from embedq_store.filters import Condition, code_of, kinded_at, parsed
from embedq_store.freshness import NOTHING, Stamp, kept_until, read_stamp
from embedq_store.narrowing import narrowed
from embedq_store.shortlist import Mask

Rowids: TypeAlias = npt.NDArray[np.int64]
Codes: TypeAlias = npt.NDArray[np.uint32]

_READ_ROWS: Final = 8192

# Four bytes a row each. The one that was used longest ago makes room.
KEYS: Final = 8


class Columns:
    """The columns of one collection, each aligned with the rows that a search holds. Not safe for concurrent use."""

    def __init__(self, db: aiosqlite.Connection, collection_id: int) -> None:
        self._db = db
        self._collection_id = collection_id
        self._rowids: Rowids = np.empty(0, dtype=np.int64)
        self._codes: dict[str, Codes] = {}
        self._seen: tuple[int, int] | None = None
        self._stamp: Stamp | None = None
        self._changes: int | None = None

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

    async def look_through(self, conditions: Sequence[Condition], rowids: Rowids) -> Mask:
        """Which of the rows `rowids` meet the conditions, without columns: SQLite says which of them to look at."""
        mask = np.zeros(len(rowids), dtype=np.bool_)
        text, values = narrowed(conditions)
        after, more = NOTHING, len(rowids) > 0
        while more:
            rows = list(
                await self._db.execute_fetchall(
                    "SELECT rowid, metadata FROM embeddings WHERE +collection_id = ? AND rowid > ? AND rowid <= ?"  # noqa: S608 - question marks
                    f" AND metadata IS NOT NULL AND {text} ORDER BY rowid LIMIT ?",
                    (self._collection_id, after, int(rowids[-1]), *values, _READ_ROWS),
                )
            )
            meeting = [int(row[0]) for row in rows if all(one.keeps(parsed(row[1])) for one in conditions)]
            places = np.searchsorted(rowids, meeting)
            mask[places[rowids[places] == meeting]] = True
            more = len(rows) == _READ_ROWS
            after = int(rows[-1][0]) if more else after
        return mask

    async def _column(self, key: str) -> Codes:
        column = self._codes.pop(key, None)
        if column is None:
            column = (await self._read([key], self._rowids, NOTHING))[0]
            while len(self._codes) >= KEYS:
                del self._codes[next(iter(self._codes))]
        self._codes[key] = column  # the last one used is the last to go
        return column

    async def _refresh(self, rowids: Rowids) -> None:
        """Bring all columns up to date, and in line with `rowids`."""
        versions = await self._db.execute_fetchall("PRAGMA data_version")
        seen = (next(int(row[0]) for row in versions), self._db.total_changes)
        if seen == self._seen and rowids is self._rowids:
            return
        if seen != self._seen:
            stamp, changes = await read_stamp(self._db, self._collection_id), await self._count_changes()
            until = await kept_until(self._db, self._stamp, stamp)
            if changes is None or changes != self._changes:
                until = NOTHING
            self._stamp, self._changes = stamp, changes
            self._cut(int(np.searchsorted(self._rowids, until, side="right")))
        self._seen = seen
        await self._align(rowids)

    def _cut(self, count: int) -> None:
        """Know only the first `count` rows."""
        self._rowids = self._rowids[:count]
        self._codes = {key: column[:count] for key, column in self._codes.items()} if count else {}

    async def _align(self, rowids: Rowids) -> None:
        """Hold columns of `rowids`, of what is known where it is, and read the rest."""
        known = int(np.searchsorted(rowids, self._rowids[-1], side="right")) if len(self._rowids) else 0
        if self._codes and not np.array_equal(self._rowids, rowids[:known]):
            # The rows held have been read anew, without those that are gone.
            places = np.searchsorted(self._rowids, rowids[:known])
            if np.array_equal(self._rowids[places], rowids[:known]):
                self._codes = {key: column[places] for key, column in self._codes.items()}
            else:
                self._codes.clear()
        if self._codes and known < len(rowids):
            new = await self._read(list(self._codes), rowids[known:], int(rowids[known - 1]) if known else NOTHING)
            self._codes = {
                key: np.concatenate((column, more))
                for (key, column), more in zip(self._codes.items(), new, strict=True)
            }
        self._rowids = rowids

    async def _count_changes(self) -> int | None:
        """How often metadata was changed in place; None where that is not counted."""
        found = await self._db.execute_fetchall(
            "SELECT count(*) FROM sqlite_master WHERE name IN ('embedq_metadata_changes', 'embedq_metadata_updated')"
        )
        if next(int(row[0]) for row in found) != len(("the counter", "the trigger")):
            return None
        rows = await self._db.execute_fetchall(
            "SELECT changes FROM embedq_metadata_changes WHERE collection_id = ?", (self._collection_id,)
        )
        return next((int(row[0]) for row in rows), 0)

    async def _read(self, keys: Sequence[str], rowids: Rowids, after: int) -> list[Codes]:
        """The columns of `keys` for `rowids`, all of which are beyond `after`; rows that are gone have nothing."""
        columns = [np.zeros(len(rowids), dtype=np.uint32) for _ in keys]
        more = len(rowids) > 0
        while more:
            # The plus sign keeps SQLite from sorting all rows of the collection for each page of them.
            rows = await self._db.execute_fetchall(
                "SELECT rowid, metadata FROM embeddings WHERE +collection_id = ? AND rowid > ? AND rowid <= ?"
                " AND metadata IS NOT NULL ORDER BY rowid LIMIT ?",
                (self._collection_id, after, int(rowids[-1]), _READ_ROWS),
            )
            read = [(int(row[0]), parsed(row[1])) for row in rows]
            found = np.fromiter((rowid for rowid, _ in read), dtype=np.int64, count=len(read))
            places = np.searchsorted(rowids, found)
            held = rowids[places] == found
            for key, column in zip(keys, columns, strict=True):
                codes = np.fromiter(
                    (code_of(kinded_at(metadata, key)) for _, metadata in read), dtype=np.uint32, count=len(read)
                )
                column[places[held]] = codes[held]
            more = len(read) == _READ_ROWS
            after = int(found[-1]) if more else after
        return columns
