"""The switch of a collection to its new vectors, within one transaction of the caller's, and what becomes of the old.

Everything here runs in the thread of the connection that writes. Errors of ours come before anything is changed.
"""

import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from embedq_core.collection_names import removing_name
from embedq_core.errors import NotCovered, ReembeddingMissing, UsageError
from embedq_core.text import plural
from embedq_store import reembedding_records as records
from embedq_store.coverage import HELD_HASH, PAGE, Pair, compared, covered_page, with_hashes
from embedq_store.holding_back import let_go
from embedq_store.marks import Mark, since
from embedq_store.reembedding import Coverage, Reembedding, State
from embedq_store.standing import find_collection


def forward(record: Reembedding) -> Pair:
    """What the old vectors have, the new ones are to have."""
    return Pair(record.source, record.shadow, record.next_name, record.new_model, record.shadow)


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found of a pair of collections after `mark` was taken: how far the shadow covers the source, how many of
    its entries are to be brought up to date, and which ids were missing, or extra, where these were few.
    """

    mark: Mark
    coverage: Coverage
    outdated: int
    waiting: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether nothing has to be looked at within the switch but what was waiting, and what has come since."""
        figures = self.coverage
        done = not (self.outdated or figures.without_content)
        return done and len(self.waiting) == figures.missing + figures.extra

    def changed(self, db: sqlite3.Connection, pair: Pair) -> dict[str, object] | None:
        """The values of `CHANGED`; None where more has come since than is told there."""
        found = since(db, pair, self.mark)
        if found is None:
            return None
        return {"last": found.last, "logged": found.logged, "waiting": json.dumps(self.waiting)}


# --- forward


def switch(db: sqlite3.Connection, record: Reembedding, survey: Survey | None) -> tuple[Reembedding, int, float]:
    """Exchange names, so that the new vectors are the collection, where they cover it; else raise NotCovered.

    Returns the record, how many entries the new model could not embed, and the seconds that it took. What a `survey`
    has found is not looked at again, as far as it still holds. Raises ReembeddingMissing where the re-embedding has
    ended meanwhile.
    """
    began = time.monotonic()
    record = _still_open(db, record)
    pair = forward(record)
    changed = survey.changed(db, pair) if survey is not None and survey.usable else None
    check_covered(record, _coverage(db, pair) if changed is None else _coverage_of_changed(db, pair, changed))
    if changed is not None:
        bring_up_to_date(db, pair, CHANGED, changed)
    else:
        for values in ranges(db, pair):
            bring_up_to_date(db, pair, RANGE, values)
    db.execute("DELETE FROM embedq_reembedding_ids WHERE shadow = ?", (record.shadow,))
    dead = _note_dead(db, pair)
    rename(db, record.source, record.previous_name)
    rename(db, record.shadow, record.collection)
    let_go(db, record.collection)
    move_letters(db, record.collection, record.previous_name)
    move_letters(db, record.next_name, record.collection)
    record = records.change(db, record.key, state="switched", message=None, switched=time.time())
    return record, dead, time.monotonic() - began


def _still_open(db: sqlite3.Connection, record: Reembedding) -> Reembedding:
    record = records.by_key(db, record.key)
    check_open(record)
    for name, key in ((record.collection, record.source), (record.next_name, record.shadow)):
        found = find_collection(db, name)
        if found is None or found.id != key:
            raise ReembeddingMissing(
                f"{name!r} is another collection than the one that the re-embedding of {record.collection!r} began"
                f" with: cancel it with 'embedq reembed {record.collection} --cancel', and begin again"
            )
    if find_collection(db, record.previous_name) is not None:
        raise UsageError(
            f"there is a collection {record.previous_name!r}, the name for the vectors that are in use now: delete it"
        )
    return record


def check_open(record: Reembedding) -> None:
    """Raise ReembeddingMissing for one that has ended."""
    if not record.open:
        raise ReembeddingMissing(f"the re-embedding of {record.collection!r} has ended: it is {record.state}")


def check_covered(record: Reembedding, coverage: Coverage) -> None:
    """Raise NotCovered where the new vectors can't take the place of the old."""
    if not coverage.complete:
        count = coverage.missing + coverage.without_content
        raise NotCovered(
            f"{plural(count, 'entry', 'entries')} of {record.collection!r} still to be embedded with"
            f" {record.new_model}: nothing was switched"
        )


def _coverage(db: sqlite3.Connection, pair: Pair) -> Coverage:
    total, after = Coverage(), None
    while True:
        page, _, after = covered_page(db, pair, after)
        if after is None:
            return total
        total += page


# Queries for ids to be compared: of rows that were written since a mark, and of a part of a collection.
BEYOND: Final = "SELECT DISTINCT id FROM embeddings WHERE rowid > :last AND +collection_id IN (:source, :shadow)"
RANGE: Final = "SELECT id FROM embeddings WHERE collection_id = :walked AND id >= :first AND id <= :last"


# Of what a survey has to leave open: ids that were missing then, and those of rows that were written or deleted since.
CHANGED: Final = (
    f"{BEYOND} UNION SELECT value FROM json_each(:waiting)"  # noqa: S608 - put together from constants
    " UNION SELECT id FROM embedq_reembedding_deletions WHERE shadow = :new AND number > :logged"
)


def _coverage_of_changed(db: sqlite3.Connection, pair: Pair, changed: dict[str, object]) -> Coverage:
    row = db.execute(
        "SELECT coalesce(sum(class = 'missing'), 0), coalesce(sum(class = 'bare'), 0)"  # noqa: S608
        f" FROM ({compared(CHANGED)})",
        pair.values | changed,
    ).fetchone()
    return Coverage(missing=int(row[0]), without_content=int(row[1]))


