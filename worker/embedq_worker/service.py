"""A worker process: lanes for all models that have a queue, one store, one way to stop."""

import asyncio
import contextlib
import logging
import math
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from signal import SIGINT, SIGTERM
from typing import Final

from embedq_core.cancelling import cancel, unless
from embedq_core.errors import MissingLibrary, ModelMisconfigured, QueueError, SettingsError, UnknownModel
from embedq_core.settings import Settings
from embedq_jobs import Queue
from embedq_plugins import get_embedding_model, require_library
from embedq_store import Store
from embedq_worker.background import kept_up
from embedq_worker.burst import Burst, unmended
from embedq_worker.claims import Claims
from embedq_worker.elsewhere import SharedElsewhere, database_identity
from embedq_worker.heartbeat import Heartbeat
from embedq_worker.interpreter import tuned
from embedq_worker.lane import Lane, quiet_libraries
from embedq_worker.leases import LEASE_SECONDS, Leases
from embedq_worker.limiting import Shared
from embedq_worker.logs import about
from embedq_worker.reembedding import Reembeddings
from embedq_worker.report import WorkerReport, worker_report
from embedq_worker.runner import ModelRunner
from embedq_worker.scheduler import Scheduler
from embedq_worker.telemetry import NOBODY, Telemetry

_log = logging.getLogger("embedq.worker")

LOOK_SECONDS: Final = 0.1
DRAIN_LOOK_SECONDS: Final = 1.0
GRACE_SECONDS: Final = 30.0
IDLE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What a worker serves, and for how long.

    `models` are ids or aliases; none means every model that has a queue. With `burst` it ends when the queues
    that it serves are empty, or hold nothing but what is paused or waits for a model that somebody has to mend.
    """

    models: tuple[str, ...] = ()
    burst: bool = False
    grace_seconds: float = GRACE_SECONDS
    lease_seconds: float = LEASE_SECONDS
    """How long after the death of a worker its chunks are taken over by others, at most."""
    schedules: bool = False
    """Whether it runs what the database's schedules owe; with `burst`, what they owe when it starts."""
    clock: Callable[[], float] = time.time
    """What schedules go by, in seconds since the epoch."""
    needs: str | None = None
    """The id of a model without which there is nothing to stay for: when somebody has to mend it, the worker ends."""


async def serve(
    settings: Settings,
    options: ServiceOptions,
    queue: Queue,
    store: Store,
    stop: asyncio.Event,
    telemetry: Telemetry = NOBODY,
) -> None:
    """Embed what is queued until `stop` is set, or with `burst` until nothing is left. Then hand back the rest.

    `telemetry` hears of the work. Told to drain (`embedq_jobs.drains`), it takes nothing new, and returns when what is
    in hand has ended.

    Raises ModelMisconfigured, when all is handed back, where a burst leaves work since a model has to be mended, or
    where that is one which `options` need. Raises UnknownModel for a model in `options` that no plugin has,
    MissingLibrary for one whose library is not there.
    """
    with tuned():
        await _Service(settings, options, queue, store, telemetry).run(stop)


