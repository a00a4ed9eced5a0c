"""What remains right of rows that were read, given that anybody may have changed the file since.

Rows of a collection are read in the order of their rowids. What is read is described by a `Stamp`, taken *before*
the reading; a second stamp, taken later, tells up to which rowid all is still as it was read:

- A new or replaced row gets a rowid beyond the last one in the table. So it is beyond all rows that were read,
  unless the last rows of the table were deleted meanwhile: then rowids beyond the floor that was noted (by a trigger,
  in `embedq_tails`) may have been given out again, and those up to the floor were not.
- Rows that are changed in place are counted for their collection (`embedq_rewrites`).
- The schema's version changes when the file is vacuumed or a table made anew, which may change all rowids.

A row that was replaced or deleted may still be among those that were read: whoever uses one looks whether it is
there. What this relies on is that nobody chooses rowids, as no known program does.
"""

from dataclasses import dataclass
from typing import Final

import aiosqlite

from embedq_store.schema import COUNTING_TRIGGERS

NOTHING: Final = -(2**63)
EVERYTHING: Final = 2**63 - 1

# So many rows that are gone are never worth reading all others for.
_SPARE_ROWS: Final = 8192

_NEEDED: Final = (*COUNTING_TRIGGERS, "embedq_copies")


@dataclass(frozen=True, slots=True)
class Stamp:
    """A state of a collection, as far as it can be told without reading its rows.

    `schema` is the schema's version, `rewrites` counts changes in place, `tails` numbers deletions of the table's
    last row, `changes` counts deletions and changes in place.
    """

    schema: int
    rewrites: int
    tails: int
    changes: int


async def read_stamp(db: aiosqlite.Connection, collection_id: int) -> Stamp | None:
    """The stamp of a collection now. None in a file without embedq's triggers, where nothing is counted."""
    found = await db.execute_fetchall(
        "SELECT count(*) FROM sqlite_master WHERE"  # noqa: S608 - only question marks
        f" name IN ({','.join('?' * len(_NEEDED))})",
        _NEEDED,
    )
    if next(int(row[0]) for row in found) != len(_NEEDED):
        return None
    rows = await db.execute_fetchall(
        "SELECT schema_version, (SELECT rewrites FROM embedq_rewrites WHERE collection_id = ?1),"
        " (SELECT max(number) FROM embedq_tails), (SELECT changes FROM embedq_changes WHERE collection_id = ?1)"
        " FROM pragma_schema_version",
        (collection_id,),
    )
    return next(Stamp(*(int(value or 0) for value in row)) for row in rows)


async def kept_until(db: aiosqlite.Connection, then: Stamp | None, now: Stamp | None) -> int:
    """Of rows read after `then` was taken, those up to this rowid are as they were; `now` was taken last.

    NOTHING and EVERYTHING are the bounds.
    """
    if then is None or now is None or (then.schema, then.rewrites) != (now.schema, now.rewrites):
        return NOTHING
    if then.tails == now.tails:
        return EVERYTHING
    # Floors rise with their numbers: the first since then is the lowest.
    rows = await db.execute_fetchall(
        "SELECT floor FROM embedq_tails WHERE number > ? ORDER BY number LIMIT 1", (then.tails,)
    )
    return next((int(row[0]) for row in rows), NOTHING)


def may_be_half_gone(size: int, compact_size: int, deleted: int) -> bool:
    """Whether half of `size` rows or more may be gone, of which `compact_size` were there when that was last known.

    `deleted` were counted since. Replaced rows are not counted, but leave their old places behind: so it is known
    again at each doubling.
    """
    return (size - compact_size) + 2 * deleted > compact_size + _SPARE_ROWS


def is_half_gone(size: int, there: int) -> bool:
    """Whether of `size` rows held so few are left, if `there` is how many there are, that all are to be read anew."""
    return size > 2 * there + _SPARE_ROWS
