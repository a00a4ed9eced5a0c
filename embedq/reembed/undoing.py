"""Undoing re-embeddings: ending one, going back to the old vectors, dropping those that are kept."""

import asyncio
import json
import sys
from pathlib import Path

from embedq.asking import ask
from embedq_core.errors import QueueError, ReembeddingMissing
from embedq_core.settings import Settings, load_settings
from embedq_core.text import plural, shown
from embedq_jobs import open_queue, queue_exists
from embedq_producer.submitting import stop_on_interrupt
from embedq_producer.summary import EXIT_DONE, EXIT_INTERRUPTED
from embedq_store import Reembedding, RolledBack, Store
from embedq_worker.reembedding import tell_producers
from embedq_worker.supplying import Supply, cancel_supply, new_supply, supply_missing, turn_of


def run_cancel(collection: str, settings: Settings, *, confirmed: bool, as_json: bool) -> None:
    """End a re-embedding; asks first, since what was embedded for it is lost. Raises ReembeddingMissing."""

    async def current() -> tuple[Reembedding | None, int, bool]:
        async with await Store.open(settings.database, read_only=True) as store:
            await store.collection(collection)
            every = [each for each in await store.reembeddings.all() if each.collection == collection]
            found = next((each for each in every if each.open), None)
            if found is None:
                return None, 0, False
            used = any((each.state, each.shadow) == ("rolled back", found.shadow) for each in every)
            return found, await store.count(found.shadow), used

    async def ending() -> tuple[Reembedding, int | None]:
        async with await Store.open(settings.database, must_exist=True, busy_seconds=settings.busy_seconds) as store:
            record = await store.reembeddings.cancel(collection)
        return record, await _taken_out(record, settings)

    found, count, used = asyncio.run(current())
    if found is None:
        raise ReembeddingMissing(f"{collection!r} is not being embedded anew: there is nothing to cancel")
    vectors, name = plural(count, "vector"), shown(collection)
    stay = f"the {vectors} of {found.new_model} that are kept since the rollback stay"
    if not confirmed:
        asked = f"Remove the {vectors} of {found.new_model} made so far for {name}?"
        ask(f"End it? Of {name}, {stay}." if used else asked)
    ended, taken_out = asyncio.run(ending())
    removed = 0 if ended.keeps_others else count
    if as_json:
        ended_as = {"collection": collection, "model": ended.new_model, "state": ended.state, "removed": removed}
        print(json.dumps({**ended_as, "run": ended.run, "cancelled": taken_out}))
        return
    print(f"{name} keeps {ended.old_model}: {stay if used else f'{vectors} of {ended.new_model} removed'}")
    if taken_out:
        print(f"{plural(taken_out, 'entry', 'entries')} taken out of the queue, of run {ended.run}", file=sys.stderr)


async def _taken_out(ended: Reembedding, settings: Settings) -> int | None:
    """Cancel the run that queued for it; how many entries that took out, None where Redis can't be reached."""
    if ended.run is None or not queue_exists(settings):
        return 0
    try:
        async with open_queue(settings) as queue:
            return await cancel_supply(queue, ended)
    except QueueError as error:
        print(f"embedq: {error}; 'embedq runs cancel {ended.run}' takes out what is queued", file=sys.stderr)
        return None


def run_drop_old(collection: str, settings: Settings, *, confirmed: bool, as_json: bool) -> None:
    """Drop the vectors that are kept beside a collection; asks first. Raises ReembeddingMissing, UsageError."""

    async def kept() -> tuple[Reembedding | None, int]:
        async with await Store.open(settings.database, read_only=True) as store:
            await store.collection(collection)
            found = await store.reembeddings.kept(collection)
            if found is None:
                return None, 0
            return found, await store.count(found.source if found.state == "switched" else found.shadow)

    async def dropping() -> None:
        async with await Store.open(settings.database, must_exist=True, busy_seconds=settings.busy_seconds) as store:
            await store.reembeddings.drop(collection)

    found, count = asyncio.run(kept())
    if found is None:
        raise ReembeddingMissing(f"no other vectors of {collection!r} are kept: there is nothing to drop")
    model_id = found.old_model if found.state == "switched" else found.new_model
    vectors = plural(count, "vector")
    if not confirmed:
        ask(f"Drop the {vectors} of {model_id} that are kept for {shown(collection)}?")
    asyncio.run(dropping())
    if as_json:
        print(json.dumps({"collection": collection, "model": model_id, "state": "dropped", "removed": count}))
    else:
        print(f"{shown(collection)}: dropped {vectors} of {model_id}")


