"""Submitting a corpus: read, cut into chunks, queue, hold back while the queue is full."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from embedq_core.errors import RunCancelled, SourceError
from embedq_core.priority import SHARE, Priority
from embedq_core.settings import Settings
from embedq_jobs import Patience, Queue, Run, new_run_id
from embedq_producer.reading import Corpus, Reading
from embedq_producer.sending import Sender

_log = logging.getLogger("embedq.producer")

HOLD_SECONDS = 0.05
# A producer that waits says so often that it is there, and hears whether it need not wait.
BEAT_SECONDS = 1.0


@dataclass(slots=True)
class Submission:
    """A run on its way into the queue: grows while it is submitted.

    `problem` is why the corpus could not be read to its end, if it could not; what came before is queued. With
    `cancelled`, somebody has cancelled the run: nothing more of it was sent.
    """

    run: Run
    items: int = 0
    chunks: int = 0
    duplicates: int = 0
    skipped: int = 0
    holding: bool = False
    sent: bool = False
    cancelled: bool = False
    problem: SourceError | None = field(default=None)


def new_submission(
    collection: str, model_id: str, source: str, priority: Priority = Priority.NORMAL, batch_size: int | None = None
) -> Submission:
    """A submission that has not begun; `batch_size` is that of the model, where it alone says how full a batch is."""
    return Submission(Run(new_run_id(), collection, model_id, source, time.time(), priority, batch_size))


async def submit(
    submission: Submission,
    reader: Corpus,
    queue: Queue,
    settings: Settings,
    *,
    store: bool,
    stop: Callable[[], bool] = lambda: False,
    patience: Patience | None = None,
    mends: bool = False,
) -> Submission:
    """Queue everything that `reader` gives, as `submission.run`, until its end or until `stop` says so.

    When it returns, Redis has what was counted. Memory does not grow with the corpus: one chunk is read while
    another is sent, and no more is sent while the queue of the model holds `settings.queue_bytes`; a high run may fill
    a quarter more, since a backfill takes whatever room there is. A Redis that goes away, or is full, is waited for, as
    long as `patience` allows, else `settings.patience_seconds`. Raises RedisUnreachable or RedisFull when that is over,
    ChunkLost when Redis came back without some of what it had, and RowError where reading is strict; the run then
    counts as interrupted. One that is cancelled ends early, and well. `mends`: see `embedq_jobs.Chunk`.
    """
    patience = patience or Patience(settings.patience_seconds, _log.warning, stop)
    sender = Sender(submission.run, queue, patience, mends=mends)
    await sender.open()
    limit = int(settings.queue_bytes * (1 + (SHARE if submission.run.priority is Priority.HIGH else 0)))
    interrupted = True
    try:
        async with Reading(reader, max_items=settings.chunk_items, max_bytes=settings.chunk_bytes, stop=stop) as pieces:
            await _send(submission, reader, pieces, sender, limit, store=store, stop=stop)
            if not submission.cancelled:
                await sender.check(submission.chunks)
        interrupted = stop() or submission.problem is not None
    finally:
        submission.skipped = reader.rejected
        submission.sent = True
        await sender.close(
            submission.chunks,
            skipped=submission.skipped,
            duplicates=submission.duplicates,
            interrupted=interrupted,
        )
    return submission


async def _send(
    submission: Submission,
    reader: Corpus,
    pieces: Reading,
    sender: Sender,
    limit: int,
    *,
    store: bool,
    stop: Callable[[], bool],
) -> None:
    """Send the chunks while there is room for them, and count them."""
    # What others have queued is not known before somebody asks.
    queued = limit
    try:
        async for piece in pieces:
            if stop() or (queued >= limit and not await _room(submission, sender, limit, stop)):
                return
            queued = await sender.send(piece, store=store)
            submission.chunks += 1
            submission.items += len(piece.items)
            submission.duplicates += piece.duplicates
            submission.skipped = reader.rejected
    except RunCancelled:
        submission.cancelled = True
    except SourceError as error:
        if type(error) is not SourceError:
            raise
        submission.problem = error


async def _room(submission: Submission, sender: Sender, limit: int, stop: Callable[[], bool]) -> bool:
    """Wait until the queue has room. False if `stop` says so before."""
    beat = time.monotonic()
    while await sender.bytes_queued() >= limit:
        if stop():
            return False
        submission.holding = True
        if time.monotonic() - beat > BEAT_SECONDS:
            beat = time.monotonic()
            await sender.beat()
        await asyncio.sleep(HOLD_SECONDS)
    submission.holding = False
    return True
