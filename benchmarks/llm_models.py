"""The prepared models as a plugin for llm, which takes lists of floats, and arrays apart."""

from collections.abc import Iterable, Iterator
from typing import Any

import llm

from benchmarks.models import PreparedArray, PreparedLists


class Lists(llm.EmbeddingModel):  # type: ignore[name-defined, misc]  # llm does not export it by name
    """Lists of floats that were made before."""

    model_id = "prepared-lists"

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterator[list[float]]:
        """As many of the lists as there are items."""
        return iter(PreparedLists().embed_batch(items))


class Array(llm.EmbeddingModel):  # type: ignore[name-defined, misc]  # llm does not export it by name
    """Rows of a numpy array that was made before."""

    model_id = "prepared-array"

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterator[list[float]]:
        """As many of the rows as there are items."""
        return iter(PreparedArray().embed_batch(items))


@llm.hookimpl
def register_embedding_models(register: Any) -> None:  # noqa: ANN401 - llm does not say what it gives
    """Register both."""
    register(Lists())
    register(Array())
