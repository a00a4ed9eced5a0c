"""The models of the chaos test: one refuses poison, the other loses its connection at times as well."""

import os
import random
import time
from collections.abc import Iterable

import embedq
from embedq_plugins import EmbeddingModel
from embedq_plugins.hookspecs import Register
from support.models import vector_of

POISON = "poison"


class SteadyModel(EmbeddingModel):
    """Refuses poison, and the whole batch with it, as services do."""

    model_id = "steady"
    batch_size: int | None = 64

    def embed_batch(self, items: Iterable[str | bytes]) -> list[list[float]]:
        batch = list(items)
        time.sleep(float(os.environ.get("EMBEDQ_CHAOS_SECONDS", "0")))
        if any(POISON in str(item) for item in batch):
            raise ValueError("this model can't take poison")
        return [vector_of(item) for item in batch]


class ShakyModel(SteadyModel):
    """Loses its connection in a share of its calls, `EMBEDQ_CHAOS_TRANSIENT`; `EMBEDQ_CHAOS_SEED` says in which."""

    model_id = "shaky"
    batch_size: int | None = 32

    def __init__(self) -> None:
        self._dice = random.Random(os.environ.get("EMBEDQ_CHAOS_SEED"))
        self._share = float(os.environ.get("EMBEDQ_CHAOS_TRANSIENT", "0"))

    def embed_batch(self, items: Iterable[str | bytes]) -> list[list[float]]:
        if self._dice.random() < self._share:
            raise ConnectionError("the line went dead")
        return super().embed_batch(items)


@embedq.hookimpl
def register_embedding_models(register: Register) -> None:
    register(SteadyModel())
    register(ShakyModel())
