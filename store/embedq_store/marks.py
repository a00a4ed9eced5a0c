"""States of the database, as far as they bear on two collections, and what has come since: new rows, deletions.

Like `embedq_store.freshness`, on whose counters it rests, but for whoever has to know which ids may differ.
"""

import sqlite3
from dataclasses import dataclass

from embedq_store.coverage import Pair


@dataclass(frozen=True, slots=True)
class Mark:
    """A state. Where a later one differs in `last_row` alone, rows beyond that are all that was written since.

    `tails` numbers deletions of the table's last row, `changes` counts deletions and changes in place, `logged` numbers
    the deletions of which the ids are kept, `counters` are all others.
    """

    last_row: int
    tails: int
    changes: int
    logged: int
    counters: tuple[float | None, ...]

    @classmethod
    def of(cls, db: sqlite3.Connection, pair: Pair) -> "Mark":
        """The state now; to be taken before what it is to describe is read."""
        row = db.execute(
            "SELECT coalesce((SELECT max(rowid) FROM embeddings), 0),"
            " coalesce((SELECT max(number) FROM embedq_tails), 0),"
            " coalesce((SELECT sum(changes) FROM embedq_changes WHERE collection_id IN (:source, :shadow)), 0),"
            " coalesce((SELECT max(number) FROM embedq_reembedding_deletions WHERE shadow = :new), 0),"
            " schema_version,"
            " (SELECT sum(rewrites) FROM embedq_rewrites WHERE collection_id IN (:source, :shadow)),"
            " (SELECT sum(changes) FROM embedq_metadata_changes WHERE collection_id IN (:source, :shadow)),"
            " (SELECT count(*) FROM embedq_dead WHERE collection = :letters),"
            " (SELECT sum(key * died) FROM embedq_dead WHERE collection = :letters)"
            " FROM pragma_schema_version",
            pair.values,
        ).fetchone()
        return cls(row[0], row[1], row[2], row[3], tuple(row[4:]))

    def differs_in_rows_alone(self, later: "Mark") -> bool:
        """Whether nothing but new rows has come since."""
        return (self.counters, self.tails, self.changes) == (later.counters, later.tails, later.changes)


@dataclass(frozen=True, slots=True)
class Since:
    """What has come since a mark: rows beyond `last`, and deletions, of which the ids are kept, beyond `logged`."""

    last: int
    logged: int


def since(db: sqlite3.Connection, pair: Pair, mark: Mark) -> Since | None:
    """What has come to two collections, of which the one is being embedded anew as the other, since a mark was taken;
    None where it was more than new rows and deletions.
    """
    now = Mark.of(db, pair)
    if now.counters != mark.counters:
        return None
    deleted = db.execute(
        "SELECT count(*) FROM embedq_reembedding_deletions WHERE shadow = ? AND number > ?", (pair.new, mark.logged)
    ).fetchone()[0]
    # Where a deletion was counted whose id is not kept, or something was changed in place.
    if now.changes - mark.changes != deleted:
        return None
    last = mark.last_row
    if now.tails != mark.tails:
        # Rowids beyond the last row that was left have been given out again. The first floor since is the lowest.
        floor = db.execute(
            "SELECT floor FROM embedq_tails WHERE number > ? ORDER BY number LIMIT 1", (mark.tails,)
        ).fetchone()
        if floor is None:
            return None
        last = min(last, int(floor[0]))
    return Since(last, mark.logged)
