"""Asking golden queries of a collection's old vectors and of its new ones, each with the model that made them."""

from collections.abc import Sequence
from typing import Final

from embedq_core.errors import ModelMisconfigured, ModelMismatch, SettingsError, UnknownModel
from embedq_core.model import query_count
from embedq_core.settings import Settings
from embedq_plugins import EmbeddingModel, get_embedding_model, require_library
from embedq_store import Reembedding, Store, query_vectors
from embedq_worker.golden import GoldenQuery, Verdict, judge, parse_golden

# Why queries can't be made for old vectors any more: no plugin, library or key for their model, or it is another now.
OLD_MODEL_IS_GONE: Final = (UnknownModel, SettingsError, ModelMisconfigured, ModelMismatch)


def usable_model(model_id: str) -> EmbeddingModel:
    """The model, known to be callable as far as that can be told without a call.

    Raises UnknownModel, SettingsError, MissingLibrary, ModelMisconfigured.
    """
    model = get_embedding_model(model_id)
    require_library(model)
    model.check_setup()
    return model


async def check(reembedding: Reembedding, settings: Settings) -> Verdict:
    """Whether the new vectors pass the golden queries of a re-embedding. The old ones are asked where their model can
    be had still; where it can't, and nothing says which recall is required, they don't pass.

    The store that is searched is one of its own: what a search holds in memory goes with it.
    """
    queries = parse_golden(reembedding.golden or "", "the golden file")
    async with await Store.open(
        settings.database, read_only=True, busy_seconds=settings.busy_seconds, search_bytes=settings.search_bytes
    ) as store:
        new = await _answers(store, reembedding.shadow, reembedding, usable_model(reembedding.new_model), queries)
        try:
            model = usable_model(reembedding.old_model)
            old = await _answers(store, reembedding.source, reembedding, model, queries)
        except OLD_MODEL_IS_GONE as error:
            if reembedding.recall is None:
                return Verdict(0.0, None, f"the old vectors can't be asked the golden queries: {error}")
            old = None
    return judge(queries, new, old, reembedding.recall)


async def _answers(
    store: Store, key: int, reembedding: Reembedding, model: EmbeddingModel, queries: Sequence[GoldenQuery]
) -> list[list[str]]:
    """The ids that are nearest to each of the queries, best first."""
    number = max(query.first for query in queries)
    found: list[list[str]] = []
    step = query_count(model)
    for start in range(0, len(queries), step):
        some = queries[start : start + step]
        vectors = await query_vectors(store, key, reembedding.collection, model, [query.query for query in some])
        answers = await store.search.similar_many(key, vectors, number)
        found += [[entry.id for entry in entries] for entries in answers]
    return found
