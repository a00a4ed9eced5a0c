"""The switch of a collection that is written to meanwhile: what came in the last moment is embedded before it.

To go through large collections takes longer than it takes until something new has come. So what came meanwhile, if it
is nothing else, is embedded at once, and then only what came since is looked at. Where there is something new each
time, writers wait for a moment.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from embedq_core.errors import NotCovered
from embedq_core.items import Item
from embedq_core.settings import Settings
from embedq_jobs import Queue
from embedq_store import Reembedding, Store, Switched
from embedq_worker.reembedding_steps import Stop, cannot_be_covered
from embedq_worker.supplying import Supplier, new_supply, supplying

# How often, for how long, and how closely to wait for what came while it was looked whether all is there.
ATTEMPTS: Final = 100
DONE_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 0.01
# At each so manyth attempt, writers to the collection wait while it is made: see `embedq_store.holding_back`.
HOLD_EACH: Final = 5


async def switch(
    reembedding: Reembedding, store: Store, queue: Queue, settings: Settings, *, stop: Callable[[], bool]
) -> Switched | Stop | None:
    """Switch; None where that can't be yet, Stop where it will never be. To be called in its turn.

    Raises ReembeddingMissing, UsageError, StoreError, QueueError.
    """
    with contextlib.suppress(NotCovered):
        return await store.reembeddings.switch(reembedding)
    supply = new_supply(reembedding)
    async with contextlib.AsyncExitStack() as stack:
        supplier: Supplier | None = None
        before: list[Item] = []
        for attempt in range(1, ATTEMPTS + 1):
            await _let_writers_wait(reembedding, store, attempt, stack)
            late = await store.reembeddings.latecomers(reembedding, max_items=settings.chunk_items)
            if not late or stop():
                break
            if late == before:
                return cannot_be_covered(len(late))
            before = late
            if supplier is None:
                supplier = await stack.enter_async_context(
                    supplying(supply, reembedding, store, queue, settings, stop=stop)
                )
            # What is cancelled or held up is for the next round to see.
            if not await supplier.add(late) or not await _is_done(queue, supply.run.id):
                break
            with contextlib.suppress(NotCovered):
                return await store.reembeddings.switch(reembedding)
    return None


async def _let_writers_wait(
    reembedding: Reembedding, store: Store, attempt: int, stack: contextlib.AsyncExitStack
) -> None:
    if attempt % HOLD_EACH == 0:
        # However this ends; where the process dies, they wait no longer than for some seconds.
        stack.push_async_callback(store.reembeddings.let_go, reembedding)
        await store.reembeddings.hold_back(reembedding)
    elif attempt % HOLD_EACH == 1 and attempt > HOLD_EACH:
        await store.reembeddings.let_go(reembedding)


async def _is_done(queue: Queue, run: str) -> bool:
    """Wait until the chunks of a run are done; False where that takes long."""
    until = time.monotonic() + DONE_SECONDS
    while await queue.runs.outstanding(run):
        if time.monotonic() > until:
            return False
        await asyncio.sleep(LOOK_SECONDS)
    return True
