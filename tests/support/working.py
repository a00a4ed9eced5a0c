"""A worker in this process, on a real queue and a real store, and what it leaves behind."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from embedq_core.items import Item
from embedq_core.settings import Settings
from embedq_jobs import Queue, open_queue
from embedq_store import Store
from embedq_worker.service import ServiceOptions, serve
from support.chunks import RUN
from support.models import RecordingModel, vector_of
from support.waiting import BOUND_SECONDS, Eventually

BURST = ServiceOptions(burst=True)


class GatedModel(RecordingModel):
    """Holds every call until the gate is open."""

    def __init__(self, batch_size: int | None = 10) -> None:
        super().__init__("recording", batch_size)
        self.gate = threading.Event()
        self.begun = 0

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterable[list[float]]:
        self.begun += 1
        assert self.gate.wait(BOUND_SECONDS)
        return super().embed_batch(items)


@asynccontextmanager
async def worker(
    settings: Settings,
    options: ServiceOptions = ServiceOptions(),  # noqa: B008 - frozen
) -> AsyncIterator[asyncio.Event]:
    """A worker with connections of its own; it stops with the block, or when its event is set."""
    stop = asyncio.Event()
    async with (
        open_queue(settings) as queue,
        await Store.open(settings.database, busy_seconds=settings.busy_seconds) as store,
    ):
        serving = asyncio.create_task(serve(settings, options, queue, store, stop))
        try:
            yield stop
        finally:
            stop.set()
            async with asyncio.timeout(BOUND_SECONDS):
                await serving


async def burst(settings: Settings, queue: Queue, store: Store) -> None:
    """Work until the queue is empty."""
    async with asyncio.timeout(BOUND_SECONDS):
        await serve(settings, BURST, queue, store, asyncio.Event())


async def complete(queue: Queue, run: str = RUN) -> bool:
    return (await queue.runs.summary(run)).complete


async def until_complete(queue: Queue, eventually: Eventually, run: str = RUN) -> None:
    async def done() -> bool:
        return await complete(queue, run)

    await eventually(done)


async def nothing_is_left(queue: Queue) -> None:
    """Neither in the queue nor in the ledger nor in arq's own keys."""
    for load in await queue.loads():
        assert (load.jobs, load.bytes, load.items) == (0, 0, 0), load
    assert await queue.redis.keys("arq:*") == []


async def stored(store: Store, collection: str = "pets") -> dict[str, tuple[float, ...]]:
    key = (await store.collection(collection)).id
    ids = [entry.id for entry in await store.search.similar(key, [1.0] * 8, number=100_000)]
    assert await store.count(key) == len(ids)
    return {each: await store.vector(key, each) for each in ids}


def expected(some: Iterable[Item]) -> dict[str, tuple[float, ...]]:
    return {item.id: tuple(vector_of(item.content)) for item in some}
