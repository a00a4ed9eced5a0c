"""What `reembed` does: check what is asked, queue what is stored for the new model, with --wait see it through."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedq.ingesting import first_of, working
from embedq.reembed.already import has_it_already, say_so
from embedq.reembed.figures import print_reembeddings, reembedding_object
from embedq.reembed.prospect import dry_run
from embedq.reembed.undoing import run_cancel, run_drop_old
from embedq_core.configuration import check_querying
from embedq_core.errors import QueueError, UsageError
from embedq_core.settings import Settings, load_settings
from embedq_core.text import plural, shown
from embedq_jobs import Patience, Queue, open_queue
from embedq_plugins import EmbeddingModel, get_embedding_model, require_library
from embedq_producer.submitting import WATCH_SECONDS, say, stop_on_interrupt, watch
from embedq_producer.summary import EXIT_DEAD, EXIT_DONE, EXIT_INTERRUPTED
from embedq_producer.terminal import Display, Figures, display
from embedq_store import CollectionInfo, Reembedding, Store
from embedq_worker.golden import parse_golden
from embedq_worker.golden_check import OLD_MODEL_IS_GONE, usable_model
from embedq_worker.reembedding_steps import is_going_on
from embedq_worker.supplying import Supply, latest_run, new_supply, supply_missing, turn_of


@dataclass(frozen=True, slots=True)
class ReembedRequest:
    """What is asked for, as it was given."""

    collection: str | None
    model: str | None
    golden: Path | None
    recall: float | None
    accept: bool
    drop_old: bool
    force: bool
    wait: bool
    cancel: bool
    listed: bool
    dry_run: bool
    json: bool


def run_reembed(request: ReembedRequest, database: Path | None, *, confirmed: bool) -> None:
    """Do it, and exit with 0, with 1 where it has stopped, with 130 when interrupted.

    Raises UsageError, CollectionMissing, DatabaseMissing, UnknownModel, ContentMissing, QueueError.
    """
    settings = load_settings(database=database)
    if request.listed:
        asyncio.run(print_reembeddings(request.collection, settings, database, as_json=request.json))
        return
    collection = check_options(request)
    if request.cancel:
        run_cancel(collection, settings, confirmed=confirmed, as_json=request.json)
    elif request.model is None and not request.force:
        run_drop_old(collection, settings, confirmed=confirmed, as_json=request.json)
    else:
        sys.exit(asyncio.run(_reembed(request, collection, settings)))


def check_options(request: ReembedRequest) -> str:
    """The collection that is named. Raises UsageError for options that make no sense together, whatever there is."""
    if request.collection is None:
        raise UsageError("name a collection, and the new model with -m; or see with --list what is going on")
    starting = request.golden or request.recall is not None or request.accept or request.force or request.wait
    if request.cancel and (request.model or starting or request.drop_old or request.dry_run):
        raise UsageError("--cancel goes with a collection alone")
    # With --force, the model that it has is meant where none is named.
    named = request.model is not None or request.force
    if not named and (starting or request.dry_run or not (request.drop_old or request.cancel)):
        raise UsageError("name the new model with -m: see 'embedq models'")
    if request.accept and (request.golden or request.recall is not None):
        raise UsageError("--accept takes the new vectors as they are: leave --golden and --recall out")
    if request.dry_run and request.wait:
        raise UsageError("--dry-run queues nothing to wait for")
    return request.collection


async def _reembed(request: ReembedRequest, name: str, settings: Settings) -> int:
    async with await Store.open(settings.database, must_exist=True, busy_seconds=settings.busy_seconds) as store:
        found = await store.collection(name)
        model = get_embedding_model(request.model or found.model_id)
        if not request.force and await has_it_already(found, model, store):
            queueing = not (request.wait or request.dry_run)
            await say_so(found, store, as_json=request.json, queueing=queueing)
            return EXIT_DONE
        golden = await _golden_text(request, found, store)
        if request.dry_run:
            return await dry_run(found, model, store, settings, as_json=request.json)
        # Whatever is wrong is said before a server is started, or anything queued.
        await _check_current(request, name, golden, store)
        async with open_queue(settings) as queue:
            await queue.announce(model.model_id)
            stop = stop_on_interrupt()
            with display(name) as shown_on:
                work = (
                    working(settings, queue, shown_on, stop, needs=model.model_id)
                    if request.wait
                    else contextlib.nullcontext()
                )
                async with work as serving:
                    if serving is not None:
                        require_library(model)
                        model.check_setup()
                    starting = _Start(store, queue, settings, stop, shown_on)
                    seeing = asyncio.create_task(_see_through(starting, request, name, model, golden))
                    reembedding, supply = await first_of(seeing, serving, stop)
            return await _said(request, reembedding, supply, store, queue, interrupted=stop.is_set())


async def _golden_text(request: ReembedRequest, found: CollectionInfo, store: Store) -> str | None:
    """The text of the golden file, whose queries can be read and whose ids are there; None where none is named.

    Raises UsageError.
    """
    if request.golden is None:
        return None
    try:
        text = await asyncio.to_thread(request.golden.read_text, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"{request.golden}: {reason}") from error
    queries = parse_golden(text, str(request.golden))
    expected = list(dict.fromkeys(id_ for query in queries for id_ in query.expected))
    held = await store.vectors(found.id, expected)
    unknown = [id_ for id_ in expected if id_ not in held]
    if unknown:
        some = ", ".join(shown(id_) for id_ in unknown[:3])
        raise UsageError(
            f"{request.golden}: {found.name!r} has no entry {some}{', …' if len(unknown) > 3 else ''}"
            f" ({plural(len(unknown), 'id')} of {len(expected):,})"
        )
    if request.recall != 0:
        try:
            model = await asyncio.to_thread(usable_model, found.model_id)
            recorded = await store.configuration(found.id)
            if recorded is not None:
                by_prefix = model.queries_by_prefix
                check_querying(found.name, found.model_id, recorded, model.configuration, by_prefix=by_prefix)
        except OLD_MODEL_IS_GONE as error:
            if request.recall is None:
                raise UsageError(
                    f"the old vectors can't be compared with, since their model can't be used any more ({error}): say"
                    " with --recall which share of the expected ids the new ones must find"
                ) from error
            print(f"embedq: only --recall {request.recall:g} is asked for: {error}", file=sys.stderr)
    return text


async def _check_current(request: ReembedRequest, name: str, golden: str | None, store: Store) -> None:
    """Raise UsageError for options that are about something that isn't there."""
    current = await store.reembeddings.get(name)
    going_on = current is not None and current.open
    if request.accept and not going_on:
        raise UsageError(f"there is nothing to accept: {name!r} is not being embedded anew")
    if request.recall is not None and golden is None and not (going_on and current is not None and current.golden):
        raise UsageError("--recall is about the queries of --golden FILE")


