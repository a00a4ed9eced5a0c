"""With which configuration of its model a collection was embedded: recorded with its first vectors, then compared."""

import sqlite3

from embedq_core.configuration import (
    UNRECORDED,
    Configuration,
    check_writing,
    configuration_from,
    configuration_text,
)


def configuration_in_force(db: sqlite3.Connection, collection_id: int) -> Configuration | None:
    """What vectors of a collection were made with, which new ones must be made with as well; None while it has none.

    Where nothing is recorded, as nothing is in a file of `llm`'s, another tool embedded the texts as they stood.
    """
    if db.execute("SELECT 1 FROM embeddings WHERE collection_id = ? LIMIT 1", (collection_id,)).fetchone() is None:
        return None
    text = _recorded(db, collection_id)
    return UNRECORDED if text is None else configuration_from(text)


def record(db: sqlite3.Connection, collection_id: int, collection: str, model_id: str, present: Configuration) -> None:
    """See that `present` is recorded with the vectors that are about to be written, within their transaction.

    Raises ConfigurationMismatch where they must not stand beside those that are there.
    """
    text = configuration_text(present)
    if _recorded(db, collection_id) == text:
        return
    in_force = configuration_in_force(db, collection_id)
    if in_force is not None:
        check_writing(collection, model_id, in_force, present)
    db.execute(
        "INSERT OR REPLACE INTO embedq_configurations (collection_id, configuration) VALUES (?, ?)",
        (collection_id, text),
    )


def _recorded(db: sqlite3.Connection, collection_id: int) -> str | None:
    table = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'embedq_configurations'")
    if table.fetchone() is None:
        return None
    sql = "SELECT configuration FROM embedq_configurations WHERE collection_id = ?"
    row = db.execute(sql, (collection_id,)).fetchone()
    return None if row is None else str(row[0])