@contextmanager
def stop_on_signals(stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` on SIGTERM and on the first Ctrl-C; the second Ctrl-C ends the process as usual."""
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        stop.set()
        loop.remove_signal_handler(SIGINT)

    loop.add_signal_handler(SIGTERM, stop.set)
    loop.add_signal_handler(SIGINT, interrupted)
    try:
        yield
    finally:
        loop.remove_signal_handler(SIGTERM)
        loop.remove_signal_handler(SIGINT)


class _Service:
    def __init__(
        self, settings: Settings, options: ServiceOptions, queue: Queue, store: Store, telemetry: Telemetry
    ) -> None:
        self._settings = settings
        self._options = options
        self._queue = queue
        self._store = store
        self._telemetry = telemetry
        self._leases = Leases(queue.redis, options.lease_seconds)
        claims = queue.claims(secrets.token_hex(6), options.lease_seconds)
        self._elsewhere = SharedElsewhere(claims, database_identity(store.path))
        self._claims = Claims(self._elsewhere)
        self._lanes: dict[str, Lane] = {}
        self._shared = Shared()
        self._unserved: set[str] = set()
        self._draining = False
        self._looked_for_orders = -math.inf
        self._since = time.time()
        self._id = f"{socket.gethostname()}:{os.getpid()}"
        self._heartbeat = Heartbeat(queue, self._id, self._report)
        self._burst = Burst(queue, self._lanes)
        self._problem: ModelMisconfigured | None = None
        self._scheduler = Scheduler(
            settings,
            queue,
            store,
            self._id,
            clock=options.clock,
            once=options.burst,
            grace=options.grace_seconds,
        )

    async def run(self, stop: asyncio.Event) -> None:
        quiet_libraries()
        models = [get_embedding_model(name) for name in self._options.models]
        for model in models:
            require_library(model)
        wanted = {model.model_id for model in models}
        renewing = _background("leases", self._leases.renew_forever)
        claiming = _background("claims", self._elsewhere.keep_forever)
        beating = _background("heartbeat", self._heartbeat.beat_forever)
        copying = _background("copies", self._copy_when_idle)
        if self._options.schedules:
            self._scheduler.start()
        self._reembeddings = Reembeddings(
            self._queue,
            self._store,
            self._settings,
            lambda model_id: not wanted or model_id in wanted,
            self._options.lease_seconds,
        )
        self._finishing = _background("reembeddings", self._reembeddings.run_forever)
        try:
            # It asks Redis, which may take its time, or say nothing at all.
            await unless(stop, self._serve(wanted, stop))
            if self._store.copies_due:
                await unless(stop, self._store.refresh_copies(lambda: True))
        finally:
            self._telemetry.draining()
            await cancel([copying, self._finishing])
            # Just before the runners are told: a call that waits for its turn fails then, and is not made again.
            self._shared.close()
            lanes = (lane.stop(self._options.grace_seconds) for lane in self._lanes.values())
            await asyncio.gather(self._scheduler.stop(), *lanes)
            await cancel([renewing, claiming, beating])
            await self._elsewhere.leave()
            await self._heartbeat.say_goodbye()
        if self._problem is not None:
            raise self._problem

    async def _serve(self, wanted: set[str], stop: asyncio.Event) -> None:
        looked = False
        while not stop.is_set():
            for lane in self._lanes.values():
                if lane.broken is not None:
                    raise lane.broken
            try:
                if await self._at_its_end(wanted):
                    return
                looked = True
            except QueueError as error:
                # The lanes say so too, and wait for it to come back.
                _log.debug("%s", error)
                if self._options.burst and not looked:
                    raise
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS)

    async def _at_its_end(self, wanted: set[str]) -> bool:
        """Open lanes that are called for and obey orders; whether there is nothing left to stay for.

        Where that is because a model has to be mended, it is a problem.
        """
        if self._draining:
            return not self._scheduler.running and all(lane.drained for lane in self._lanes.values())
        # Asked first: what a schedule's command has queued by then, the lanes that are opened now see.
        nothing_owed = not self._options.schedules or self._scheduler.idle
        await self._open_lanes(wanted)
        if self._options.burst and (nothing_owed or self._scheduler.running) and await self._worked_off(nothing_owed):
            self._problem = self._burst.problem()
            return True
        if await self._needs_mending():
            return True
        if time.monotonic() - self._looked_for_orders >= DRAIN_LOOK_SECONDS:
            self._looked_for_orders = time.monotonic()
            await self._obey()
        return False

    async def _worked_off(self, nothing_owed: bool) -> bool:
        """Whether a burst is at its end: the queues are, and no schedule's command goes on, or those that do wait for
        what is left in the queues, and would for ever.
        """

        async def is_over() -> bool:
            return await self._burst.is_over() and (nothing_owed or await self._scheduler.held_up(self._burst.left))

        if not await self._reembeddings.nothing_to_do(is_over):
            return False
        return not (nothing_owed and self._options.schedules and await self._scheduler.look_again())

    async def _needs_mending(self) -> bool:
        """Whether somebody has to mend the model without which there is nothing to stay for; then that is a problem."""
        lane = self._lanes.get(self._options.needs or "")
        trouble = None if lane is None else lane.unmended
        if lane is not None and trouble is not None:
            self._problem = unmended(lane.model_id, trouble, await self._queue.length(lane.model_id))
        return self._problem is not None

    async def _open_lanes(self, wanted: set[str]) -> None:
        """Serve queues that are new: a model's queue comes to be when something is first queued for it."""
        for model_id in {*await self._queue.model_ids(), *wanted}:
            if model_id in self._lanes or (wanted and model_id not in wanted):
                continue
            try:
                model = await asyncio.to_thread(get_embedding_model, model_id)
                if model.model_id != model_id:
                    raise UnknownModel(f"here this is another name of {model.model_id}")  # noqa: TRY301
                # Not found out by the first call, which would make dead letters of all that waits.
                require_library(model)
            except (UnknownModel, SettingsError, MissingLibrary) as error:
                # An empty queue may be left from a plugin that was only tried.
                if model_id not in self._unserved and await self._queue.length(model_id):
                    self._unserved.add(model_id)
                    _log.warning(
                        "the queue of %s waits for a worker that has this model: %s",
                        model_id,
                        error,
                        extra=about(model_id),
                    )
                continue
            telemetry = self._telemetry.of_model(model_id)
            self._shared.share(model, self._queue.pace(model_id), telemetry)
            lane = Lane(
                self._queue,
                self._store,
                ModelRunner(model, telemetry=telemetry),
                settings=self._settings,
                leases=self._leases,
                claims=self._claims,
            )
            self._lanes[model_id] = lane
            lane.start(self._id)
            _log.info("serving %s (batch size %s)", model_id, model.batch_size or "whole chunks", extra=about(model_id))

    async def _obey(self) -> None:
        """Begin to drain where that is ordered."""
        if await self._queue.drains.ordered(self._id, self._since):
            _log.info("draining: what is in hand is finished, nothing new is taken")
            self._draining = True
            self._telemetry.draining()
            for lane in self._lanes.values():
                lane.drain()
            await self._scheduler.drain()
            # What it is about to queue, or to ask of a model, would be new work; another worker goes on with it.
            await cancel([self._finishing])

    async def _copy_when_idle(self) -> None:
        """Prepare searches when there has been nothing to embed for a while."""
        busy_at = time.monotonic()
        while True:
            if self._in_hand():
                busy_at = time.monotonic()
            elif self._store.copies_due and time.monotonic() - busy_at >= IDLE_SECONDS:
                await self._store.refresh_copies(lambda: not self._in_hand())
            await asyncio.sleep(LOOK_SECONDS)

    def _in_hand(self) -> int:
        return sum(lane.jobs_in_hand for lane in self._lanes.values())

    def _report(self) -> WorkerReport:
        return worker_report(
            socket.gethostname(),
            os.getpid(),
            self._lanes.values(),
            since=self._since,
            now=time.time(),
            inflight_bytes=self._settings.inflight_bytes,
            draining=self._draining,
            database=str(self._settings.database),
        )


def _background(what: str, work: Callable[[], Awaitable[None]]) -> "asyncio.Task[None]":
    return asyncio.create_task(kept_up(what, work), name=f"embedq-{what}")