@dataclass(frozen=True, slots=True)
class _Start:
    """What it takes to queue."""

    store: Store
    queue: Queue
    settings: Settings
    stop: asyncio.Event
    shown_on: Display


async def _see_through(
    start: _Start, request: ReembedRequest, name: str, model: EmbeddingModel, golden: str | None
) -> tuple[Reembedding, Supply | None]:
    """Begin or go on, queue what is missing; with --wait until it has ended or Ctrl-C."""
    # The turn first: no worker queues the same in between.
    async with turn_of(start.queue, name) as held:
        reembedding = await start.store.reembeddings.begin(
            name,
            model.model_id,
            golden=golden,
            recall=0.0 if request.accept else request.recall,
            drop_old=request.drop_old,
            force=request.force,
        )
        supply = None
        # Chunks that are still queued, from before, are done first; what is missing then a worker queues.
        if held is not None and not is_going_on(await latest_run(start.queue, reembedding)):
            supply = new_supply(reembedding)
            await _queue(start, reembedding, supply, lambda: start.stop.is_set() or held.lost)
    while request.wait and not start.stop.is_set():
        present = await start.store.reembeddings.get(name)
        if present is None or present.key != reembedding.key or not _is_going_on(present):
            if present is not None and present.state == "dropped":
                # The record says so before the last of the old vectors are.
                await start.store.reembeddings.sweep()
            return present or reembedding, supply
        await _show(start, present)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(start.stop.wait(), WATCH_SECONDS)
    return await start.store.reembeddings.get(name) or reembedding, supply


