"""Embedding models for tests, each honest about one thing; `plugin.py` registers them for the command line."""

import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedq_core.digests import content_hash
from embedq_plugins import EmbeddingModel, ModelKind
from support.waiting import BOUND_SECONDS

DIMENSION = 8


def vector_of(content: str | bytes, dimension: int = DIMENSION) -> list[float]:
    """A vector that depends on the content alone."""
    seed = int.from_bytes(content_hash(content)[:8], "little")
    return [float(value) for value in np.random.default_rng(seed).normal(size=dimension).astype(np.float32)]


class RecordingModel(EmbeddingModel):
    """Gives each content its vector, and remembers every batch that it was given.

    With `EMBEDQ_TEST_CALLS` set, the size of each batch is also a line of that file, for other processes to see.
    """

    dimension: int

    def __init__(self, model_id: str = "recording", batch_size: int | None = None, dimension: int = DIMENSION) -> None:
        self.model_id = model_id
        self.batch_size = batch_size
        self.dimension = dimension
        self.batches: list[list[str | bytes]] = []
        self._lock = threading.Lock()

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterable[list[float]]:
        batch = list(items)
        with self._lock:
            self.batches.append(batch)
        log = os.environ.get("EMBEDQ_TEST_CALLS")
        if log:
            with Path(log).open("a") as file:
                file.write(f"{len(batch)}\n")
        return [vector_of(item, self.dimension) for item in batch]

    @property
    def inputs(self) -> int:
        """Contents that it was given in all."""
        return sum(len(batch) for batch in self.batches)


class PreparedModel(EmbeddingModel):
    """Costs nothing: rows of a matrix that was made beforehand."""

    model_id = "prepared"
    batch_size: int | None = None

    def __init__(self, dimension: int = 384) -> None:
        self._dimension = dimension

    @functools.cached_property
    def _rows(self) -> Any:
        # Not before they are asked for: every command of the tests that loads plugins makes this model.
        return np.random.default_rng(7).normal(size=(4096, self._dimension)).astype(np.float32)

    def embed_batch(self, items: Iterable[str | bytes]) -> Any:
        return self._rows[: len(list(items))]


class FaultyModel(RecordingModel):
    """Recording, but `fault` is asked first: it may raise, or return what the model then returns."""

    def __init__(
        self, fault: Callable[[list[str | bytes]], Any], model_id: str = "faulty", batch_size: int | None = None
    ) -> None:
        super().__init__(model_id, batch_size)
        self._fault = fault

    def embed_batch(self, items: Iterable[str | bytes]) -> Any:
        batch = list(items)
        vectors = super().embed_batch(batch)
        answer = self._fault(batch)
        return vectors if answer is None else answer


class ConfiguredModel(RecordingModel):
    """Recording, in the form that it is given; with `revision`, which no record can apply to queries."""

    def __init__(
        self, model_id: str = "configured", *, document_prefix: str = "", query_prefix: str = "", revision: str = ""
    ) -> None:
        super().__init__(model_id)
        self.document_prefix = document_prefix
        self.query_prefix = query_prefix
        self.revision = revision

    @property
    def configuration(self) -> Mapping[str, str | int | float | bool]:
        return {**super().configuration, **({"revision": self.revision} if self.revision else {})}


class ConfiguredKind(ModelKind):
    """Makes them as the settings file says: `kind = "rec"`."""

    name = "rec"

    def make(self, model_id: str, options: Mapping[str, object]) -> EmbeddingModel:
        return ConfiguredModel(model_id, **{name: str(value) for name, value in options.items() if name != "model"})


class BinaryModel(RecordingModel):
    """Takes bytes only."""

    supports_text = False
    supports_binary = True


class EitherModel(RecordingModel):
    """Takes text and bytes."""

    supports_binary = True


class SlowModel(RecordingModel):
    """Takes `seconds` for each batch, as a model over the network does; and as long as there is the file that
    EMBEDQ_TEST_HOLD names.
    """

    def __init__(self, model_id: str = "slow", batch_size: int | None = 8, seconds: float = 0.05) -> None:
        super().__init__(model_id, batch_size)
        self.seconds = seconds

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterator[list[float]]:
        time.sleep(self.seconds)
        hold, deadline = os.environ.get("EMBEDQ_TEST_HOLD"), time.monotonic() + BOUND_SECONDS
        while hold and Path(hold).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield from super().embed_batch(items)


def raising(batch: list[str | bytes]) -> None:
    """Refuse any batch with 'poison' in it."""
    if any("poison" in str(item) for item in batch):
        raise ValueError("this model can't take poison")
