"""What `submit` does, and what it shares with `ingest`: watching, waiting, stopping."""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from signal import SIGINT, SIGTERM

from embedq_core.cancelling import cancel
from embedq_core.errors import QueueError
from embedq_core.settings import Settings, load_settings
from embedq_core.text import shown
from embedq_jobs import Patience, Queue, RunSummary, open_queue
from embedq_producer.corpus import open_corpus, split
from embedq_producer.corpus_options import CorpusRequest
from embedq_producer.dry_run import dry_run
from embedq_producer.models import check_binary, choose_model, full_batch
from embedq_producer.pausing import PauseWatch
from embedq_producer.pruning import Pruned, Pruning, pruning_asked_for
from embedq_producer.readers import Reader
from embedq_producer.submission import Submission, new_submission, submit
from embedq_producer.summary import (
    print_submitted,
    print_summary,
    pruned_exit_code,
    submission_exit_code,
    summary_exit_code,
)
from embedq_producer.terminal import Display, Figures, RowReport, display

WATCH_SECONDS = 0.1


def run_submit(request: CorpusRequest, *, wait: bool) -> None:
    """Submit, print the run's id, and with `wait` its summary. Exits with 0, 1 or 130."""
    settings = load_settings(database=request.database)
    with pruning_asked_for(request, settings) as pruning:
        doing = (
            dry_run(request, settings, pruning) if request.dry_run else _submit(request, settings, pruning, wait=wait)
        )
        sys.exit(asyncio.run(doing))


async def _submit(request: CorpusRequest, settings: Settings, pruning: Pruning | None, *, wait: bool) -> int:
    report = RowReport()
    reader = await asyncio.to_thread(open_corpus, request, settings, report)
    async with open_queue(settings) as queue:
        model = await choose_model(request.collection, request.model, settings, queue)
        check_binary(model, request)
        split(reader, request, model)
        if pruning is not None:
            pruning.watch(reader)
        submission = new_submission(
            request.collection, model.model_id, reader.describe(), request.priority, full_batch(model)
        )
        with display(request.collection) as shown_on:
            report.display = shown_on
            stop = stop_on_interrupt()
            patience = Patience(settings.patience_seconds, lambda text: say(text, shown_on), stop.is_set)
            sending = asyncio.create_task(
                submit(submission, reader, queue, settings, store=request.store, stop=stop.is_set, patience=patience)
            )
            await watch(sending, shown_on, lambda: _figures(submission, reader))
            report.display = None
        interrupted = stop.is_set()
        if not wait or interrupted:
            pruned = await prune(pruning, submission, stop)
            print_submitted(submission, as_json=request.json, interrupted=interrupted, pruned=pruned)
            await _say_paused(queue, submission)
            return pruned_exit_code(submission_exit_code(submission, interrupted=stop.is_set()), pruned)
        summary = await wait_for_run(queue, submission.run.id, request.collection, settings, stop)
        pruned = await prune(pruning, submission, stop)
        print_summary(summary, settings, submission, as_json=request.json, pruned=pruned)
        if stop.is_set():
            print("interrupted: what was queued stays queued", file=sys.stderr)
        return pruned_exit_code(summary_exit_code(summary, submission, interrupted=stop.is_set()), pruned)


async def _say_paused(queue: Queue, submission: Submission) -> None:
    """Say it where nobody will take in hand just now what was queued. That it can't be asked is no failure."""
    with contextlib.suppress(QueueError):
        run = submission.run
        await PauseWatch(queue, run.model_id, run.collection, _to_stderr).note()


def _to_stderr(text: str) -> None:
    print(f"embedq: {shown(text)}", file=sys.stderr)


async def prune(pruning: Pruning | None, submission: Submission, stop: asyncio.Event) -> Pruned | None:
    """Remove what the source no longer has, if that is asked for. Where it is much, a person at a terminal is asked."""
    return None if pruning is None else await pruning.run(submission, _confirmed, stop.is_set)


def _confirmed(question: str) -> bool:
    """Whether somebody at a terminal says yes; False where nobody is there."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    from typer import Abort, confirm

    # Ctrl-C ends the question as it ends others.
    asyncio.get_running_loop().remove_signal_handler(SIGINT)
    try:
        return confirm(question, err=True)
    except Abort:
        return False


def stop_on_interrupt() -> asyncio.Event:
    """An event that the first Ctrl-C, and SIGTERM, set; the second Ctrl-C ends the process as usual."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def interrupted() -> None:
        stop.set()
        loop.remove_signal_handler(SIGINT)

    loop.add_signal_handler(SIGINT, interrupted)
    loop.add_signal_handler(SIGTERM, stop.set)
    return stop


async def watch(task: "asyncio.Task[object]", shown_on: Display, figures: Callable[[], Figures]) -> None:
    """Show figures while `task` runs, and once at its end. Raises what it raises. However this ends, so has `task`."""
    try:
        while True:
            done, _ = await asyncio.wait([task], timeout=WATCH_SECONDS)
            shown_on.show(figures())
            if done:
                await task
                return
    finally:
        await cancel([task])


def read_share(reader: Reader, *, sent: bool) -> float | None:
    """How much of the corpus has been read, in [0, 1]; None where its size is not known."""
    return 1.0 if sent else reader.share


def _figures(submission: Submission, reader: Reader) -> Figures:
    note = "waiting: the queue is full" if submission.holding else ""
    return Figures(submission.items, read_share(reader, sent=submission.sent), note)


def say(text: str, shown_on: Display) -> None:
    """Print a line of embedq's own between the figures."""
    shown_on.line(f"embedq: {shown(text)}")


async def wait_for_run(queue: Queue, run: str, title: str, settings: Settings, stop: asyncio.Event) -> RunSummary:
    """Show the progress of a run until it is complete, or interrupted with nothing left, or `stop` is set.

    A Redis that goes away is waited for. Raises RedisUnreachable when it stays away.
    """
    with display(title) as shown_on:
        patience = Patience(settings.patience_seconds, lambda text: say(text, shown_on), stop.is_set)
        paused: PauseWatch | None = None
        while True:
            summary = await patience.insist(lambda: queue.runs.summary(run))
            paused = paused or PauseWatch(
                queue, summary.run.model_id, summary.run.collection, lambda text: say(text, shown_on)
            )
            note = "" if summary.settled else await patience.insist(paused.note)
            share = summary.counts.ended / summary.items if summary.items and summary.closed else None
            shown_on.show(Figures(summary.counts.done, share, note))
            if summary.settled or stop.is_set():
                return summary
            await asyncio.sleep(WATCH_SECONDS)
