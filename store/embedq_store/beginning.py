"""How a re-embedding begins, and how one ends that leads to no switch: within a transaction of the caller's.

Everything but the checks runs in the thread of the connection that writes; errors come before anything is changed.
"""

import sqlite3
import time

from embedq_core.collection_names import REMOVING, base_name, is_being_removed
from embedq_core.errors import CollectionMissing, ReembeddingMissing, UsageError
from embedq_store import reembedding_records as records
from embedq_store.reembedding import Reembedding, next_name, previous_name
from embedq_store.rolling_back import count_newcomers
from embedq_store.standing import CollectionInfo, find_collection
from embedq_store.switching import absorb_letters, begin_removal, move_letters


def check_asked(found: CollectionInfo, model_id: str, *, force: bool) -> None:
    """Raise UsageError where it makes no sense to embed this collection anew with this model."""
    base = base_name(found.name)
    if base is not None:
        raise UsageError(
            f"{found.name!r} has the name of vectors that stand beside {base!r}: embed that anew, or rename this one"
        )
    if is_being_removed(found.name):
        # It would be paid for, and be nobody's when the last row is gone.
        raise UsageError(f"{found.name.rpartition(REMOVING)[0]!r} was deleted, and the rows in {found.name!r} go, too")
    if found.model_id == model_id and not force:
        raise UsageError(
            f"{found.name!r} is embedded with {model_id} already: name another model, or use --force to pay for all of"
            " it again"
        )


def shadow_to_use(db: sqlite3.Connection, collection: str, model_id: str) -> int | None:
    """The key of new vectors of this model that a rollback has kept; None where they are to be made.

    Raises UsageError where another collection has a name that is needed.
    """
    beside = find_collection(db, previous_name(collection))
    if beside is not None and records.kept_after_switch(db, collection) is None:
        raise _in_the_way(beside, collection)
    beside = find_collection(db, next_name(collection))
    if beside is None:
        return None
    kept = records.kept_after_rollback(db, collection)
    if kept is None:
        raise _in_the_way(beside, collection)
    if kept.new_model != model_id:
        raise UsageError(
            f"the vectors of {kept.new_model} that a rollback of {collection!r} kept as {beside.name!r} would be lost:"
            f" drop them first with 'embedq collections drop-old {collection}'"
        )
    return kept.shadow


def _in_the_way(beside: CollectionInfo, collection: str) -> UsageError:
    return UsageError(
        f"there is a collection {beside.name!r}, and its name is needed for vectors of {collection!r}: rename or delete"
        " it"
    )


def begin(db: sqlite3.Connection, found: CollectionInfo, model_id: str, options: dict[str, object]) -> Reembedding:
    """Write down that a collection is being embedded anew, or that it goes on, with `options` as columns."""
    collection = found.name
    current = records.open_record(db, collection)
    if current is not None:
        if current.new_model != model_id:
            raise UsageError(
                f"{collection!r} is being embedded anew with {current.new_model}: wait for that, or cancel it with"
                f" 'embedq reembed {collection} --cancel'"
            )
        return records.change(db, current.key, **options, state="embedding", message=None)
    if find_collection(db, collection) != found:
        raise CollectionMissing(f"the collection {collection!r} was changed by another program just now: try again")
    shadow = shadow_to_use(db, collection, model_id)
    if shadow is None:
        shadow = _new_key(db)
        db.execute(
            "INSERT INTO collections (id, name, model) VALUES (?, ?, ?)", (shadow, next_name(collection), model_id)
        )
    record = Reembedding(
        key=0,
        collection=collection,
        source=found.id,
        shadow=shadow,
        old_model=found.model_id,
        new_model=model_id,
        golden=None,
        recall=None,
        drop_old=False,
        run=None,
        state="embedding",
        message=None,
        started=time.time(),
        switched=None,
    )
    record = records.insert(db, record)
    return records.change(db, record.key, **options) if options else record


