"""A lane: one model's queue, served by one arq worker, restarted as often as it takes."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, cast

import msgspec
import redis.exceptions
from arq.worker import Retry, Worker, func

from embedq_core.counts import Counts
from embedq_core.errors import (
    ChunkLost,
    ChunkUndecodable,
    DatabaseUnusable,
    EmbedqError,
    ModelMisconfigured,
    QueueError,
    RunCancelled,
)
from embedq_core.settings import Settings
from embedq_jobs import Chunk, Queue, decode_chunk, job_id, parse_job_id
from embedq_jobs.codec import BURY_CHUNK, EMBED_CHUNK
from embedq_jobs.errors import translated
from embedq_store import ChunkMark, DeadLetter, Store, Target, Write
from embedq_worker.admission import UNKNOWN, parse_size
from embedq_worker.cancelling import cancel
from embedq_worker.claims import Claims
from embedq_worker.leases import Leases
from embedq_worker.logs import about
from embedq_worker.outbox import WantsModel
from embedq_worker.picking import ChunkWorker
from embedq_worker.pipeline import process
from embedq_worker.quarantine import SUSPECT_LOSSES, Quarantine
from embedq_worker.runner import ModelRunner, Stopping, TransientFailure

_log = logging.getLogger("embedq.worker")

# How long a chunk waits for an earlier one of its run, for the database, and after an error of our own.
AFTER_SECONDS: Final = 0.2
LONGEST_AFTER_SECONDS: Final = 5.0
STORE_SECONDS: Final = 5.0
BUG_SECONDS: Final = 30.0

# How long jobs get to commit and to be handed back when the worker stops, whatever the grace.
COMMIT_SECONDS: Final = 5.0

# How long a model has refused everything when those who don't stay leave. The next look at it comes later: what one
# call is told, the next would be, too, and somebody may be waiting at a terminal.
UNMENDED_SECONDS: Final = 3.0

RECONNECT_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)


class Lane:
    """Serves the queue of one model until it is told to stop."""

    def __init__(
        self,
        queue: Queue,
        store: Store,
        runner: ModelRunner,
        *,
        settings: Settings,
        leases: Leases,
        claims: Claims,
    ) -> None:
        self.runner = runner
        self.jobs_done = 0
        self.broken: EmbedqError | None = None
        """Why there is no point in going on: a database that is corrupt does not mend itself."""
        self._queue = queue
        self._store = store
        self._settings = settings
        self._leases = leases
        self._claims = claims
        self._quarantine = Quarantine(runner.model, runner.telemetry)
        self._worker: ChunkWorker | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._draining = False

    @property
    def model_id(self) -> str:
        """The model that is served."""
        return self.runner.model.model_id

    @property
    def jobs_in_hand(self) -> int:
        """Jobs that are running here."""
        return 0 if self._worker is None else sum(not task.done() for task in self._worker.tasks.values())

    @property
    def bytes_in_hand(self) -> int:
        """Bytes of the chunks of those jobs: `inflight_bytes` at most, a quarter more with both priorities."""
        return 0 if self._worker is None else self._worker.bytes_in_hand

    @property
    def items_in_hand(self) -> int:
        """Items of the chunks of those jobs, as they were queued."""
        return 0 if self._worker is None else self._worker.items_in_hand

    @property
    def unmended(self) -> str | None:
        """What somebody has to mend before anything can be done here, where that has been so for a while."""
        return None if self.jobs_in_hand else self.runner.unmended(UNMENDED_SECONDS)

    def start(self, worker_id: str) -> None:
        """Begin to serve."""
        self._task = asyncio.create_task(self._supervise(worker_id), name=f"embedq-lane-{self.model_id}")

    def drain(self) -> None:
        """Take no more jobs; what is in hand goes on to its end."""
        self._draining = True
        if self._worker is not None:
            self._worker.stop_picking()

    @property
    def drained(self) -> bool:
        """Whether nothing is in hand, and nothing will be."""
        return self._draining and (self._task is None or self._task.done()) and not self.jobs_in_hand

    async def stop(self, grace_seconds: float) -> None:
        """Take no more jobs, let calls of the model end, hand the rest back. Nothing is lost."""
        deadline = time.monotonic() + grace_seconds
        self._stopping.set()
        if self._worker is not None:
            self._worker.stop_picking()
        quarantine = asyncio.create_task(self._quarantine.stop(grace_seconds))
        await self.runner.stop(grace_seconds)
        await quarantine
        # What the model has returned is still to be committed.
        left = max(deadline - time.monotonic(), COMMIT_SECONDS)
        if self._worker is not None:
            await _settle(self._worker, left)
        if self._task is not None:
            # A look that is going on may have taken leases: whoever has them must learn of it.
            await asyncio.wait([self._task], timeout=COMMIT_SECONDS)
            await cancel([self._task])
        # A poll that was going on may have started some more.
        if self._worker is not None:
            await _settle(self._worker, COMMIT_SECONDS)

    async def _supervise(self, worker_id: str) -> None:
        """Run arq's worker; when Redis goes away, say so once, and come back when it does."""
        failures = 0
        while not (self._stopping.is_set() or self._draining):
            self._worker = worker = self._new_worker(worker_id)
            began = time.monotonic()
            try:
                await worker.main()
            except (redis.exceptions.RedisError, OSError, QueueError) as error:
                # An attempt that found nobody there may have taken as long, and is no news.
                if worker.has_polled and time.monotonic() - began > max(RECONNECT_SECONDS):
                    failures = 0
                if failures == 0:
                    problem = error if isinstance(error, QueueError) else f"Redis at {self._queue.where}: {error}"
                    _log.warning("%s; waiting for it to come back", problem, extra=about(self.model_id))
            except Exception:  # whatever it was, the queue is served on
                _log.exception(
                    "serving %s failed in embedq itself; beginning again", self.model_id, extra=about(self.model_id)
                )
            if not (self._stopping.is_set() or self._draining):
                delay = RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)]
                failures += 1
                # What it has in hand is finished first, under the same leases.
                await _settle(worker, None)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), delay)

    def _new_worker(self, worker_id: str) -> ChunkWorker:
        return ChunkWorker(
            self._queue,
            self.runner,
            self._settings,
            lease_seconds=self._leases.seconds,
            lost=self._lost,
            functions=[
                func(self._embed_chunk, name=EMBED_CHUNK),
                func(self._bury_chunk, name=BURY_CHUNK),
            ],
            health_check_key=self._queue.names.health(f"{worker_id}:{self.model_id}"),
        )

    async def _embed_chunk(self, ctx: dict[Any, Any], payload: object) -> None:
        """Arq's job for a chunk."""
        job = str(ctx["job_id"])
        await self._kept(job, self._embed(job, payload, int(ctx["job_try"])))

    async def _bury_chunk(self, ctx: dict[Any, Any], raw: bytes, problem: str) -> None:
        """Arq's job for a payload that is none of ours."""
        job = str(ctx["job_id"])
        await self._kept(job, self._bury(job, raw, problem))

    async def _kept(self, job: str, work: Awaitable[None]) -> None:
        """Do `work` under the lease of `job`. It ends well, or with Retry: anything else would make arq drop it."""
        extra = about(self.model_id, job=job)
        with self._leases.held(job):
            try:
                await work
            except Stopping:
                raise Retry from None
            except TransientFailure as error:
                # What somebody has to mend was said once, for all chunks.
                level = logging.DEBUG if isinstance(error.error, ModelMisconfigured) else logging.WARNING
                _log.log(
                    level, "%s: giving %s back for %.0f s: %s", self.model_id, job, error.seconds, error, extra=extra
                )
                raise Retry(defer=error.seconds) from error
            except DatabaseUnusable as error:
                self.broken = error
                raise Retry(defer=STORE_SECONDS) from error
            except EmbedqError as error:
                _log.warning("%s: %s; trying again in %.0f s", job, error, STORE_SECONDS, extra=extra)
                raise Retry(defer=STORE_SECONDS) from error
            except Retry:
                raise
            except Exception as error:
                _log.exception("%s: failed in embedq itself; trying again in %.0f s", job, BUG_SECONDS, extra=extra)
                raise Retry(defer=BUG_SECONDS) from error
            finally:
                await self._queue.starts.end(job)

    async def _embed(self, job: str, payload: object, attempt: int) -> None:
        try:
            chunk = decode_chunk(payload)
            if job_id(chunk.run, chunk.number) == job and chunk.model_id != self.model_id and await self._gone(chunk):
                return
            if (job_id(chunk.run, chunk.number), chunk.model_id) != (job, self.model_id):
                raise ChunkUndecodable(  # noqa: TRY301 - buried like one that can't be read
                    f"the chunk is number {chunk.number} of run {chunk.run!r} for {chunk.model_id!r}: not this job's"
                )
        except ChunkUndecodable as error:
            await self._bury(job, payload if isinstance(payload, bytes) else b"", str(error))
            return
        if chunk.after and not await self._queue.runs.done(chunk.run, chunk.after):
            # Each look takes the whole payload out of Redis: the longer it has been waiting, the fewer looks.
            raise Retry(defer=min(AFTER_SECONDS * attempt, LONGEST_AFTER_SECONDS))
        began = time.monotonic()
        lost = 0 if self._worker is None else self._worker.losses.get(job, 0)
        high = self._worker is not None and self._worker.is_high(job)
        try:
            with self.runner.telemetry.in_hand(len(chunk.items)):
                async with self._place(job, lost) as runner:
                    report = partial(self._report, chunk.run, chunk.number)
                    counts = await process(chunk, runner, self._store, self._claims, report, high=high)
        except WantsModel as wanted:
            await self._hand_on(chunk, wanted)
            return
        await self._queue.runs.record(chunk.run, chunk.number, chunk.model_id, counts)
        if lost:
            await self._queue.starts.forget(job)
        self.jobs_done += 1
        self.runner.telemetry.chunk_done()
        _log.info(
            "%s: %d items for %r in %.2f s: %s",
            job,
            len(chunk.items),
            chunk.collection,
            time.monotonic() - began,
            ", ".join(f"{value} {name}" for name, value in counts.nonzero().items()),
            extra=about(self.model_id, job=job, collection=chunk.collection),
        )

    async def _hand_on(self, chunk: Chunk, wanted: WantsModel) -> None:
        """Put a chunk into the queue of the model that its collection has got since it was queued."""
        job = job_id(chunk.run, chunk.number)
        moved = msgspec.structs.replace(chunk, collection=wanted.collection, model_id=wanted.model_id)
        if self._worker is not None:
            # Before the attempt: when its answer is lost, the chunk may be there.
            self._worker.hand_on(job)
        try:
            forwarded = await self._queue.forwarding.forward(moved, self.model_id)
        except RunCancelled:
            if self._worker is not None:
                self._worker.keep(job)
            # Whoever meets it next takes it out.
            raise Retry from None
        if forwarded:
            _log.info(
                "%s: handed on to %s, which %r has now",
                job,
                wanted.model_id,
                wanted.collection,
                extra=about(self.model_id, job=job, collection=chunk.collection),
            )
        elif self._worker is not None:
            self._worker.keep(job)

    async def _gone(self, chunk: Chunk) -> bool:
        """Whether a chunk was handed on to its model's queue; what came back into this one is removed then."""
        job = job_id(chunk.run, chunk.number)
        if not await self._queue.forwarding.retract(chunk, self.model_id):
            return False
        if self._worker is not None:
            self._worker.hand_on(job)
        return True

    @asynccontextmanager
    async def _place(self, job: str, lost: int) -> AsyncIterator[ModelRunner]:
        """Where a chunk is embedded with which `lost` workers have died."""
        if lost < SUSPECT_LOSSES:
            yield self.runner
            return
        _log.warning(
            "%s: %d workers have died with it: it is embedded apart", job, lost, extra=about(self.model_id, job=job)
        )
        if self._worker is not None:
            self._worker.set_aside(job)
        async with self._quarantine.entered() as runner:
            yield runner

    async def _report(self, run: str, number: int, counts: Counts) -> None:
        """Say how far a chunk has come. That it can't be said just now is no reason to stop."""
        with contextlib.suppress(QueueError):
            await self._queue.runs.progress(run, number, counts)

    async def _lost(self, job: str) -> None:
        """A payload is gone that nobody has worked off: Redis has evicted it, or somebody has deleted it."""
        run, number = parse_job_id(job)
        if not await self._queue.runs.done(run, [number]):
            await self._bury(job, None, "Redis has lost the chunk (see its maxmemory-policy): submit its source again")

    async def _bury(self, job: str, raw: bytes | None, problem: str) -> None:
        """Keep what can't be read among the dead letters, byte for byte."""
        run, number = parse_job_id(job)
        with translated(self._queue.where):
            size = parse_size(
                await cast(
                    "Awaitable[bytes | None]",
                    self._queue.redis.hget(self._queue.names.load(self.model_id), job),
                )
            )
        counts = Counts(failed=1 if size is UNKNOWN else size.items)
        letter = DeadLetter(
            run=run,
            chunk=number,
            collection="",
            id=job,
            content=raw,
            metadata=None,
            model=self.model_id,
            error=ChunkUndecodable.__name__ if raw is not None else ChunkLost.__name__,
            message=problem,
            attempts=1,
            died=time.time(),
        )
        mark = ChunkMark(run, number, counts, finished=True)
        await self._store.write(Write(Target("", self.model_id), dead=[letter], mark=mark))
        await self._queue.runs.record(run, number, self.model_id, counts)
        self.runner.telemetry.settled(counts)
        self.runner.telemetry.died(letter.error, 1)
        _log.error("%s: %s: kept among the dead letters", job, problem, extra=about(self.model_id, job=job))


async def _settle(worker: Worker, grace_seconds: float | None) -> None:
    """Wait for the jobs that a worker has in hand; after the grace, cancel them: they go back to the queue."""
    tasks = [task for task in worker.tasks.values() if not task.done()]
    if not tasks:
        return
    await asyncio.wait(tasks, timeout=grace_seconds)
    await cancel(tasks)
    for task in tasks:
        if not task.cancelled() and task.exception() is not None:
            # Its lease will run out, and then it is free.
            _log.debug("a job could not be handed back: %s", task.exception())


def quiet_libraries(level: int = logging.WARNING) -> None:
    """Keep the log lines of libraries to what matters: those of arq and aiosqlite hold payloads and contents, those
    of httpx one line for each request.
    """
    for name in ("arq", "aiosqlite", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(level)
