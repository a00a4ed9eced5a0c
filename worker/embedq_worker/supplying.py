"""Queueing what a re-embedding lacks: a run of the entries that have no vector of the wanted model yet."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from embedq_core.errors import QueueError, RunMissing
from embedq_core.items import Item
from embedq_core.settings import Settings
from embedq_jobs import Chunk, Patience, Queue, Run, RunSummary, holding, new_run_id
from embedq_jobs.queue import Placed
from embedq_jobs.turns import TURN_SECONDS, Turn, turn
from embedq_store import Reembedding, Store

# How often to look whether a full queue has room, and to say meanwhile that the run goes on.
HOLD_SECONDS: Final = 0.05
BEAT_SECONDS: Final = 1.0

_T = TypeVar("_T")


@dataclass(slots=True)
class Supply:
    """A run on its way into the queue: grows while it is queued. `interrupted` where it was not queued to its end."""

    run: Run
    items: int = 0
    chunks: int = 0
    holding: bool = False
    interrupted: bool = False


def turn_of(queue: Queue, collection: str, seconds: float = TURN_SECONDS) -> AbstractAsyncContextManager[Turn | None]:
    """The turn to queue for the re-embedding of a collection, or to finish it: None where another process has it.

    After the death of that process it is free in `seconds`.
    """
    return turn(queue.redis, queue.names.turn(collection), queue.where, seconds)


async def is_held_up(run: Run, queue: Queue, settings: Settings) -> bool:
    """Whether there is no room for `run`, and it is paused: nobody knows until when."""
    full = await queue.bytes_queued(run.model_id) >= settings.queue_bytes
    return full and holding(await queue.pauses(), run.model_id, run.collection) is not None


async def latest_run(queue: Queue, reembedding: Reembedding) -> RunSummary | None:
    """The run that queued last for a re-embedding; None before the first, and where the ledger has forgotten it."""
    if reembedding.run is None:
        return None
    try:
        return await queue.runs.summary(reembedding.run)
    except RunMissing:
        return None


async def cancel_supply(queue: Queue, ended: Reembedding) -> int:
    """Cancel the run that queued last for a re-embedding that was cancelled; how many items that took out.

    Workers would drop its chunks, but where none comes, it would be in progress for ever. Raises QueueError.
    """
    if ended.run is None:
        return 0
    _, removed = await queue.cancelling.cancel(ended.run, ended.new_model)
    return removed.items


def new_supply(reembedding: Reembedding) -> Supply:
    """A run that has not begun, for what a re-embedding lacks; after a rollback, for what the old vectors lack."""
    if reembedding.state == "rolled back":
        collection, model_id, source = reembedding.collection, reembedding.old_model, "rollback"
    else:
        collection, model_id, source = reembedding.next_name, reembedding.new_model, "reembed"
    return Supply(Run(new_run_id(), collection, model_id, f"{source} {reembedding.collection}", time.time()))


async def supply_missing(
    supply: Supply,
    reembedding: Reembedding,
    store: Store,
    queue: Queue,
    settings: Settings,
    *,
    stop: Callable[[], bool],
    patience: Patience | None = None,
) -> None:
    """Queue what a re-embedding lacks, as `supply`, which is noted with it first. To be called in its turn.

    Where the queue is full and what is in it is paused, the rest is left for later: a worker finds it missing.

    Raises QueueError, StoreError.
    """
    found = store.reembeddings.newcomers if reembedding.state == "rolled back" else store.reembeddings.missing

    async def page(after: str | None) -> list[Item]:
        present = (await store.reembeddings.current()).get(reembedding.collection)
        if present is None or (present.key, present.state) != (reembedding.key, reembedding.state):
            # Cancelled, say: what would be queued now is for nobody.
            return []
        return await found(reembedding, after, max_items=settings.chunk_items, max_bytes=settings.chunk_bytes)

    async with supplying(supply, reembedding, store, queue, settings, stop=stop, patience=patience) as supplier:
        after: str | None = None
        while (items := await page(after)) and await supplier.add(items):
            after = items[-1].id


@asynccontextmanager
async def supplying(
    supply: Supply,
    reembedding: Reembedding,
    store: Store,
    queue: Queue,
    settings: Settings,
    *,
    stop: Callable[[], bool],
    patience: Patience | None = None,
) -> AsyncIterator["Supplier"]:
    """What queues `supply`, a run that is open while the block runs, and noted with the re-embedding before.

    Nothing that is queued twice costs anything twice, and what a Redis that died has forgotten is found missing
    afterwards: so nothing is kept to be sent again.
    """
    await store.reembeddings.note_run(reembedding, supply.run.id)
    supplier = Supplier(supply, queue, settings, stop, patience)
    await supplier.open()
    supply.interrupted = True
    try:
        yield supplier
        supply.interrupted = stop()
    finally:
        with contextlib.suppress(QueueError):
            await queue.runs.close(
                supply.run.id, supply.chunks, skipped=0, duplicates=0, interrupted=supply.interrupted
            )


class Supplier:
    """Queues entries as chunks of one run, with the back-pressure of any submission."""

    def __init__(
        self,
        supply: Supply,
        queue: Queue,
        settings: Settings,
        stop: Callable[[], bool],
        patience: Patience | None,
    ) -> None:
        self._supply = supply
        self._queue = queue
        self._settings = settings
        self._limit = settings.queue_bytes
        self._stop = stop
        self._patience = patience
        # What others have queued is not known before somebody asks.
        self._queued = self._limit

    async def open(self) -> None:
        """Enter the run in the ledger, and its collection's model. Raises QueueError."""
        run = self._supply.run
        await self._insist(lambda: self._queue.runs.open(run))
        await self._insist(lambda: self._queue.set_collection_model(run.collection, run.model_id))

    async def add(self, items: list[Item]) -> bool:
        """Queue a chunk, when there is room. False where it was to stop, the run was cancelled, or it is held up.

        Raises QueueError.
        """
        if self._stop() or (self._queued >= self._limit and not await self._room()):
            return False
        placed = await self._place(items)
        self._queued = placed.bytes_queued
        return not placed.cancelled

    async def _place(self, items: list[Item]) -> Placed:
        run = self._supply.run
        chunk = Chunk(
            run=run.id,
            number=self._supply.chunks,
            collection=run.collection,
            model_id=run.model_id,
            store=True,
            after=[],
            items=items,
        )
        placed = await self._insist(lambda: self._queue.place(chunk))
        if not placed.cancelled:
            self._supply.chunks += 1
            self._supply.items += len(items)
        return placed

    async def _room(self) -> bool:
        """Wait until the queue has room. False if `stop` says so before, or the run was cancelled or is held up."""
        run, beat = self._supply.run, time.monotonic()
        while await self._insist(lambda: self._queue.bytes_queued(run.model_id)) >= self._limit:
            if self._stop():
                return False
            self._supply.holding = True
            if time.monotonic() - beat > BEAT_SECONDS:
                beat = time.monotonic()
                if not await self._insist(lambda: self._queue.runs.beat(run.id)):
                    return False
                if await self._insist(lambda: is_held_up(run, self._queue, self._settings)):
                    return False
            await asyncio.sleep(HOLD_SECONDS)
        self._supply.holding = False
        return True

    async def _insist(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        return await (ask() if self._patience is None else self._patience.insist(ask))
