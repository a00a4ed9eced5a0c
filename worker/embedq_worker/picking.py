"""Picking jobs up: arq's worker, taught what fits in hand. With the lane, the only place that knows arq's insides."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypedDict

from arq.constants import retry_key_prefix
from arq.worker import Worker

from embedq_core.settings import Settings
from embedq_jobs import Queue
from embedq_jobs.codec import dump_job, load_job
from embedq_jobs.names import lease_key
from embedq_jobs.queue import EXPIRES_MS
from embedq_worker.admission import JobSize, admit, full, parse_size
from embedq_worker.leases import LEASE_SECONDS
from embedq_worker.runner import ModelRunner

POLL_SECONDS: Final = 0.05
# Many, since jobs may be of one item each; what is really taken in hand is decided by admission.
MAX_JOBS: Final = 512
# Jobs in hand keep their place at the head of arq's queue: fewer than all of the fleet's would hide the rest.
READ_LIMIT: Final = 8192
FOR_EVER_SECONDS: Final = 10 * 365 * 24 * 3600
FOR_EVER_TRIES: Final = 2**31


class _Limits(TypedDict):
    max_bytes: int
    items_per_second: float


class ChunkWorker(Worker):
    """arq's worker, taught what fits in hand, and to look for more as soon as something is done.

    arq walks every job at the head of its queue at each poll, the running ones too, one round trip after the
    other; here one request tells which are free and what they weigh, and only those that fit are started.
    """

    def __init__(
        self,
        queue: Queue,
        runner: ModelRunner,
        settings: Settings,
        *,
        lease_seconds: float,
        lost: Callable[[str], Awaitable[None]],
        **options: Any,  # noqa: ANN401 - whatever arq's worker takes
    ) -> None:
        super().__init__(
            queue_name=queue.names.queue(runner.model.model_id),
            redis_pool=queue.redis,
            handle_signals=False,
            max_jobs=MAX_JOBS,
            job_timeout=FOR_EVER_SECONDS,
            max_tries=FOR_EVER_TRIES,
            keep_result=0,
            poll_delay=POLL_SECONDS,
            queue_read_limit=READ_LIMIT,
            job_serializer=dump_job,
            job_deserializer=load_job,
            expires_extra_ms=EXPIRES_MS,
            health_check_interval=LEASE_SECONDS,
            log_results=False,
            **options,
        )
        # The lease that a job gets when it is picked up; arq would derive it from the job timeout.
        self.in_progress_timeout_s = lease_seconds
        self._lost = lost
        self._names = queue.names
        self._runner = runner
        self._max_bytes = settings.inflight_bytes
        self._sizes: dict[str, JobSize] = {}
        self._starts = queue.starts
        self.losses: dict[str, int] = {}
        """Of each job in hand, how many workers died with it."""
        self._handed_on: set[str] = set()
        self._done = asyncio.Event()

    async def main(self) -> None:
        """Poll while jobs may be picked: regularly, and at once when one is done. Raises what Redis raises."""
        while self.allow_pick_jobs:
            self._done.clear()
            await self._poll_iteration()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._done.wait(), self.poll_delay_s)

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Start those of `job_ids` that are free and fit; none while the model is out of order."""
        if self._runner.out_of_order:
            return
        in_hand = {job for job, task in self.tasks.items() if not task.done()}
        self._sizes = {job: size for job, size in self._sizes.items() if job in in_hand}
        limits: _Limits = {"max_bytes": self._max_bytes, "items_per_second": self._runner.items_per_second}
        if full(self._sizes.values(), **limits):
            return
        waiting = await self._free([job for job in (name.decode() for name in job_ids) if job not in self.tasks])
        if not waiting:
            return
        taken = admit(waiting, self._sizes.values(), **limits)
        self._sizes |= {job: size for job, size in waiting if job in set(taken)}
        self.losses = {job: lost for job, lost in self.losses.items() if job in in_hand}
        self.losses |= dict(zip(taken, await self._starts.begin(taken), strict=True))
        self._runner.coming(taken)
        try:
            await super().start_jobs([job.encode() for job in taken])
        finally:
            for job in taken:
                if job in self.tasks:
                    self.tasks[job].add_done_callback(partial(self._ended, job))
                else:
                    # Another worker was quicker, or Redis went away.
                    self._runner.came(job)
                    await self._starts.end(job)

    def _ended(self, job: str, _: object) -> None:
        self._runner.came(job)
        self._done.set()

    def set_aside(self, job: str) -> None:
        """A job that is suspect takes memory, but not the model: others are taken in hand beside it."""
        if job in self._sizes:
            self._sizes[job] = JobSize(self._sizes[job].bytes, 0)

    async def _free(self, jobs: list[str]) -> list[tuple[str, JobSize]]:
        """The first of `jobs` that no other worker has in hand, as many as may be started, and what they weigh."""
        free: list[tuple[str, JobSize]] = []
        for start in range(0, len(jobs), MAX_JOBS):
            some = jobs[start : start + MAX_JOBS]
            async with self.pool.pipeline(transaction=False) as pipe:
                pipe.mget([lease_key(job) for job in some])
                pipe.hmget(self._names.load(self._runner.model.model_id), some)
                leases, sizes = await pipe.execute()
            free.extend(
                (job, parse_size(size)) for job, lease, size in zip(some, leases, sizes, strict=True) if lease is None
            )
            if len(free) >= MAX_JOBS:
                break
        return free

    @property
    def bytes_in_hand(self) -> int:
        """Bytes of the jobs that are running."""
        return sum(self._sizes[job].bytes for job, task in self.tasks.items() if job in self._sizes and not task.done())

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        """What arq does with a job that it gives up, which here is only one whose payload is gone: say so first."""
        await self._lost(job_id)
        await super().finish_failed_job(job_id, result_data)

    def hand_on(self, job: str) -> None:
        """A job in hand goes to the queue of another model, or may have gone: its payload is that queue's."""
        self._handed_on.add(job)

    def keep(self, job: str) -> None:
        """It was done already, and stays."""
        self._handed_on.discard(job)

    async def finish_job(self, job_id: str, finish: bool, *arguments: Any) -> None:  # noqa: ANN401 - as arq's
        """What arq does with a job that has ended, or that goes back. Of one that was handed on only the lease goes:
        from then on, workers of the other model may take it.
        """
        if job_id not in self._handed_on:
            await super().finish_job(job_id, finish, *arguments)
            return
        self._handed_on.discard(job_id)
        await self.pool.delete(lease_key(job_id), f"{retry_key_prefix}{job_id}")
