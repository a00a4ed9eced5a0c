"""`collections rename` and `copy`: the store's part, and the queue's."""

import asyncio
from pathlib import Path

from embedq.queued import queued_for
from embedq_core.errors import CollectionBusy, CollectionExists, QueueError
from embedq_core.settings import Settings, load_settings
from embedq_core.text import plural, shown
from embedq_jobs import open_queue, queue_exists
from embedq_producer.terminal import Figures, display
from embedq_store import Store


def rename(old: str, new: str, database: Path | None, *, force: bool) -> None:
    """Rename a collection, in the database and in what the queue knows of it.

    Raises CollectionMissing, CollectionExists, UsageError; without `force` CollectionBusy where work for it is queued,
    and QueueError where nobody can tell.
    """
    asyncio.run(_rename(old, new, load_settings(database=database), force=force))


async def _rename(old: str, new: str, settings: Settings, *, force: bool) -> None:
    async with await Store.open(settings.database, must_exist=True, busy_seconds=settings.busy_seconds) as store:
        info = await store.collection(old)
        if not queue_exists(settings):
            await store.transfer.rename(old, new)
            return
        try:
            async with open_queue(settings) as queue:
                waiting = await queued_for(queue, old)
                if waiting.runs and not force:
                    raise CollectionBusy(
                        f"{plural(waiting.items, 'item')} for {shown(old)!r} are still queued (run {waiting.runs[0]}), "
                        "and would make a collection of that name again: wait for them ('embedq runs wait RUN'), or "
                        "say --force"
                    )
                taken = await queue.collection_model(new)
                if taken is not None and (await queued_for(queue, new)).runs and not force:
                    raise CollectionExists(f"work for a collection {shown(new)!r} is queued: choose another name")
                await store.transfer.rename(old, new)
                await queue.forget_collection(old)
                await queue.set_collection_model(new, info.model_id)
        except QueueError:
            if not force:
                raise
            await store.transfer.rename(old, new)


def copy(source: str, name: str, database: Path | None) -> int:
    """Copy a collection to a new name; how many entries. Raises CollectionMissing, CollectionExists, UsageError."""

    async def run(settings: Settings) -> int:
        async with await Store.open(settings.database, must_exist=True, busy_seconds=settings.busy_seconds) as store:
            info = await store.collection(source)
            many = await store.count(info.id)
            with display(f"copy of {source}") as shows:

                def progress(done: int) -> None:
                    shows.show(Figures(done, min(1.0, done / max(many, 1))))

                _, done = await store.transfer.copy(info, name, progress)
            return done

    return asyncio.run(run(load_settings(database=database)))
