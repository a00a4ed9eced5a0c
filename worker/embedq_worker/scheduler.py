"""The part of a worker that begins what schedules owe: it looks once a minute, and every worker may do it."""

import asyncio
import logging
from collections.abc import Collection
from typing import Final

from embedq_core.cancelling import cancel
from embedq_core.errors import QueueError, RunMissing, StoreError, UsageError
from embedq_core.settings import Settings
from embedq_core.text import plural, shown
from embedq_jobs import Queue
from embedq_store import Schedule, Store
from embedq_worker.scheduled import Clock, Place, Stopping, attempt, command_line, settle_lost
from embedq_worker.timetable import Due, Owed, Skipped, ending_words, missed_words, owed

_log = logging.getLogger("embedq.worker")

LOOK_SECONDS: Final = 0.1
MINUTE: Final = 60
# Commands that one worker process runs at a time; others begin when one of these has ended, or in another worker.
AT_ONCE: Final = 4


class Scheduler:
    """Begins what is owed, waits for it, and stops it with the worker.

    It looks when it starts, then in each minute of `clock` (seconds since the epoch); with `once`, as it is for a
    worker that ends by itself, only when it starts. `runner` is who it says is at it.
    """

    def __init__(
        self, settings: Settings, queue: Queue, store: Store, runner: str, *, clock: Clock, once: bool, grace: float
    ) -> None:
        self._database = settings.database
        self._queue_bytes = settings.queue_bytes
        self._queue = queue
        self._store = store
        self._runner = runner
        self._clock = clock
        self._once = once
        self._stopping = Stopping(asyncio.Event(), grace)
        self._minute: int | None = None
        self._more = False
        self._waiting = False
        self._running: dict[asyncio.Task[None], Place] = {}
        self._looking: asyncio.Task[None] | None = None
        self._troubles: set[str] = set()

    @property
    def idle(self) -> bool:
        """Whether it has looked, and nothing that it has begun is going."""
        return self._minute is not None and not self._running and not self._more

    def start(self) -> None:
        """Begin to look."""
        self._looking = asyncio.create_task(self._look_forever(), name="embedq-schedules")

    async def look_again(self) -> bool:
        """Look again if something was owed that had to wait, for the queue perhaps. Whether anything begins now."""
        if self._waiting:
            await self._look()
        return not self.idle

    @property
    def running(self) -> bool:
        """Whether something that it has begun is going."""
        return bool(self._running)

    async def held_up(self, models: Collection[str]) -> bool:
        """Whether something that it has begun is going, and all of that waits for what it has queued for `models`."""
        # Some may end while it is looked.
        places = list(self._running.values())
        return bool(places) and all([await self._waits(place, models) for place in places])

    async def _waits(self, place: Place, models: Collection[str]) -> bool:
        """Whether the command at `place` has sent all of a run for one of `models` that goes on, or finds no room."""
        for run in place.runs():
            try:
                summary = await self._queue.runs.summary(run)
            except RunMissing:
                continue
            model_id = summary.run.model_id
            if summary.settled or model_id not in models:
                continue
            if summary.closed or await self._queue.bytes_queued(model_id) >= self._queue_bytes:
                return True
        return False

    async def drain(self) -> None:
        """Begin nothing more; what is running is told to stop when the grace is over. It may wait for what a worker
        that takes nothing more would have to do.
        """
        if self._looking is not None:
            await cancel([self._looking])
        self._stopping.stop.set()

    async def stop(self) -> None:
        """Drain, and wait for what is running."""
        await self.drain()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _look_forever(self) -> None:
        while True:
            minute = int(self._clock() // MINUTE)
            new = self._minute is None if self._once else minute != self._minute
            if new or (self._more and len(self._running) < AT_ONCE):
                await self._look()
                self._minute = minute
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        """Begin what is owed; what can't be found out now, is in the next minute."""
        self._more = self._waiting = False
        try:
            for schedule in await self._schedules():
                for each in await self._owed(schedule):
                    await self._do(each)
        except Exception as error:
            # A worker embeds, whatever becomes of schedules.
            self._say_once(f"schedules can't be looked at, and wait: {error}")

    async def _schedules(self) -> list[Schedule]:
        """The schedules, the longest overdue first, when attempts that were lost are noted."""
        schedules = await self._store.schedules.all()
        if any([await self._settle_lost(schedule) for schedule in schedules]):
            schedules = await self._store.schedules.all()
        return sorted(schedules, key=lambda schedule: schedule.due)

    async def _settle_lost(self, schedule: Schedule) -> bool:
        """Note where the last attempt was lost; whether it was."""
        try:
            lost = await settle_lost(self._store, self._database, schedule, self._clock())
        except OSError as error:
            self._say_once(f"schedule {schedule.name} waits: what became of its last run can't be found out: {error}")
            return False
        if lost:
            _log.warning("schedule %s: its last run was lost: the process that ran it has died", schedule.name)
        return lost

    async def _owed(self, schedule: Schedule) -> list[Owed]:
        """What `schedule` owes: one thing or nothing. What is wrong with one must not keep others from running."""
        now = self._clock()
        if not schedule.enabled or schedule.due > now:
            return []
        try:
            why = await self._why_going(schedule)
            found = owed([schedule], {} if why is None else {schedule.key: why}, now)
        except (QueueError, UsageError) as error:
            found, why = [], str(error)
        if not found:
            self._waiting = True
            self._say_once(f"schedule {schedule.name} waits: {why}")
        return found

    async def _why_going(self, schedule: Schedule) -> str | None:
        """Why the last run of `schedule` is not at its end; None where it is. Raises QueueError."""
        if schedule.last is None:
            return None
        if schedule.last.state == "running":
            return "its last run is still going"
        for run in schedule.last.runs:
            try:
                summary = await self._queue.runs.summary(run)
            except RunMissing:
                continue
            if not summary.settled:
                return f"its last run, {run}, has {plural(summary.items - summary.counts.ended, 'item')} to do yet"
        return None

    async def _do(self, each: Owed) -> None:
        now, schedule = self._clock(), each.schedule
        if isinstance(each, Skipped):
            skipping = self._store.schedules.skip(schedule, each.following, now, each.why, missed=each.missed)
            if await skipping:
                _log.warning("schedule %s: skipped: %s", schedule.name, each.why)
        elif len(self._running) >= AT_ONCE:
            self._more = True
        else:
            await self._begin(each, now)

    async def _begin(self, due: Due, now: float) -> None:
        """Begin an attempt, unless another worker has: it takes the lock, and then the due time."""
        place, schedule = Place(self._database, due.schedule.key), due.schedule
        if not place.take():
            return
        number = None
        try:
            number = await self._store.schedules.begin(schedule, due.following, now, self._runner, missed=due.missed)
        finally:
            if number is None:
                place.__exit__()
        if number is None:
            return
        missed = f", for {missed_words(due.missed)} too" if due.missed else ""
        _log.info("schedule %s: begins%s: %s", schedule.name, missed, shown(command_line(schedule.arguments)))
        task = asyncio.create_task(self._carry_out(schedule, number, place), name=f"embedq-schedule-{schedule.name}")
        self._running[task] = place
        task.add_done_callback(self._running.pop)

    async def _carry_out(self, schedule: Schedule, number: int, place: Place) -> None:
        with place:
            try:
                ending = await attempt(
                    self._store,
                    self._database,
                    schedule,
                    number,
                    place,
                    stopping=self._stopping,
                    clock=self._clock,
                )
            except StoreError as error:
                # The store says that it goes on; without the lock it counts as lost, and is tried again.
                _log.warning("schedule %s: how it ended could not be noted: %s", schedule.name, error)
                return
        level = logging.INFO if ending.state == "done" else logging.WARNING
        runs = f", run {', '.join(ending.runs)}" if ending.runs else ""
        words = ending_words(ending.state, ending.exit_code, ending.message)
        _log.log(level, "schedule %s: %s%s", schedule.name, words, runs)

    def _say_once(self, text: str) -> None:
        if text not in self._troubles:
            self._troubles.add(text)
            _log.warning("%s", text)
