"""The rows of `embedq_reembeddings`: read, begun, changed. Everything here runs in the thread of a connection."""

import sqlite3
from typing import Any, Final

from embedq_core.collection_names import base_name, removing_name
from embedq_store.reembedding import Moved, Reembedding, Role, State, next_name, previous_name

_COLUMNS: Final = (
    "key, collection, source, shadow, old_model, new_model, golden, recall, drop_old, run, state, message, started,"
    " switched"
)
_OPEN: Final = "state IN ('embedding', 'stopped')"


def is_recorded(db: sqlite3.Connection) -> bool:
    """Whether the file has the table at all: one that was opened for reading may be an older one, or another tool's."""
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'embedq_reembeddings'").fetchone() is not None


def select(db: sqlite3.Connection, condition: str, *values: object) -> list[Reembedding]:
    """The records for which `condition` holds, the latest first."""
    if not is_recorded(db):
        return []
    sql = f"SELECT {_COLUMNS} FROM embedq_reembeddings WHERE {condition} ORDER BY key DESC"  # noqa: S608 - our words
    return [_record(row) for row in db.execute(sql, values)]


def _record(row: tuple[Any, ...]) -> Reembedding:
    values: dict[str, Any] = dict(zip(_COLUMNS.split(", "), row, strict=True))
    return Reembedding(**values | {"drop_old": bool(values["drop_old"])})


def by_key(db: sqlite3.Connection, key: int) -> Reembedding:
    """The record with this key, which exists."""
    return select(db, "key = ?", key)[0]


def all_records(db: sqlite3.Connection) -> list[Reembedding]:
    """All records, the latest first."""
    return select(db, "1")


def open_records(db: sqlite3.Connection) -> list[Reembedding]:
    """Those that are going on or have stopped."""
    return select(db, _OPEN)


def latest(db: sqlite3.Connection, collection: str) -> Reembedding | None:
    """The last record of a collection."""
    return next(iter(select(db, "collection = ?", collection)), None)


def current(db: sqlite3.Connection) -> dict[str, Reembedding]:
    """The record that says how each collection stands: one that is open, else one whose other vectors are kept, though
    a later one was cancelled since; else the last.
    """
    found: dict[str, Reembedding] = {}
    for record in sorted(all_records(db), key=lambda each: (each.open, each.keeps_others, each.key), reverse=True):
        found.setdefault(record.collection, record)
    return found


def open_record(db: sqlite3.Connection, collection: str) -> Reembedding | None:
    """The record of a collection that is going on or has stopped."""
    return next(iter(select(db, f"collection = ? AND {_OPEN}", collection)), None)


def kept_after_switch(db: sqlite3.Connection, collection: str) -> Reembedding | None:
    """The record whose old vectors are kept as `NAME@previous`."""
    return _beside(db, collection, "switched", "source", previous_name(collection))


def kept_after_rollback(db: sqlite3.Connection, collection: str) -> Reembedding | None:
    """The record whose new vectors are kept as `NAME@next`, and are not in use by a later one."""
    if open_record(db, collection) is not None:
        return None
    return _beside(db, collection, "rolled back", "shadow", next_name(collection))


def _beside(db: sqlite3.Connection, collection: str, state: State, column: str, name: str) -> Reembedding | None:
    found = select(
        db,
        f"collection = ? AND state = ? AND {column} = (SELECT id FROM collections WHERE name = ?)",  # noqa: S608
        collection,
        state,
        name,
    )
    return next(iter(found), None)


def insert(db: sqlite3.Connection, record: Reembedding) -> Reembedding:
    """Write a new record, whose key is not looked at; return it with its own."""
    cursor = db.execute(
        "INSERT INTO embedq_reembeddings (collection, source, shadow, old_model, new_model, golden, recall, drop_old,"
        " run, state, message, started, switched) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.collection,
            record.source,
            record.shadow,
            record.old_model,
            record.new_model,
            record.golden,
            record.recall,
            record.drop_old,
            record.run,
            record.state,
            record.message,
            record.started,
            record.switched,
        ),
    )
    return by_key(db, int(cursor.lastrowid or 0))


def change(db: sqlite3.Connection, key: int, **values: object) -> Reembedding:
    """Change columns of a record, and return it. The names of columns are the caller's own words."""
    places = ", ".join(f"{name} = ?" for name in values)
    db.execute(f"UPDATE embedq_reembeddings SET {places} WHERE key = ?", (*values.values(), key))  # noqa: S608
    return by_key(db, key)


def roles(db: sqlite3.Connection) -> dict[str, Role]:
    """What the collections are that stand beside others, by their names."""
    found: dict[str, Role] = {}
    if not is_recorded(db):
        return found
    names = {int(row[0]): str(row[1]) for row in db.execute("SELECT id, name FROM collections")}
    for record in reversed(all_records(db)):
        since = record.switched or record.started
        for key in (record.source, record.shadow):
            name = names.get(key)
            if name == record.next_name and (record.open or record.state == "rolled back"):
                found[name] = Role(record.collection, "next", record.state, since)
            elif name == record.previous_name and record.state == "switched":
                found[name] = Role(record.collection, "previous", record.state, since)
            elif name == removing_name(record.collection, key):
                found[name] = Role(record.collection, "removing", record.state, since)
    return found | _removed(db, names)


def _removed(db: sqlite3.Connection, names: dict[int, str]) -> dict[str, Role]:
    """The collections that were deleted, and of which rows are left. A file that is only read may be of before."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'embedq_removals'").fetchone() is None:
        return {}
    return {
        name: Role(name.removesuffix(removing_name("", key)), "removing", "dropped", began)
        for key, began in db.execute("SELECT collection_id, began FROM embedq_removals")
        if (name := names.get(key, "")).endswith(removing_name("", key))
    }


def moved(db: sqlite3.Connection, collection: str, model_id: str) -> Moved | None:
    """Where a chunk for `collection` and `model_id` belongs that does not belong there any more; None: nowhere else.

    To be asked where there is no such collection with this model, or its name is that of one beside another: for all
    others it need not be asked.
    """
    if not is_recorded(db):
        return None
    base = base_name(collection)
    name = collection if base is None else base
    present = db.execute("SELECT model FROM collections WHERE name = ?", (name,)).fetchone()
    records = select(db, "collection = ?", name)
    if base is not None and collection == next_name(base):
        if any(record.open and record.new_model == model_id for record in records):
            return None
        # Its items are copies of what the collection held then. What it holds now may be newer, and was covered.
        return Moved(None, None) if any(record.new_model == model_id for record in records) else None
    if present is None or (base is None and present[0] == model_id):
        return None
    switched = [record for record in records if record.switched is not None]
    if any(model_id in (record.old_model, record.new_model) for record in switched):
        return Moved(name, str(present[0]))
    return None
