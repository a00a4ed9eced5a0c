"""Embedding values here and now, without the queue: what is new is embedded, and all of it written."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from embedq_core.errors import UsageError
from embedq_core.items import Item, metadata_text, unstorable
from embedq_core.model import Model, embed_all
from embedq_core.vectors import encode
from embedq_store.outcomes import Incoming, decide
from embedq_store.store import Store
from embedq_store.writes import Row, Target, Write

Metadata: TypeAlias = Mapping[str, Any] | None
Value: TypeAlias = str | bytes

DEFAULT_BATCH_SIZE: Final = 100


def checked_item(id_: str, value: Value, metadata: Metadata) -> Item:
    """What was given, as an item. Raises UsageError for what can't be stored."""
    if not isinstance(id_, str):
        raise UsageError(f"an id must be a str, not {type(id_).__name__}: {id_!r}")
    if not isinstance(value, str | bytes):
        raise UsageError(f"{id_!r}: a value must be str or bytes, not {type(value).__name__}")
    problem = unstorable(id_) or (unstorable(value) if isinstance(value, str) else None)
    if problem is not None:
        raise UsageError(f"{id_!r}: the value {problem}")
    return Item(id_, value, metadata_text(metadata))


async def embed_into(
    database: Store, name: str, model: Model, items: list[Item], *, store: bool, batch_size: int = DEFAULT_BATCH_SIZE
) -> bool:
    """Store `items` in the collection `name`, which is made with its first vectors; whether there were changes.

    The model is called for contents that the collection doesn't know; where it fails, nothing is written and no
    collection made. With `store` contents are kept beside their vectors. Raises what the model raises, BadVectors,
    ModelMismatch, ConfigurationMismatch.
    """
    incoming = Incoming.of(items)
    plan = decide(incoming, await database.known(name, incoming), store=store)
    rows = [Row(*incoming[index], vector) for index, vector in plan.reused]
    if plan.inputs:
        contents = [items[owners[0]].content for owners in plan.inputs.values()]
        step = min(batch_size, model.batch_size or batch_size)
        matrix = (await asyncio.to_thread(embed_all, model, contents, step)).matrix
        for vector, owners in zip(matrix, plan.inputs.values(), strict=True):
            blob = encode(vector)
            rows.extend(Row(*incoming[index], blob) for index in owners)
    updates = [incoming[index] for index in plan.updates]
    if not (rows or updates):
        return False
    await database.write(Write(Target(name, model.model_id, model.configuration), rows, updates, store=store))
    return True
