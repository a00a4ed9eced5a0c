"""Picking jobs up: arq's worker, taught what fits in hand. With `lane` and `chunk_jobs`, all that knows arq."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypedDict

from arq.worker import Worker

from embedq_core.settings import Settings
from embedq_jobs import Queue, holding
from embedq_jobs.codec import dump_job, load_job
from embedq_jobs.names import lease_key, tries_key
from embedq_jobs.pauses import parse_pauses
from embedq_jobs.queue import EXPIRES_MS
from embedq_jobs.scores import high_score
from embedq_worker.admission import MOST_JOBS, JobSize, admit, full, parse_size
from embedq_worker.leases import LEASE_SECONDS
from embedq_worker.runner import ModelRunner

POLL_SECONDS: Final = 0.05
# While the model is paused: how late its lane may notice that it is no longer.
PAUSED_POLL_SECONDS: Final = 0.5
# Jobs in hand keep their place at the head of their priority: fewer than all of the fleet's would hide the rest.
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
            job_timeout=FOR_EVER_SECONDS,
            max_tries=FOR_EVER_TRIES,
            keep_result=0,
            poll_delay=POLL_SECONDS,
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
        self._queue = queue
        self._names = queue.names
        self._runner = runner
        self._max_bytes = settings.inflight_bytes
        self._sizes: dict[str, JobSize] = {}
        self._paused = False
        self._high: set[str] = set()
        self.has_polled = False
        """Whether it has looked for jobs once, and Redis was there."""
        self.losses: dict[str, int] = {}
        """Of each job in hand, how many workers died with it."""
        self._scores: dict[str, int] = {}
        self._handed_on: set[str] = set()
        self._done = asyncio.Event()

    async def main(self) -> None:
        """Poll while jobs may be picked: regularly, and at once when one is done. Raises what Redis raises."""
        while self.allow_pick_jobs:
            self._done.clear()
            await self._poll_iteration()
            self.has_polled = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._done.wait(), PAUSED_POLL_SECONDS if self._paused else self.poll_delay_s)

    async def _poll_iteration(self) -> None:
        """What arq's does, but that it looks at both priorities, and only where one more may fit."""
        self._paused = False
        if self.allow_pick_jobs and not self._runner.out_of_order:
            await self.start_jobs(await self._due())
        for job, task in list(self.tasks.items()):
            if task.done():
                del self.tasks[job]
                # What went wrong with arq's own steps ends the worker, and the lane begins again.
                task.result()
        await self.heart_beat()

    async def _due(self) -> list[bytes]:
        """Jobs that are due, the high ones first, of each priority that there is room for.

        They are asked for apart: thousands of high ones must not hide the others.
        """
        in_hand = {job for job, task in self.tasks.items() if not task.done()}
        self._sizes = {job: size for job, size in self._sizes.items() if job in in_hand}
        self._high &= in_hand
        now_ms = int(time.time() * 1000)
        ranges: dict[bool, tuple[float, int]] = {True: (float("-inf"), high_score(now_ms)), False: (0, now_ms)}
        wanted = [high for high in ranges if not full(self._sizes.values(), high=high, **self._limits)]
        async with self.pool.pipeline(transaction=False) as pipe:
            for high in wanted:
                pipe.zrangebyscore(self.queue_name, *ranges[high], 0, READ_LIMIT)
            found: dict[bool, list[bytes]] = dict(zip(wanted, await pipe.execute(), strict=True))
        self._high |= {job.decode() for job in found.get(True, [])}
        return [job for high in wanted for job in found[high]]

    @property
    def _limits(self) -> _Limits:
        return {"max_bytes": self._max_bytes, "items_per_second": self._runner.items_per_second}

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Start those of `job_ids` that are free, fit, and are not paused.

        What waits of a run that was cancelled is taken out of the queue instead.
        """
        waiting = await self._free([job for job in (name.decode() for name in job_ids) if job not in self.tasks])
        if not waiting:
            return
        taken = admit(waiting, self._sizes.values(), **self._limits)
        chosen = set(taken)
        self._sizes |= {job: size for job, size in waiting if job in chosen}
        self.losses = {job: lost for job, lost in self.losses.items() if job in self._sizes}
        model_id = self._runner.model.model_id
        begun = await self._queue.starts.begin(model_id, taken, self.in_progress_timeout_s)
        self._runner.coming(begun.started)
        for job, (score, losses) in begun.started.items():
            self.losses[job], self._scores[job] = losses, score
            self.tasks[job] = asyncio.create_task(self.run_job(job, score))
            self.tasks[job].add_done_callback(partial(self._ended, job))
        if begun.cancelled:
            # Handed back, or left by a worker that died, since the run was cancelled.
            await self._queue.cancelling.remove(model_id, begun.cancelled)

    def _ended(self, job: str, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            # Looked at here: a poll raises the first error only, and asyncio would print each of the others at length.
            task.exception()
        self._scores.pop(job, None)
        self._runner.came(job)
        self._done.set()

    def stop_picking(self) -> None:
        """Take no more jobs: `main` returns when the look that is going on has ended."""
        self.allow_pick_jobs = False
        self._done.set()

    def set_aside(self, job: str) -> None:
        """A job that is suspect takes memory, but not the model: others are taken in hand beside it."""
        if job in self._sizes:
            self._sizes[job] = replace(self._sizes[job], items=0)

    @contextlib.contextmanager
    def waiting(self, job: str) -> Iterator[None]:
        """While the block runs, a job in hand waits for another chunk: beside it, too, others are taken in hand."""
        size = self._sizes.get(job)
        self.set_aside(job)
        try:
            yield
        finally:
            if size is not None and job in self._sizes:
                self._sizes[job] = size

    def is_high(self, job: str) -> bool:
        """Whether a job in hand goes ahead of others."""
        return job in self._high

    async def _free(self, jobs: list[str]) -> list[tuple[str, JobSize]]:
        """The first of `jobs` of each priority that no other worker has in hand and that are not paused, as many as may
        be started, and what they weigh.
        """
        free: list[tuple[str, JobSize]] = []
        for high in (True, False):
            same = [job for job in jobs if (job in self._high) == high]
            most = len(free) + MOST_JOBS
            for start in range(0, len(same), MOST_JOBS):
                found = await self._unpaused(same[start : start + MOST_JOBS])
                free.extend((job, replace(size, high=high)) for job, size in found.items())
                if len(free) >= most or self._paused:
                    break
        return free

    async def _unpaused(self, jobs: list[str]) -> dict[str, JobSize]:
        """Those of `jobs` that no other worker has in hand and that are not paused, and what they weigh."""
        model_id = self._runner.model.model_id
        async with self.pool.pipeline(transaction=False) as pipe:
            pipe.mget([lease_key(job) for job in jobs])
            pipe.hmget(self._names.load(model_id), jobs)
            pipe.hgetall(self._names.paused)
            leases, sizes, paused = await pipe.execute()
        found = {job: parse_size(size) for job, lease, size in zip(jobs, leases, sizes, strict=True) if lease is None}
        if found and paused:
            pauses = parse_pauses(paused)
            if holding(pauses, model_id) is not None:
                self._paused = True
                return {}
            for job in await self._queue.pausing.set_aside(model_id, list(found), pauses):
                del found[job]
        return found

    @property
    def bytes_in_hand(self) -> int:
        """Bytes of the jobs that are running."""
        return sum(self._sizes[job].bytes for job, task in self.tasks.items() if job in self._sizes and not task.done())

    @property
    def items_in_hand(self) -> int:
        """Items of the jobs that are running, but for those that were set aside, and those that wait for another."""
        return sum(self._sizes[job].items for job, task in self.tasks.items() if job in self._sizes and not task.done())

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        """What arq does with a job that it gives up, which here is only one whose payload is gone: say so first."""
        await self._lost(job_id)
        await super().finish_failed_job(job_id, result_data)

    def hand_on(self, job: str) -> None:
        """A job in hand goes to the queue of another model, or may have gone: its payload is that queue's."""
        self._handed_on.add(job)

    def keep(self, job: str) -> None:
        """It goes nowhere: it was done already, or its run was cancelled."""
        self._handed_on.discard(job)

    async def finish_job(
        self,
        job_id: str,
        finish: bool,
        result_data: bytes | None,
        result_timeout_s: float | None,
        keep_result_forever: bool,
        incr_score: int | None,
        keep_in_progress: float | None,
    ) -> None:
        """What arq does with a job that has ended, or that goes back; but where one that is put off stands then is
        set, and not added to where it stood: that may be done twice, and by a worker that had stalled, when the job
        is done. A high one stays high.

        Of a job that was handed on only the lease goes: from then on, workers of the other model may take it.
        """
        if job_id in self._handed_on:
            self._handed_on.discard(job_id)
            await self.pool.delete(lease_key(job_id), tries_key(job_id))
        elif incr_score:
            score = self._scores[job_id]
            due = score + incr_score
            async with self.pool.pipeline(transaction=True) as pipe:
                pipe.zadd(self.queue_name, {job_id: high_score(due) if score < 0 else due}, xx=True)
                pipe.delete(lease_key(job_id))
                await pipe.execute()
        else:
            await super().finish_job(
                job_id, finish, result_data, result_timeout_s, keep_result_forever, incr_score, keep_in_progress
            )
