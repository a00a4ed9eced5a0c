"""Submitting a corpus and embedding it in one process, with one progress display."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from embedq_core.cancelling import cancel, unless
from embedq_core.errors import ModelMisconfigured
from embedq_core.settings import Settings, load_settings
from embedq_core.text import shown
from embedq_jobs import Patience, Queue, RunSummary, open_queue
from embedq_jobs.checks import server_warnings
from embedq_plugins import plugin_problems, require_library
from embedq_producer.corpus import open_corpus, split
from embedq_producer.corpus_options import CorpusRequest
from embedq_producer.dry_run import dry_run
from embedq_producer.models import check_binary, choice_of_model, full_batch
from embedq_producer.pausing import PauseWatch
from embedq_producer.pruning import Pruning, pruning_asked_for
from embedq_producer.readers import Reader
from embedq_producer.submission import Submission, new_submission, submit
from embedq_producer.submitting import WATCH_SECONDS, prune, read_share, say, stop_on_interrupt
from embedq_producer.summary import EXIT_DEAD, print_summary, pruned_exit_code, summary_exit_code
from embedq_producer.terminal import Display, Figures, RowReport, display
from embedq_store import Store
from embedq_worker.service import ServiceOptions, serve

# How long what was done at the end may take without a word.
QUIET_SECONDS: Final = 1.0

_T = TypeVar("_T")


def run_ingest(request: CorpusRequest) -> None:
    """Ingest, print the summary, exit with 0 (done), 1 (some items dead) or 130 (interrupted)."""
    settings = load_settings(database=request.database)
    with pruning_asked_for(request, settings) as pruning:
        doing = dry_run(request, settings, pruning) if request.dry_run else _ingest(request, settings, pruning)
        sys.exit(asyncio.run(doing))


async def _ingest(request: CorpusRequest, settings: Settings, pruning: Pruning | None) -> int:
    for problem in plugin_problems():
        print(f"embedq: plugin {shown(problem.plugin)}: {shown(problem.message)}", file=sys.stderr)
    report = RowReport()
    reader = await asyncio.to_thread(open_corpus, request, settings, report)
    async with open_queue(settings) as queue:
        choice = await choice_of_model(request.collection, request.model, settings, queue)
        model = choice.model
        check_binary(model, request)
        split(reader, request, model)
        if pruning is not None:
            pruning.watch(reader)
        if choice.by_default:
            print(
                f"model: {model.model_id}, which compares words and not meanings; "
                "name another with -m (see 'embedq models')",
                file=sys.stderr,
            )
        await queue.announce(model.model_id)
        stop = stop_on_interrupt()
        submission = new_submission(
            request.collection, model.model_id, reader.describe(), request.priority, full_batch(model)
        )
        to_mend: ModelMisconfigured | None = None
        with display(request.collection) as shown_on:
            report.display = shown_on
            try:
                async with working(settings, queue, shown_on, stop, needs=model.model_id) as serving:
                    if serving is not None:
                        # Before anything is queued for which there would be no worker.
                        require_library(model)
                        model.check_setup()
                    # A worker in this process says it, too.
                    tell = (lambda text: say(text, shown_on)) if serving is None else (lambda _: None)
                    watching = asyncio.create_task(
                        ingest_run(
                            submission,
                            reader,
                            queue,
                            settings,
                            store=request.store,
                            stop=stop,
                            shown_on=shown_on,
                            patience=Patience(settings.patience_seconds, tell, stop.is_set),
                        )
                    )
                    summary = await first_of(watching, serving, stop)
                    interrupted = stop.is_set()
                    drained = interrupted and serving is not None and serving.done()
            except ModelMisconfigured as error:
                # What is said before anything is queued is another matter.
                if not submission.chunks:
                    raise
                # Nothing is pruned then.
                stop.set()
                to_mend, interrupted, drained = error, True, False
            report.display = None
        if interrupted:
            # Since then the worker has committed what it had in hand.
            summary = await queue.runs.summary(submission.run.id)
    pruned = await prune(pruning, submission, stop)
    print_summary(summary, settings, submission, as_json=request.json, pruned=pruned)
    if interrupted:
        left = f"{'drained' if drained else 'interrupted'}: {summary.items - summary.counts.ended:,} items stay queued;"
        why = left if to_mend is None else f"embedq: {to_mend}; then"
        print(f"{why} the same command, or 'embedq worker --burst', goes on", file=sys.stderr)
    if drained or to_mend is not None:
        return EXIT_DEAD
    interrupted = interrupted or (pruned is not None and stop.is_set())
    return pruned_exit_code(summary_exit_code(summary, submission, interrupted=interrupted), pruned)


async def ingest_run(
    submission: Submission,
    reader: Reader,
    queue: Queue,
    settings: Settings,
    *,
    store: bool,
    stop: asyncio.Event,
    shown_on: Display,
    patience: Patience,
) -> RunSummary:
    """Submit the corpus and wait until all of it is stored or dead, or until `stop` is set."""
    sending = asyncio.create_task(
        submit(submission, reader, queue, settings, store=store, stop=stop.is_set, patience=patience)
    )
    run = submission.run.id
    paused = PauseWatch(queue, submission.run.model_id, submission.run.collection, lambda text: say(text, shown_on))
    try:
        while True:
            await asyncio.wait([sending], timeout=WATCH_SECONDS)
            if sending.done():
                await sending
            if submission.chunks or sending.done():
                summary = await patience.insist(lambda: queue.runs.summary(run))
                note = "" if summary.settled else await patience.insist(paused.note)
                shown_on.show(_figures(submission, reader, summary, note))
                if sending.done() and (summary.settled or stop.is_set()):
                    return summary
                if sending.done():
                    await asyncio.sleep(_patience(summary))
    finally:
        await cancel([sending])


async def first_of(wanted: "asyncio.Task[_T]", serving: "asyncio.Task[None] | None", stop: asyncio.Event) -> _T:
    """What `wanted` returns. Raises what `serving` raises if it breaks off before; where it ends well, it was drained,
    and `stop` is set.
    """
    if serving is not None:
        await asyncio.wait([wanted, serving], return_when=asyncio.FIRST_COMPLETED)
        if not wanted.done() and serving.exception() is None:
            stop.set()
        elif not wanted.done():
            await cancel([wanted])
            await serving
    return await wanted


def _patience(summary: RunSummary) -> float:
    """A short run is looked at more often: its end should be seen at once."""
    return min(WATCH_SECONDS, max(0.005, summary.seconds / 20))


def _figures(submission: Submission, reader: Reader, summary: RunSummary, note: str) -> Figures:
    """The share of the whole: what has been read of the corpus, times what is done of what was queued."""
    read = read_share(reader, sent=submission.sent)
    share = None if read is None or not summary.items else read * summary.counts.ended / summary.items
    return Figures(summary.counts.done, share, note)


@asynccontextmanager
async def working(
    settings: Settings, queue: Queue, shown_on: Display, stop: asyncio.Event, *, needs: str | None = None
) -> AsyncIterator["asyncio.Task[None] | None"]:
    """A worker in this process while the block runs, unless others serve the queue already, and will; its task.

    Raises ModelMisconfigured where somebody has to mend the model that it `needs`. Where the block has ended well,
    searches are prepared, unless `stop` is set.
    """
    if settings.redis_url is not None and any(not report.get("draining") for report in await queue.live_workers()):
        yield None
        return
    for warning in await server_warnings(queue):
        print(f"embedq: {warning}", file=sys.stderr)
    with _logged_to(shown_on):
        async with await Store.open(settings.database, busy_seconds=settings.busy_seconds) as store:
            ended = asyncio.Event()
            serving = asyncio.create_task(serve(settings, ServiceOptions(needs=needs), queue, store, ended))
            try:
                yield serving
                if store.copies_due:
                    await unless(stop, _prepare_searches(store, shown_on))
            finally:
                ended.set()
                await serving


async def _prepare_searches(store: Store, shown_on: Display) -> None:
    """Put what was written into the mapped copies, so that the first search needs not."""
    preparing = asyncio.create_task(store.refresh_copies(lambda: True))
    try:
        await asyncio.wait([preparing], timeout=QUIET_SECONDS)
        if not preparing.done():
            say("all is stored; preparing the first search (Ctrl-C leaves that to it)", shown_on)
        await preparing
    finally:
        await cancel([preparing])


@contextlib.contextmanager
def _logged_to(shown_on: Display) -> Iterator[None]:
    """Warnings of the worker appear between the figures."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = f"embedq: {shown(record.getMessage())}"
            shown_on.line(text)

    handler = Lines(logging.WARNING)
    logger = logging.getLogger("embedq")
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
