"""The way back from new vectors to old ones, within one transaction of the caller's.

What came since the switch has no old vector, and is noted; what was deleted since, or got other metadata, is treated so
here too. Everything here runs in the thread of a connection; errors of ours come before anything is changed.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from embedq_core.errors import ReembeddingMissing, UsageError
from embedq_store import reembedding_records as records
from embedq_store.coverage import HELD_HASH, PAGE, Pair, compared, newcomers_page, with_hashes
from embedq_store.marks import Mark
from embedq_store.reembedding import Reembedding, RolledBack
from embedq_store.standing import find_collection
from embedq_store.switching import BEYOND, RANGE, bring_up_to_date, move_letters, next_range, ranges, rename


def backward(record: Reembedding, letters: str) -> Pair:
    """What the new vectors have, the old ones are to have, whose dead letters stand under the name `letters`."""
    return Pair(record.shadow, record.source, letters, record.old_model, record.shadow)


@dataclass(frozen=True, slots=True)
class Differences:
    """The ids in which two collections differed after `mark`."""

    mark: Mark
    ids: Sequence[str]


def differing_next(
    db: sqlite3.Connection, pair: Pair, collection_id: int, after: str | None
) -> tuple[list[str], str | None]:
    """Which of the next ids of one of the two collections differ, and the last that was looked at; None at the end."""
    values = next_range(db, collection_id, after)
    if values is None:
        return [], None
    rows = db.execute(
        f"SELECT id FROM ({compared(RANGE)}) WHERE class NOT IN ('covered', 'gone')",  # noqa: S608 - from constants
        pair.values | values,
    )
    return [row[0] for row in rows], values["last"]


def roll_back(db: sqlite3.Connection, collection: str, known: Differences | None) -> RolledBack:
    """Exchange names back: the old vectors are the collection again, and hold what they held, less what was deleted.

    The new vectors are kept. Ids that are `known` to be all that differed are not sought again, as far as that still
    holds. Raises ReembeddingMissing where no switch can be undone, UsageError while another re-embedding is going on.
    """
    began = time.monotonic()
    record = undoable(db, collection)
    pair = backward(record, record.previous_name)
    removed = 0
    with_hashes(db)
    for candidates, values in list(_candidates(db, pair, known)):
        # Under another key meanwhile: what is noted there is read by the comparison.
        db.execute(
            "INSERT OR REPLACE INTO embedq_reembedding_ids (shadow, id, held)"  # noqa: S608 - put together from constants
            f" SELECT -:new, c.id, {HELD_HASH} FROM ({compared(candidates)}) c"
            " LEFT JOIN embeddings n ON n.rowid = c.shadow_row WHERE c.class IN ('missing', 'bare', 'dead')",
            pair.values | values,
        )
        removed += bring_up_to_date(db, pair, candidates, values)
    db.execute("DELETE FROM embedq_reembedding_ids WHERE shadow = ?", (record.shadow,))
    db.execute("UPDATE embedq_reembedding_ids SET shadow = ? WHERE shadow = ?", (record.shadow, -record.shadow))
    rename(db, record.shadow, record.next_name)
    rename(db, record.source, record.collection)
    # Letters of the new model stay where the old vectors lack their items: nobody would look for them elsewhere.
    held = (
        "EXISTS (SELECT 1 FROM embeddings s WHERE s.collection_id = :key AND s.id = embedq_dead.id"
        " AND s.content IS embedq_dead.content AND s.content_blob IS embedq_dead.content_blob)"
    )
    move_letters(db, record.collection, record.next_name, held, key=record.source)
    letters = db.execute("SELECT count(*) FROM embedq_dead WHERE collection = ?", (record.collection,)).fetchone()[0]
    move_letters(db, record.previous_name, record.collection)
    record = records.change(db, record.key, state="rolled back", message=None)
    return RolledBack(record, *count_newcomers(db, record), removed, int(letters), time.monotonic() - began)


def _candidates(
    db: sqlite3.Connection, pair: Pair, known: Differences | None
) -> Iterator[tuple[str, dict[str, object]]]:
    """Queries for the ids that may differ, with their values."""
    if known is None or not known.mark.differs_in_rows_alone(Mark.of(db, pair)):
        yield from ((RANGE, values) for values in ranges(db, pair))
        return
    for start in range(0, len(known.ids), PAGE):
        yield "SELECT value AS id FROM json_each(:ids)", {"ids": json.dumps(known.ids[start : start + PAGE])}
    yield BEYOND, {"last": known.mark.last_row}


def count_newcomers(db: sqlite3.Connection, record: Reembedding) -> tuple[int, int]:
    """How many entries came while the new vectors were in use, and are still to be embedded with the old model; and of
    how many of these there is no content.
    """
    pair, count, bare, after = backward(record, record.collection), 0, 0, None
    while True:
        sized, after = newcomers_page(db, pair, after)
        if after is None:
            return count, bare
        count, bare = count + len(sized), bare + sum(size < 0 for _, size in sized)


def undoable(db: sqlite3.Connection, collection: str) -> Reembedding:
    """The record of the switch that a rollback would undo. Raises UsageError, ReembeddingMissing."""
    current = records.open_record(db, collection)
    if current is not None:
        raise UsageError(
            f"{collection!r} is being embedded anew with {current.new_model}: cancel that first with"
            f" 'embedq reembed {collection} --cancel'"
        )
    record = records.kept_after_switch(db, collection)
    found = find_collection(db, collection)
    if record is None or found is None or found.id != record.shadow:
        raise ReembeddingMissing(f"no earlier vectors of {collection!r} are kept: there is no switch to undo")
    if find_collection(db, record.next_name) is not None:
        raise UsageError(f"there is a collection {record.next_name!r}, the name for the vectors in use now: delete it")
    return record
