"""embedq turns a corpus into searchable vectors: it loses nothing and pays for no text twice.

    import embedq

    phrases = embedq.Collection("phrases", "embeddings.db", model_id="hashing")
    phrases.embed_multi([("hound", "my happy hound"), ("cat", "my dissatisfied cat")], store=True)
    for entry in phrases.similar("a dog"):
        print(entry.id, entry.score)

Names are imported when they are first used: a program, or a plugin, that needs one of them pays for no other.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedq.collections import AsyncCollection, Collection
    from embedq_core.digests import content_hash
    from embedq_core.errors import EmbedqError
    from embedq_core.vectors import cosine_similarity, decode, encode
    from embedq_plugins import (
        EmbeddingModel,
        EmbeddingModelWithAliases,
        get_embedding_model,
        get_embedding_models,
        get_embedding_models_with_aliases,
        hookimpl,
    )
    from embedq_store import Entry

__all__ = [
    "AsyncCollection",
    "Collection",
    "EmbeddingModel",
    "EmbeddingModelWithAliases",
    "EmbedqError",
    "Entry",
    "content_hash",
    "cosine_similarity",
    "decode",
    "encode",
    "get_embedding_model",
    "get_embedding_models",
    "get_embedding_models_with_aliases",
    "hookimpl",
]

_HOMES = {
    "AsyncCollection": "embedq.collections",
    "Collection": "embedq.collections",
    "EmbeddingModel": "embedq_plugins",
    "EmbeddingModelWithAliases": "embedq_plugins",
    "EmbedqError": "embedq_core.errors",
    "Entry": "embedq_store",
    "content_hash": "embedq_core.digests",
    "cosine_similarity": "embedq_core.vectors",
    "decode": "embedq_core.vectors",
    "encode": "embedq_core.vectors",
    "get_embedding_model": "embedq_plugins",
    "get_embedding_models": "embedq_plugins",
    "get_embedding_models_with_aliases": "embedq_plugins",
    "hookimpl": "embedq_plugins",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'embedq' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
