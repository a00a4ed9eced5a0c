"""A collection gets another model while it is searched and written to: workers queue, check, switch, hand chunks on."""

import asyncio
import logging
from collections.abc import Iterable

import pytest

import embedq_worker.reembedding
import embedq_worker.service
from embedq_core.counts import Counts
from embedq_core.items import Item
from embedq_core.settings import Settings
from embedq_jobs import Queue, job_id
from embedq_jobs.names import lease_key, payload_key
from embedq_store import Reembedding, Store
from embedq_worker.service import ServiceOptions
from embedq_worker.supplying import latest_run
from support.chunks import RUN, chunk, install, items, submit
from support.models import FaultyModel, RecordingModel, raising, vector_of
from support.waiting import Eventually
from support.working import burst, complete, nothing_is_left, worker

OLD, NEW = "recording", "newer"
# What tells which model made a vector.
OLD_SIZE, NEW_SIZE = 8, 4


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedq_worker.service, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(embedq_worker.reembedding, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(embedq_worker.reembedding, "IDLE_SECONDS", 0.02)


@pytest.fixture
def old() -> RecordingModel:
    return RecordingModel(OLD, batch_size=10, dimension=OLD_SIZE)


@pytest.fixture
def new() -> RecordingModel:
    return RecordingModel(NEW, batch_size=10, dimension=NEW_SIZE)


@pytest.fixture
async def pets(
    settings: Settings,
    queue: Queue,
    store: Store,
    old: RecordingModel,
    new: RecordingModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thirty pets, embedded with the old model."""
    install(monkeypatch, old, new)
    await submit(queue, chunk(items(30)))
    await burst(settings, queue, store)
    old.batches.clear()


async def held(store: Store, collection: str = "pets") -> dict[str, tuple[float, ...]]:
    """All vectors of a collection, by their ids."""
    key = (await store.collection(collection)).id
    figures = await store.describe(key)
    if not figures.dimension:
        return {}
    found = await store.similar(key, [1.0] * figures.dimension, number=1000)
    return {entry.id: await store.vector(key, entry.id) for entry in found}


def made(some: Iterable[Item], size: int) -> dict[str, tuple[float, ...]]:
    return {item.id: tuple(vector_of(item.content, size)) for item in some}


async def begun(store: Store, **options: object) -> Reembedding:
    return await store.reembeddings.begin("pets", NEW, **options)  # type: ignore[arg-type]


async def state(store: Store) -> str:
    found = await store.reembeddings.get("pets")
    assert found is not None
    return found.state


# --- from the beginning to the end


@pytest.mark.usefixtures("pets")
async def test_a_worker_queues_embeds_and_switches_and_a_rollback_gives_newcomers_to_the_old_model(
    settings: Settings, queue: Queue, store: Store, old: RecordingModel, new: RecordingModel
) -> None:
    await begun(store)
    # These come to the old vectors while the new ones are made.
    await submit(queue, chunk(items(5, first=30), run="meanwhile"))
    await burst(settings, queue, store)
    assert await state(store) == "switched"
    assert await held(store) == made(items(35), NEW_SIZE)
    assert await held(store, "pets@previous") == made(items(35), OLD_SIZE)
    assert (old.inputs, new.inputs) == (5, 35)
    assert await queue.collection_model("pets") == NEW
    await nothing_is_left(queue)
    # One that comes later goes to the new model alone, and is owed to the old one by a rollback.
    await submit(queue, chunk(items(1, first=35), run="later", model_id=NEW))
    await burst(settings, queue, store)
    rolled_back = await store.reembeddings.rollback("pets")
    assert rolled_back.newcomers == 1
    await burst(settings, queue, store)
    assert await held(store) == made(items(36), OLD_SIZE)
    assert (old.inputs, new.inputs) == (6, 36)
    # Forward again: what is there is not paid for again.
    await begun(store)
    await burst(settings, queue, store)
    assert await held(store) == made(items(36), NEW_SIZE)
    assert (old.inputs, new.inputs) == (6, 36)
    await nothing_is_left(queue)
