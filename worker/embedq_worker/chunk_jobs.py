"""What is done with a job that was picked up: a chunk is embedded, handed on, or buried, and the job ends well."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, cast

import msgspec
from arq.worker import Function, Retry, func

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
from embedq_jobs import Chunk, Queue, decode_chunk, job_id, parse_job_id
from embedq_jobs.codec import BURY_CHUNK, EMBED_CHUNK
from embedq_jobs.errors import translated
from embedq_store import ChunkMark, DeadLetter, Store, Target, Write
from embedq_worker.admission import UNKNOWN, parse_size
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

# How long Redis may take to hear how far a chunk has come: what the model returns meanwhile is not committed.
REPORT_SECONDS: Final = 2.0


class ChunkJobs:
    """arq's jobs of one lane. `worker` is to be set before the first."""

    worker: ChunkWorker
    """Who has picked the jobs up."""

    def __init__(self, queue: Queue, store: Store, runner: ModelRunner, leases: Leases, claims: Claims) -> None:
        self.done = 0
        """Chunks that were done."""
        self.broken: EmbedqError | None = None
        """Why there is no point in going on: a database that is corrupt does not mend itself."""
        self.quarantine = Quarantine(runner.model, runner.telemetry)
        """Where chunks are embedded with which workers have died."""
        self._queue = queue
        self._store = store
        self._runner = runner
        self._model_id = runner.model.model_id
        self._leases = leases
        self._claims = claims

    @property
    def functions(self) -> list[Function]:
        """What arq calls."""
        return [func(self._embed_chunk, name=EMBED_CHUNK), func(self._bury_chunk, name=BURY_CHUNK)]

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
        extra = about(self._model_id, job=job)
        with self._leases.held(job):
            try:
                await work
            except Stopping:
                raise Retry from None
            except TransientFailure as error:
                # What somebody has to mend was said once, for all chunks.
                level = logging.DEBUG if isinstance(error.error, ModelMisconfigured) else logging.WARNING
                _log.log(
                    level, "%s: giving %s back for %.0f s: %s", self._model_id, job, error.seconds, error, extra=extra
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
            if job_id(chunk.run, chunk.number) == job and chunk.model_id != self._model_id and await self._gone(chunk):
                return
            if (job_id(chunk.run, chunk.number), chunk.model_id) != (job, self._model_id):
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
        lost = self.worker.losses.get(job, 0)
        high = self.worker.is_high(job)
        try:
            with self._runner.telemetry.in_hand(len(chunk.items)):
                async with self._place(job, lost) as runner:
                    report = partial(self._report, chunk.run, chunk.number)
                    waiting = partial(self.worker.waiting, job)
                    counts = await process(chunk, runner, self._store, self._claims, report, high=high, waiting=waiting)
        except WantsModel as wanted:
            await self._hand_on(chunk, wanted)
            return
        await self._queue.runs.record(chunk.run, chunk.number, chunk.model_id, counts)
        if lost:
            await self._queue.starts.forget(job)
        self.done += 1
        self._runner.telemetry.chunk_done()
        _log.info(
            "%s: %d items for %r in %.2f s: %s",
            job,
            len(chunk.items),
            chunk.collection,
            time.monotonic() - began,
            ", ".join(f"{value} {name}" for name, value in counts.nonzero().items()),
            extra=about(self._model_id, job=job, collection=chunk.collection),
        )

    async def _hand_on(self, chunk: Chunk, wanted: WantsModel) -> None:
        """Put a chunk into the queue of the model that its collection has got since it was queued."""
        job = job_id(chunk.run, chunk.number)
        moved = msgspec.structs.replace(chunk, collection=wanted.collection, model_id=wanted.model_id)
        # Before the attempt: when its answer is lost, the chunk may be there.
        self.worker.hand_on(job)
        try:
            forwarded = await self._queue.forwarding.forward(moved, self._model_id)
        except RunCancelled:
            self.worker.keep(job)
            # Whoever meets it next takes it out.
            raise Retry from None
        if forwarded:
            _log.info(
                "%s: handed on to %s, which %r has now",
                job,
                wanted.model_id,
                wanted.collection,
                extra=about(self._model_id, job=job, collection=chunk.collection),
            )
        else:
            self.worker.keep(job)

    async def _gone(self, chunk: Chunk) -> bool:
        """Whether a chunk was handed on to its model's queue; what came back into this one is removed then."""
        job = job_id(chunk.run, chunk.number)
        if not await self._queue.forwarding.retract(chunk, self._model_id):
            return False
        self.worker.hand_on(job)
        return True

    @asynccontextmanager
    async def _place(self, job: str, lost: int) -> AsyncIterator[ModelRunner]:
        """Where a chunk is embedded with which `lost` workers have died."""
        if lost < SUSPECT_LOSSES:
            yield self._runner
            return
        _log.warning(
            "%s: %d workers have died with it: it is embedded apart", job, lost, extra=about(self._model_id, job=job)
        )
        self.worker.set_aside(job)
        async with self.quarantine.entered() as runner:
            yield runner

    async def _report(self, run: str, number: int, counts: Counts) -> None:
        """Say how far a chunk has come. That it can't be said just now is no reason to stop."""
        with suppress(QueueError, TimeoutError):
            async with asyncio.timeout(REPORT_SECONDS):
                await self._queue.runs.progress(run, number, counts)

    async def lost(self, job: str) -> None:
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
                    self._queue.redis.hget(self._queue.names.load(self._model_id), job),
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
            model=self._model_id,
            error=ChunkUndecodable.__name__ if raw is not None else ChunkLost.__name__,
            message=problem,
            attempts=1,
            died=time.time(),
        )
        mark = ChunkMark(run, number, counts, finished=True)
        await self._store.write(Write(Target("", self._model_id), dead=[letter], mark=mark))
        await self._queue.runs.record(run, number, self._model_id, counts)
        self._runner.telemetry.settled(counts)
        self._runner.telemetry.died(letter.error, 1)
        _log.error("%s: %s: kept among the dead letters", job, problem, extra=about(self._model_id, job=job))