def _new_key(db: sqlite3.Connection) -> int:
    """A key that no collection has had that was embedded anew: SQLite gives out again that of the last one, and a
    program that has searched it would take the new one for it.
    """
    return int(
        db.execute(
            "SELECT max(coalesce((SELECT max(id) FROM collections), 0),"
            " coalesce((SELECT max(max(source, shadow)) FROM embedq_reembeddings), 0)) + 1"
        ).fetchone()[0]
    )


def stop(db: sqlite3.Connection, key: int, reason: str) -> Reembedding:
    """Note why it can't go on before somebody has looked at it; one that has ended is left as it is."""
    record = records.by_key(db, key)
    return records.change(db, key, state="stopped", message=reason) if record.open else record


def cancel(db: sqlite3.Connection, collection: str) -> Reembedding:
    """End a re-embedding; the collection whose rows are to be removed is noted, if there is one.

    New vectors that were there before it began are those of a rollback: they stay, and so does what is still to be
    queued since then. The record is one of a rollback then. Raises ReembeddingMissing.
    """
    record = records.open_record(db, collection)
    if record is None:
        raise ReembeddingMissing(f"{collection!r} is not being embedded anew: there is nothing to cancel")
    record = records.change(db, record.key, state="cancelled", message=None)
    kept = records.kept_after_rollback(db, collection)
    if kept is not None:
        return records.change(db, record.key, state=kept.state, switched=kept.switched)
    db.execute("DELETE FROM embedq_dead WHERE collection = ?", (record.next_name,))
    return begin_removal(db, record, record.shadow, "cancelled")


def drop(db: sqlite3.Connection, record: Reembedding) -> Reembedding:
    """Let go of what is kept beside a collection; raises ReembeddingMissing where it isn't any more."""
    present = records.by_key(db, record.key)
    if present.state != record.state:
        raise ReembeddingMissing(f"the other vectors of {record.collection!r} are gone: they were {present.state}")
    switched = record.state == "switched"
    absorb_letters(db, record.previous_name if switched else record.next_name, record.collection)
    return begin_removal(db, record, record.source if switched else record.shadow, "dropped")


def part_with(db: sqlite3.Connection, key: int) -> None:
    """End what is going on with a collection that is about to be deleted, and let go of what stands beside it.

    Dead letters of old vectors stay, under the name of the collection, as its own do. Raises UsageError for new vectors
    that a rollback has kept, while entries are nowhere else.
    """
    row = db.execute("SELECT name FROM collections WHERE id = ?", (key,)).fetchone()
    base = None if row is None else base_name(row[0])
    if base is not None:
        _part_beside(db, base, key)
    elif row is not None:
        _part_main(db, row[0], key)


def _part_beside(db: sqlite3.Connection, collection: str, key: int) -> None:
    current = records.open_record(db, collection) or records.kept_after_rollback(db, collection)
    if current is not None and current.shadow == key:
        if count_newcomers(db, current) != (0, 0):
            raise UsageError(
                f"entries are in {current.next_name!r} alone since the rollback of {collection!r}: when a worker has"
                f" embedded them with {current.old_model}, 'embedq collections drop-old {collection}' drops it"
            )
        if current.open:  # copies of what the collection holds, or held: as when it is cancelled
            db.execute("DELETE FROM embedq_dead WHERE collection = ?", (current.next_name,))
        else:
            absorb_letters(db, current.next_name, collection)
    kept = records.kept_after_switch(db, collection)
    if kept is not None and kept.source == key:
        absorb_letters(db, kept.previous_name, collection)


def _part_main(db: sqlite3.Connection, collection: str, key: int) -> None:
    current = records.open_record(db, collection)
    if current is not None and current.source == key:
        db.execute("DELETE FROM embedq_dead WHERE collection = ?", (current.next_name,))
        begin_removal(db, current, current.shadow, "cancelled")
    kept = records.kept_after_rollback(db, collection)
    if kept is not None and kept.source == key:
        move_letters(db, kept.next_name, collection)
        begin_removal(db, kept, kept.shadow, "dropped")
    kept = records.kept_after_switch(db, collection)
    if kept is not None:
        move_letters(db, kept.previous_name, collection)
        begin_removal(db, kept, kept.source, "dropped")
