"""The vectors of what is searched for, in the form that a collection was made for."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from embedq_core.configuration import check_querying
from embedq_core.model import Model, embed_queries
from embedq_store.store import Store

if TYPE_CHECKING:
    from embedq_core.vectors import Matrix


async def query_vectors(
    store: Store, collection_id: int, collection: str, model: Model, values: Sequence[str | bytes]
) -> "Matrix":
    """The vectors of `values`, in the query form that is recorded with a collection; shape (values, dimension).

    Raises ConfigurationMismatch where the model, as it is now, can't make vectors to compare with those stored.
    """
    recorded = await store.configuration(collection_id)
    if recorded is not None:
        by_prefix = model.queries_by_prefix
        check_querying(collection, model.model_id, recorded, model.configuration, by_prefix=by_prefix)
    return await asyncio.to_thread(embed_queries, model, values, recorded)
