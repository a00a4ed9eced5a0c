"""Removing collections some rows at a time, so that nobody waits long for the lock.

A collection that goes first loses its name, for `NAME@removing-KEY`, and is noted; what is left of its rows when the
process ends is removed by the next that looks. Everything here runs in the thread of the connection that writes.
"""

import sqlite3
import time
from typing import Final

from embedq_core.collection_names import removing_name

# Rows that are removed in one statement, and for how long this goes on in one transaction: where ids are in no order, a
# row more is some pages more, and thousands took seconds.
_REMOVED_ROWS: Final = 1024
_REMOVING_SECONDS: Final = 0.2


def begin(db: sqlite3.Connection, key: int) -> None:
    """Delete a collection, with its first rows. If there are more, they are under another name from now on.

    For whoever asks, it is gone: the triggers on deleting a collection have fired.
    """
    found = db.execute("SELECT name, model FROM collections WHERE id = ?", (key,)).fetchone()
    if found is None:
        return
    name, model = found
    db.execute("DELETE FROM collections WHERE id = ?", (key,))
    # The key stays taken until the last row is gone: another collection would have the rows, too.
    db.execute("INSERT INTO collections (id, name, model) VALUES (?, ?, ?)", (key, removing_name(name, key), model))
    db.execute("INSERT OR REPLACE INTO embedq_removals (collection_id, began) VALUES (?, ?)", (key, time.time()))
    remove_some(db, key)


def remove_some(db: sqlite3.Connection, key: int) -> int:
    """Remove some rows of a collection that goes, and after the last of them the collection; how many.

    0 where nothing is left to do: others may have done it, and the key may be another collection's by now.
    """
    name = db.execute("SELECT name FROM collections WHERE id = ?", (key,)).fetchone()
    if name is None or not name[0].endswith(removing_name("", key)):
        _forget(db, key)
        return 0
    sql = "DELETE FROM embeddings WHERE rowid IN (SELECT rowid FROM embeddings WHERE collection_id = ? LIMIT ?)"
    removed, some, until = 0, _REMOVED_ROWS, time.monotonic() + _REMOVING_SECONDS
    while some == _REMOVED_ROWS:
        some = db.execute(sql, (key, _REMOVED_ROWS)).rowcount
        removed += some
        if time.monotonic() > until:
            break
    if some < _REMOVED_ROWS:
        db.execute("DELETE FROM collections WHERE id = ?", (key,))
        _forget(db, key)
    return removed


def _forget(db: sqlite3.Connection, key: int) -> None:
    db.execute("DELETE FROM embedq_removals WHERE collection_id = ?", (key,))
    db.execute("UPDATE embedq_reembeddings SET removing = NULL WHERE removing = ?", (key,))


def removals(db: sqlite3.Connection) -> list[int]:
    """Keys of collections whose rows are being removed, or were to be when a process died."""
    rows = db.execute(
        "SELECT collection_id FROM embedq_removals"
        " UNION SELECT removing FROM embedq_reembeddings WHERE removing IS NOT NULL"
    )
    return [int(row[0]) for row in rows]
