"""The models of the chaos test of the console: each leaves its mark in what it makes, so that no mix stays unseen."""

import os
import time
from collections.abc import Iterable
from typing import Final

import embedq
from embedq_plugins import EmbeddingModel
from embedq_plugins.hookspecs import Register
from support.models import vector_of

# Model → the first number of each of its vectors.
MARKS: Final = {"one": 1.0, "two": -1.0}
_BATCH_SIZES: Final = {"one": 10, "two": 32}


def marked_vector(model_id: str, content: str | bytes) -> list[float]:
    """The vector that a model has for a content."""
    return [MARKS[model_id], *vector_of(content)[1:]]


class MarkedModel(EmbeddingModel):
    """Takes `EMBEDQ_CHAOS_SECONDS` for each call."""

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id
        self.batch_size = _BATCH_SIZES[model_id]

    def embed_batch(self, items: Iterable[str | bytes]) -> list[list[float]]:
        time.sleep(float(os.environ.get("EMBEDQ_CHAOS_SECONDS", "0")))
        return [marked_vector(self.model_id, item) for item in items]


@embedq.hookimpl
def register_embedding_models(register: Register) -> None:
    for model_id in MARKS:
        register(MarkedModel(model_id))
