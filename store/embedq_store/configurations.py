"""With which configuration of its model a collection was embedded: recorded with its first vectors, then compared."""

import aiosqlite

from embedq_core.configuration import (
    UNRECORDED,
    Configuration,
    check_writing,
    configuration_from,
    configuration_text,
)


async def configuration_in_force(
    db: aiosqlite.Connection, collection_id: int, *, may_be_recorded: bool
) -> Configuration | None:
    """What vectors of a collection were made with, which new ones must be made with as well; None while it has none.

    Where nothing is recorded, as nothing is in a file of `llm`'s, another tool embedded the texts as they stood.
    """
    recorded = "(SELECT configuration FROM embedq_configurations WHERE collection_id = ?1)"
    rows = await db.execute_fetchall(
        f"SELECT {recorded if may_be_recorded else 'NULL'} FROM embeddings WHERE collection_id = ?1 LIMIT 1",  # noqa: S608
        (collection_id,),
    )
    return next((UNRECORDED if row[0] is None else configuration_from(row[0]) for row in rows), None)


async def must_be_recorded(
    db: aiosqlite.Connection,
    target: str,
    model_id: str,
    collection_id: int,
    recorded: str | None,
    present: Configuration,
) -> bool:
    """Whether `present` is to be recorded with the vectors that are about to be written, in the place of `recorded`.

    Raises ConfigurationMismatch where they must not stand beside those that are there. Within their transaction.
    """
    if recorded == configuration_text(present):
        return False
    in_force = await configuration_in_force(db, collection_id, may_be_recorded=True)
    if in_force is not None:
        check_writing(target, model_id, in_force, present)
    return True


async def record(db: aiosqlite.Connection, collection_id: int, configuration: Configuration) -> None:
    """Record the configuration of a collection."""
    await db.execute(
        "INSERT OR REPLACE INTO embedq_configurations (collection_id, configuration) VALUES (?, ?)",
        (collection_id, configuration_text(configuration)),
    )