def run_rollback(collection: str, database: Path | None, *, confirmed: bool, as_json: bool) -> None:
    """Go back to the old vectors of a collection, and queue for their model what came since; asks first.

    Exits with 0, or 130 when interrupted. Raises ReembeddingMissing where none are kept, UsageError.
    """
    settings = load_settings(database=database)
    if not confirmed:
        kept = asyncio.run(_kept_for_rollback(collection, settings))
        ask(f"Answer {shown(collection)} from the vectors of {kept.old_model} again, not {kept.new_model}?")
    sys.exit(asyncio.run(_roll_back(collection, settings, as_json=as_json)))


async def _kept_for_rollback(collection: str, settings: Settings) -> Reembedding:
    async with await Store.open(settings.database, read_only=True) as store:
        await store.collection(collection)
        kept = await store.reembeddings.kept(collection)
    if kept is None or kept.state != "switched":
        raise ReembeddingMissing(f"no earlier vectors of {collection!r} are kept: there is no switch to undo")
    return kept


async def _roll_back(collection: str, settings: Settings, *, as_json: bool) -> int:
    async with await Store.open(settings.database, must_exist=True, busy_seconds=settings.busy_seconds) as store:
        await store.collection(collection)
        done = await store.reembeddings.rollback(collection)
        supply, interrupted = None, False
        # From here on a worker would do the rest.
        if queue_exists(settings) or done.newcomers > done.without_content:
            stop = stop_on_interrupt()
            supply = await _queue_newcomers(done, store, settings, stop)
            interrupted = stop.is_set()
    if as_json:
        print(json.dumps(_object(done, supply)))
    else:
        _print(done, supply)
    return EXIT_INTERRUPTED if interrupted else EXIT_DONE


async def _queue_newcomers(done: RolledBack, store: Store, settings: Settings, stop: asyncio.Event) -> Supply | None:
    """Tell producers which model it is again, and queue what the old vectors lack."""
    reembedding = done.reembedding
    async with open_queue(settings) as queue:
        await tell_producers(queue, reembedding.collection, reembedding.old_model)
        async with turn_of(queue, reembedding.collection) as held:
            if held is None or not done.newcomers - done.without_content:
                return None
            supply = new_supply(reembedding)
            await supply_missing(supply, reembedding, store, queue, settings, stop=lambda: stop.is_set() or held.lost)
            return supply


def _object(done: RolledBack, supply: Supply | None) -> dict[str, object]:
    each = done.reembedding
    return {
        "collection": each.collection,
        "model": each.old_model,
        "state": each.state,
        "run": None if supply is None else supply.run.id,
        "newcomers": done.newcomers,
        "without_content": done.without_content,
        "removed": done.removed,
        "dead": done.letters,
    }


def _print(done: RolledBack, supply: Supply | None) -> None:
    each = done.reembedding
    name = shown(each.collection)
    print(f"{name} is answered from the vectors of {each.old_model} again; those of {each.new_model} are kept")
    if supply is not None:
        print(
            f"{plural(supply.items, 'entry', 'entries')} that came since {'is' if supply.items == 1 else 'are'} queued "
            f"for {each.old_model}: run {supply.run.id}",
            file=sys.stderr,
        )
    elif done.newcomers > done.without_content:
        count = plural(done.newcomers - done.without_content, "entry", "entries")
        print(f"{count} that came since: a worker queues what is to be embedded with {each.old_model}", file=sys.stderr)
    if done.without_content:
        count = plural(done.without_content, "entry", "entries")
        print(f"{count} came since without content: submit the source again, with --store", file=sys.stderr)
    if done.removed:
        print(f"{plural(done.removed, 'entry', 'entries')} that went since: removed here, too", file=sys.stderr)
    if done.letters:
        print(
            f"{plural(done.letters, 'dead letter')} of {each.new_model}: see 'embedq dead list --collection {name}'",
            file=sys.stderr,
        )
