"""A lane: one model's queue, served by one arq worker, restarted as often as it takes."""

import asyncio
import contextlib
import logging
import time
from typing import Final

import redis.exceptions
from arq.worker import Worker

from embedq_core.cancelling import cancel
from embedq_core.errors import EmbedqError, QueueError
from embedq_core.settings import Settings
from embedq_jobs import Queue
from embedq_store import Store
from embedq_worker.chunk_jobs import ChunkJobs
from embedq_worker.claims import Claims
from embedq_worker.leases import Leases
from embedq_worker.logs import about
from embedq_worker.picking import ChunkWorker
from embedq_worker.runner import ModelRunner

_log = logging.getLogger("embedq.worker")

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
        self._queue = queue
        self._settings = settings
        self._lease_seconds = leases.seconds
        self._jobs = ChunkJobs(queue, store, runner, leases, claims)
        self._worker: ChunkWorker | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._draining = False

    @property
    def model_id(self) -> str:
        """The model that is served."""
        return self.runner.model.model_id

    @property
    def jobs_done(self) -> int:
        """Chunks that were done here."""
        return self._jobs.done

    @property
    def broken(self) -> EmbedqError | None:
        """Why there is no point in going on."""
        return self._jobs.broken

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
        if self.jobs_in_hand:
            return None
        return self.runner.unmended(UNMENDED_SECONDS) or self._jobs.quarantine.unmended(UNMENDED_SECONDS)

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
        quarantine = asyncio.create_task(self._jobs.quarantine.stop(grace_seconds))
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
            self._worker = self._jobs.worker = worker = self._new_worker(worker_id)
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
            lease_seconds=self._lease_seconds,
            lost=self._jobs.lost,
            functions=self._jobs.functions,
            health_check_key=self._queue.names.health(f"{worker_id}:{self.model_id}"),
        )


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
