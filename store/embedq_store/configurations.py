"""With which configuration of its model a collection was embedded: recorded with its first vectors, then compared."""

import aiosqlite

from embedq_core.configuration import (
    UNRECORDED,
    Configuration,
    check_writing,
    configuration_from,
    configuration_text,
)


async def recorded_configuration(db: aiosqlite.Connection, collection_id: int) -> Configuration | None:
    """The configuration that is recorded with a collection; None where none is, as in a file of `llm`'s."""
    tables = await db.execute_fetchall("SELECT 1 FROM sqlite_master WHERE name = 'embedq_configurations'")
    return await _recorded(db, collection_id) if list(tables) else None


async def configuration_in_force(db: aiosqlite.Connection, collection_id: int) -> Configuration | None:
    """What vectors of a collection were made with, which new ones must be made with as well; None while it has none.

    Where nothing is recorded, another tool embedded the texts as they stood.
    """
    if not await _has_vectors(db, collection_id):
        return None
    recorded = await recorded_configuration(db, collection_id)
    return UNRECORDED if recorded is None else recorded


async def must_be_recorded(
    db: aiosqlite.Connection, collection_id: int, collection: str, model_id: str, present: Configuration
) -> bool:
    """Whether `present` is to be recorded with the vectors that are about to be written.

    Raises ConfigurationMismatch where they must not stand beside those that are there. Within their transaction.
    """
    recorded = await _recorded(db, collection_id)
    if recorded == present:
        return False
    if await _has_vectors(db, collection_id):
        check_writing(collection, model_id, UNRECORDED if recorded is None else recorded, present)
    return True


async def record(db: aiosqlite.Connection, collection_id: int, configuration: Configuration) -> None:
    """Record the configuration of a collection."""
    await db.execute(
        "INSERT OR REPLACE INTO embedq_configurations (collection_id, configuration) VALUES (?, ?)",
        (collection_id, configuration_text(configuration)),
    )


async def _recorded(db: aiosqlite.Connection, collection_id: int) -> Configuration | None:
    rows = await db.execute_fetchall(
        "SELECT configuration FROM embedq_configurations WHERE collection_id = ?", (collection_id,)
    )
    return next((configuration_from(row[0]) for row in rows), None)


async def _has_vectors(db: aiosqlite.Connection, collection_id: int) -> bool:
    rows = await db.execute_fetchall("SELECT 1 FROM embeddings WHERE collection_id = ? LIMIT 1", (collection_id,))
    return bool(list(rows))