def still_missing(db: sqlite3.Connection, pair: Pair, survey: Survey, limit: int) -> list[str]:
    """The first ids that a switch would be refused for by a survey that holds; none by one that does not."""
    changed = survey.changed(db, pair)
    if changed is None:
        return []
    rows = db.execute(
        f"SELECT id FROM ({compared(CHANGED)}) WHERE class = 'missing' LIMIT :limit",  # noqa: S608
        pair.values | changed | {"limit": limit},
    )
    return [str(row[0]) for row in rows]


def next_range(db: sqlite3.Connection, collection_id: int, after: str | None) -> dict[str, Any] | None:
    """The values of `RANGE` for the next ids of a collection, some thousand; None at the end."""
    row = db.execute(
        "SELECT min(id), max(id) FROM (SELECT id FROM embeddings WHERE collection_id = ?"  # noqa: S608
        f" AND id {'>=' if after is None else '>'} ? ORDER BY id LIMIT ?)",
        (collection_id, after or "", PAGE),
    ).fetchone()
    return None if row[1] is None else {"walked": collection_id, "first": row[0], "last": row[1]}


def ranges(db: sqlite3.Connection, pair: Pair) -> Iterator[dict[str, Any]]:
    """The values of `RANGE` for all ids of both collections."""
    for collection_id in (pair.source, pair.shadow):
        values = next_range(db, collection_id, None)
        while values is not None:
            yield values
            values = next_range(db, collection_id, values["last"])


def adjust_next(db: sqlite3.Connection, pair: Pair, collection_id: int, after: str | None) -> str | None:
    """Bring the shadow up to date in the next ids of one of the two collections; return the last id, None at the end.

    Done before the switch it leaves little to do within it.
    """
    values = next_range(db, collection_id, after)
    if values is None:
        return None
    bring_up_to_date(db, pair, RANGE, values)
    last: str = values["last"]
    return last


def bring_up_to_date(db: sqlite3.Connection, pair: Pair, candidates: str, values: dict[str, object]) -> int:
    """Of the shadow's entries among `candidates`, remove those that the source has no more, and give the others the
    metadata, and content that is missing, of the source's. Return how many were removed.
    """
    values = pair.values | values
    removed = db.execute(
        "DELETE FROM embeddings WHERE collection_id = :shadow"  # noqa: S608 - put together from constants
        f" AND id IN (SELECT id FROM ({compared(candidates)}) WHERE class = 'extra')",
        values,
    ).rowcount
    db.execute(
        "UPDATE embeddings SET (metadata, content, content_blob) = (SELECT s.metadata,"  # noqa: S608
        " CASE WHEN embeddings.content IS NULL AND embeddings.content_blob IS NULL THEN s.content"
        " ELSE embeddings.content END,"
        " CASE WHEN embeddings.content IS NULL AND embeddings.content_blob IS NULL THEN s.content_blob"
        " ELSE embeddings.content_blob END"
        " FROM embeddings s WHERE s.collection_id = :source AND s.id = embeddings.id)"
        " WHERE collection_id = :shadow"
        f" AND id IN (SELECT id FROM ({compared(candidates)}) WHERE class = 'outdated')",
        values,
    )
    return removed


def _note_dead(db: sqlite3.Connection, pair: Pair) -> int:
    """Note which entries the new model could not embed: the old vectors alone have them. Return how many."""
    with_hashes(db)
    letters = "SELECT DISTINCT id FROM embedq_dead WHERE collection = :letters"
    return db.execute(
        "INSERT INTO embedq_reembedding_ids (shadow, id, held)"  # noqa: S608 - put together from constants
        f" SELECT :new, c.id, {HELD_HASH} FROM ({compared(letters)}) c"
        " LEFT JOIN embeddings n ON n.rowid = c.shadow_row WHERE c.class = 'dead'",
        pair.values,
    ).rowcount


# --- what is kept beside


def absorb_letters(db: sqlite3.Connection, kept: str, collection: str) -> None:
    """Give dead letters of vectors that are about to go to the collection, as far as it doesn't have their items."""
    stored = (
        "EXISTS (SELECT 1 FROM collections JOIN embeddings s ON s.collection_id = collections.id"
        " WHERE collections.name = :target AND s.id = embedq_dead.id"
        " AND s.content IS embedq_dead.content AND s.content_blob IS embedq_dead.content_blob)"
    )
    db.execute(f"DELETE FROM embedq_dead WHERE collection = :kept AND {stored}", {"kept": kept, "target": collection})  # noqa: S608
    move_letters(db, kept, collection)


def begin_removal(db: sqlite3.Connection, record: Reembedding, key: int, state: State) -> Reembedding:
    """Take its name from a collection whose rows are to be removed: from now on it is nobody's."""
    rename(db, key, removing_name(record.collection, key))
    return records.change(db, record.key, state=state, removing=key)


def move_letters(db: sqlite3.Connection, origin: str, target: str, condition: str = "1", **values: object) -> None:
    """Put dead letters under the name of another collection."""
    values |= {"origin": origin, "target": target}
    # One that is there already is of the same item of the same chunk.
    db.execute(
        f"UPDATE OR IGNORE embedq_dead SET collection = :target WHERE collection = :origin AND {condition}",  # noqa: S608
        values,
    )
    db.execute(f"DELETE FROM embedq_dead WHERE collection = :origin AND {condition}", values)  # noqa: S608


def rename(db: sqlite3.Connection, key: int, name: str) -> None:
    """Give a collection another name."""
    db.execute("UPDATE collections SET name = ? WHERE id = ?", (name, key))
