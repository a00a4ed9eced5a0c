"""Which of the rows held a filtered search has to look at, and what it costs to know.

Where a filter keeps most rows, the nearest of all rows are looked at one after the other until enough of them are
kept: that costs next to nothing and needs no preparation. Where it keeps few, that would be long, and it pays to know
which they are: of a prefix SQLite's index tells, of metadata the columns. To make a column, all metadata is read once;
a process that asks once only, such as a command, may never need it.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import aiosqlite
import numpy as np

from embedq_store.columns import KEYS, Columns, Rowids
from embedq_store.filters import Condition, Filter
from embedq_store.ranges import with_prefix
from embedq_store.shortlist import Mask, Places

# A gathered row costs as much as a good many rows in a row: below this share of rows it still is cheaper.
FEW: Final = 1 / 16

_PREFIXES: Final = 16


class Selector:
    """What is known of the filters of one collection. Not safe for concurrent use."""

    def __init__(self, db: aiosqlite.Connection, collection_id: int) -> None:
        self._db = db
        self._collection_id = collection_id
        self._columns = Columns(db, collection_id)
        self._rowids: Rowids = np.empty(0, dtype=np.int64)
        self._seen: tuple[int, int] | None = None
        # None for a prefix that more than a few rows have.
        self._prefixes: OrderedDict[str, Mask | None] = OrderedDict()
        # Which rows meet conditions that SQLite looked for, and the keys of these: the next time a column is worth it.
        self._met: dict[tuple[Condition, ...], Mask] = {}
        self._looked_for: set[str] = set()
        self._wanted_keys: set[str] = set()
        self._wanted_prefixes: set[str] = set()

    async def known(self, filter_: Filter, rowids: Rowids) -> tuple[Mask | None, bool]:
        """Which of the rows `rowids` the filter may keep as far as that is cheaply known, and whether that is all.

        None stands for all rows.
        """
        await self._follow(rowids)
        mask = None
        if filter_.prefix:
            mask = await self._with_prefix(filter_.prefix, in_any_case=filter_.prefix in self._wanted_prefixes)
        complete = mask is not None or not filter_.prefix
        conditions = list(filter_.conditions)
        if filter_.conditions not in self._met:
            conditions = [one for one in conditions if one.key in self._wanted_keys or self._columns.holds(one)]
        mask = await self._meeting(conditions, mask)
        return mask, complete and len(conditions) == len(filter_.conditions)

    async def all(self, filter_: Filter, rowids: Rowids) -> Mask | None:
        """Which of the rows `rowids` the filter may keep; None stands for all rows."""
        await self._follow(rowids)
        mask = await self._with_prefix(filter_.prefix, in_any_case=True) if filter_.prefix else None
        return await self._meeting(filter_.conditions, mask)

    def want(self, filter_: Filter) -> None:
        """Know this filter from the next time on: it took long to find what it keeps."""
        self._wanted_keys.update(condition.key for condition in filter_.conditions)
        self._wanted_prefixes.add(filter_.prefix)
        if len(self._wanted_keys) > KEYS:
            self._wanted_keys.pop()
        if len(self._wanted_prefixes) > _PREFIXES:
            self._wanted_prefixes.pop()

    async def _follow(self, rowids: Rowids) -> None:
        """Forget what is known of prefixes when anything has changed: it is soon known again."""
        versions = await self._db.execute_fetchall("PRAGMA data_version")
        seen = (next(int(row[0]) for row in versions), self._db.total_changes)
        same = np.array_equal(self._rowids, rowids)
        if seen != self._seen or not same:
            self._prefixes.clear()
            self._met.clear()
        if not same:
            self._rowids = rowids.copy()
        self._seen = seen

    async def _meeting(self, conditions: Sequence[Condition], mask: Mask | None) -> Mask | None:
        if not conditions:
            return mask
        meeting = self._met.get(tuple(conditions))
        if meeting is None:
            columns = self._wanted_keys | self._looked_for
            if all(one.key in columns or self._columns.holds(one) for one in conditions):
                meeting = await self._columns.mask(conditions, self._rowids)
            else:
                meeting = await self._columns.look_through(conditions, self._rowids)
                self._met[tuple(conditions)] = meeting
                if len(self._met) > KEYS:
                    del self._met[next(iter(self._met))]
                self._looked_for.update(one.key for one in conditions)
        return meeting if mask is None else meeting & mask

    async def _with_prefix(self, prefix: str, *, in_any_case: bool) -> Mask | None:
        """Which rows have ids with `prefix`; None where they are not few, unless it is to be known `in_any_case`."""
        if prefix in self._prefixes and (self._prefixes[prefix] is not None or not in_any_case):
            self._prefixes.move_to_end(prefix)
            return self._prefixes[prefix]
        mask = None
        if in_any_case or await self._are_few(prefix):
            condition, bounds = self._range(prefix)
            rows = await self._db.execute_fetchall(f"SELECT rowid {condition}", bounds)
            found = np.fromiter((row[0] for row in rows), dtype=np.int64)
            found.sort()
            # Of a row that isn't held, this is the place of the next one: whoever answers looks again.
            mask = np.zeros(len(self._rowids) + 1, dtype=np.bool_)
            mask[np.searchsorted(self._rowids, found)] = True
            mask = mask[:-1]
        self._prefixes[prefix] = mask
        if len(self._prefixes) > _PREFIXES:
            self._prefixes.popitem(last=False)
        return mask

    async def _are_few(self, prefix: str) -> bool:
        condition, bounds = self._range(prefix)
        limit = int(len(self._rowids) * FEW)
        return not list(await self._db.execute_fetchall(f"SELECT 1 {condition} LIMIT 1 OFFSET {limit}", bounds))

    def _range(self, prefix: str) -> tuple[str, tuple[int | str, ...]]:
        """The part of a statement that says which rows have `prefix`, for SQLite's index of ids, and its values."""
        condition, bounds = with_prefix(prefix)
        return f"FROM embeddings WHERE collection_id = ? AND {condition}", (self._collection_id, *bounds)


def gathered(mask: Mask | None) -> Places | None:
    """The places of the rows in `mask` where they are few enough to be gathered, else None."""
    if mask is None or np.count_nonzero(mask) > FEW * len(mask):
        return None
    return np.flatnonzero(mask)
