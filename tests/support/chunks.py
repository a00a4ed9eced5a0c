"""Chunks, runs and workers for tests of the queue and of the worker."""

import time
from collections.abc import Sequence

import pytest

import embedq_worker.golden_check
import embedq_worker.service
from embedq_core.items import Item
from embedq_core.priority import Priority
from embedq_jobs import Chunk, Queue, Run
from embedq_plugins import EmbeddingModel, Registry, hookimpl
from embedq_plugins.hookspecs import Register

RUN = "20261231-235959-x7kqb"


def items(count: int, first: int = 0, text: str = "text") -> list[Item]:
    """Items with ids and contents of their own."""
    return [Item(f"{number:06}", f"{text} {number}") for number in range(first, first + count)]


def chunk(
    contents: Sequence[Item],
    number: int = 0,
    *,
    run: str = RUN,
    collection: str = "pets",
    model_id: str = "recording",
    store: bool = True,
    after: Sequence[int] = (),
) -> Chunk:
    """A chunk of `contents`."""
    return Chunk(run, number, collection, model_id, store, list(after), list(contents))


def run(
    run_id: str = RUN,
    model_id: str = "recording",
    started: float | None = None,
    priority: Priority = Priority.NORMAL,
) -> Run:
    """A run that begins now, or when it is said."""
    return Run(run_id, "pets", model_id, "pets.csv", time.time() if started is None else started, priority)


async def submit(queue: Queue, *chunks: Chunk, priority: Priority = Priority.NORMAL) -> None:
    """Queue the chunks of one run, from its opening to its close."""
    first = chunks[0]
    await queue.runs.open(run(first.run, first.model_id, priority=priority))
    for each in chunks:
        assert await queue.put(each)
    await queue.runs.close(first.run, len(chunks), skipped=0, duplicates=0)


class _Plugin:
    def __init__(self, models: Sequence[EmbeddingModel]) -> None:
        self._models = models

    @hookimpl
    def register_embedding_models(self, register: Register) -> None:
        for model in self._models:
            register(model, aliases=(f"alias-of-{model.model_id}",))


def install(monkeypatch: pytest.MonkeyPatch, *models: EmbeddingModel) -> None:
    """Let workers in this process find `models`, as if a plugin had registered them."""
    registry = Registry({"tests": _Plugin(models)})
    for module in (embedq_worker.service, embedq_worker.golden_check):
        monkeypatch.setattr(module, "get_embedding_model", registry.get_embedding_model)