def _is_going_on(reembedding: Reembedding) -> bool:
    """Whether a worker has something to do for it before what was asked for is done."""
    return reembedding.state == "embedding" or (reembedding.state == "switched" and reembedding.drop_old)


async def _queue(start: _Start, reembedding: Reembedding, supply: Supply, stop: Callable[[], bool]) -> None:
    """Queue what is missing, and show how much it is."""
    total = (await start.store.reembeddings.coverage(reembedding)).missing
    patience = Patience(start.settings.patience_seconds, lambda text: say(text, start.shown_on), stop)
    sending = asyncio.create_task(
        supply_missing(supply, reembedding, start.store, start.queue, start.settings, stop=stop, patience=patience)
    )

    def figures() -> Figures:
        note = "waiting: the queue is full" if supply.holding else "queued"
        return Figures(supply.items, supply.items / total if total else None, note)

    await watch(sending, start.shown_on, figures)


async def _show(start: _Start, reembedding: Reembedding) -> None:
    """Show how far its latest run has come; when that is done, the rest takes no long time."""
    with contextlib.suppress(QueueError):
        run = await latest_run(start.queue, reembedding)
        if run is not None and run.items:
            start.shown_on.show(Figures(run.counts.done, run.counts.done / run.items))


# --- what is said in the end


async def _said(
    request: ReembedRequest,
    reembedding: Reembedding,
    supply: Supply | None,
    store: Store,
    queue: Queue,
    *,
    interrupted: bool,
) -> int:
    """Print what has come of it, and return the exit code."""
    if request.json:
        print(json.dumps(await reembedding_object(reembedding, store, queue)))
    elif request.wait:
        await _print_end(reembedding, store)
    else:
        _print_queued(reembedding, supply, interrupted=interrupted)
    if interrupted:
        print(
            "interrupted: what was queued stays queued, and a worker goes on; "
            f"'embedq reembed {shown(reembedding.collection)} --cancel' ends it",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED
    return EXIT_DEAD if request.wait and reembedding.state not in ("switched", "dropped") else EXIT_DONE


def _print_queued(reembedding: Reembedding, supply: Supply | None, *, interrupted: bool) -> None:
    """The run's id on stdout, and on stderr what was queued."""
    name, model_id = shown(reembedding.collection), reembedding.new_model
    if reembedding.run is not None:
        print(reembedding.run)
    if supply is None:
        print(f"{name} is being embedded with {model_id} already: chunks of it are queued", file=sys.stderr)
    else:
        entries = plural(supply.items, "entry", "entries")
        print(f"queued {entries} of {name} for {model_id}, beside {reembedding.old_model}", file=sys.stderr)
    if not interrupted:
        print("a worker embeds them, and switches when all are there: 'embedq worker' runs one", file=sys.stderr)


async def _print_end(reembedding: Reembedding, store: Store) -> None:
    name, old, new = shown(reembedding.collection), reembedding.old_model, reembedding.new_model
    if reembedding.state in ("switched", "dropped"):
        found = await store.collection(reembedding.collection)
        print(f"{name}: {plural(await store.count(found.id), 'entry', 'entries')}, embedded with {new} now, not {old}")
        dead = sum(part.letters for part in await store.dead.summary() if part.collection == reembedding.collection)
        if dead:
            print(f"{plural(dead, 'dead letter')}: see 'embedq dead list --collection {name}'", file=sys.stderr)
        if reembedding.state == "switched" and not reembedding.drop_old:
            print(
                f"the vectors of {old} are kept:\n"
                f"  'embedq collections rollback {name}' goes back to them\n"
                f"  'embedq collections drop-old {name}' drops them",
                file=sys.stderr,
            )
    elif reembedding.state == "stopped":
        print(f"embedq: the re-embedding of {name} has stopped: {reembedding.message}", file=sys.stderr)
    elif reembedding.state != "embedding":
        print(f"embedq: the re-embedding of {name} has ended: it was {reembedding.state}", file=sys.stderr)
