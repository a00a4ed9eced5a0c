"""`collections rename` and `copy`: the store's part, and the queue's."""

import asyncio
from pathlib import Path

from embedq.schedule.unattended import Program, is_about
from embedq.steer.queued import queued_for
from embedq_core.errors import CollectionBusy, CollectionExists, QueueError
from embedq_core.settings import Settings, load_settings
from embedq_core.text import plural, shown
from embedq_jobs import open_queue, queue_exists
from embedq_producer.terminal import Figures, display
from embedq_store import Store


def rename(old: str, new: str, database: Path | None, program: Program, *, force: bool) -> list[str]:
    """Rename a collection, in the database and in what the queue knows of it; the schedules that name it as it was.

    Raises CollectionMissing, CollectionExists, UsageError; without `force` CollectionBusy where work for it is queued,
    and QueueError where nobody can tell.
    """
    settings = load_settings(database=database)
    asyncio.run(_rename(old, new, settings, force=force))
    return asyncio.run(_schedules(old, settings, program))


async def _schedules(collection: str, settings: Settings, program: Program) -> list[str]:
    """The schedules whose command is about a collection."""
    async with await Store.open(settings.database, read_only=True) as store:
        found = await store.schedules.all()
    return [schedule.name for schedule in found if is_about(schedule.arguments, collection, program)]


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
                        f"{plural(waiting.items, 'item')} for {shown(old)!r} still queued (run {waiting.runs[0]}), "
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
                    shows.show(Figures.of(done, many))

                _, done = await store.transfer.copy(info, name, progress)
            return done

    return asyncio.run(run(load_settings(database=database)))
