"""What the commands of `embedq schedule` do: the rows, and running one here and now."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from embedq.schedule.unattended import Program, check_unattended
from embedq.schedule.views import schedule_object
from embedq_core.errors import DatabaseMissing, QueueError, ScheduleGoing, ScheduleMissing, UsageError
from embedq_core.settings import Settings, load_settings
from embedq_core.text import shown
from embedq_store import Attempt, NewSchedule, Schedule, Store
from embedq_worker.timetable import next_after, zone

if TYPE_CHECKING:
    from embedq_worker.scheduled import Place

SHOWN_ATTEMPTS = 10
_NAME_LENGTH = 64
_HALF_A_YEAR = 182 * 24 * 3600


@dataclass(frozen=True, slots=True)
class AddRequest:
    """A schedule as it was asked for."""

    name: str
    expression: str
    arguments: tuple[str, ...]
    timezone: str | None
    replace: bool
    database: Path | None


def add_schedule(request: AddRequest, program: Program) -> Schedule:
    """Check everything, then add it. Raises UsageError, ScheduleExists, and what Typer raises for a wrong command."""
    settings = load_settings(database=request.database)
    _check_name(request.name)
    timezone = request.timezone or _local_timezone()
    now = time.time()
    due = next_after(request.expression, zone(timezone).key, now)
    check_unattended(request.arguments, program)
    expression = " ".join(request.expression.split())
    new = NewSchedule(request.name, expression, timezone, request.arguments, str(Path.cwd()), due)

    async def add() -> Schedule:
        async with await Store.open(settings.database, busy_seconds=settings.busy_seconds) as store:
            await store.schedules.add(new, now, replace=request.replace)
            return await store.schedules.get(request.name)

    return asyncio.run(add())


def all_schedules(database: Path | None) -> tuple[list[Schedule], bool]:
    """The schedules, by name; and whether there is a worker that looks at them."""

    async def read() -> tuple[list[Schedule], bool]:
        settings = load_settings(database=database)
        if database is None and not settings.database.exists():
            return [], False
        async with await Store.open(settings.database, read_only=True) as store:
            schedules = await store.schedules.all()
        return schedules, bool(schedules) and await _has_worker(settings)

    return asyncio.run(read())


def one_schedule(name: str, database: Path | None) -> tuple[Schedule, list[Attempt]]:
    """A schedule and its latest attempts, newest first. Raises ScheduleMissing."""

    async def read() -> tuple[Schedule, list[Attempt]]:
        async with _opened(load_settings(database=database), name, read_only=True) as store:
            schedule = await store.schedules.get(name)
            return schedule, await store.schedules.attempts(schedule.key, SHOWN_ATTEMPTS)

    return asyncio.run(read())


def remove_schedule(name: str, database: Path | None) -> None:
    """Remove a schedule. Raises ScheduleMissing."""
    from embedq_worker.scheduled import Place

    async def remove(store: Store) -> None:
        schedule = await store.schedules.get(name)
        await store.schedules.remove(schedule.key)
        Place(Path(store.path), schedule.key).remove()

    _change(name, database, remove)


def switch_schedule(name: str, database: Path | None, *, on: bool) -> Schedule:
    """Enable a schedule from now on, or disable it; return it as it is then. Raises ScheduleMissing."""

    async def switch(store: Store) -> None:
        schedule = await store.schedules.get(name)
        if on:
            due = next_after(schedule.expression, schedule.timezone, time.time())
            await store.schedules.enable(schedule.key, due)
        else:
            await store.schedules.disable(schedule.key)

    _change(name, database, switch)
    return one_schedule(name, database)[0]


def run_schedule(name: str, database: Path | None, *, as_json: bool) -> int:
    """Run the command of a schedule here, now, and return its exit code.

    No worker begins it meanwhile. Raises ScheduleMissing, ScheduleGoing.
    """
    from embedq_producer.submitting import stop_on_interrupt
    from embedq_worker.scheduled import Place, Stopping, attempt, settle_lost

    async def run() -> tuple[Schedule, int]:
        settings = load_settings(database=database)
        async with _opened(settings, name, read_only=False) as store:
            await settle_lost(store, settings.database, await store.schedules.get(name), time.time())
            schedule = await store.schedules.get(name)
            with Place(settings.database, schedule.key) as place:
                number = await _begin(store, schedule, place)
                ending = await attempt(
                    store,
                    settings.database,
                    schedule,
                    number,
                    place,
                    stopping=Stopping(stop_on_interrupt()),
                    clock=time.time,
                    echo=None if as_json else _echo,
                )
            if ending.message:
                print(f"embedq: {shown(ending.message)}", file=sys.stderr)
            code = ending.exit_code if ending.exit_code is not None and ending.exit_code >= 0 else 1
            return await store.schedules.get(name), 130 if ending.state == "interrupted" else code

    schedule, code = asyncio.run(run())
    if as_json:
        print(json.dumps(schedule_object(schedule, one_schedule(name, database)[1])))
    return code


# --- private


def _check_name(name: str) -> None:
    if not (0 < len(name) <= _NAME_LENGTH and all(letter.isalnum() or letter in "-_." for letter in name)):
        raise UsageError(
            f"a schedule is named with letters, digits, '-', '_' and '.', {_NAME_LENGTH} at most, not {shown(name)!r}"
        )


def _local_timezone() -> str:
    """The time zone of this machine, by name: whoever evaluates the schedule later may be set to another."""
    import warnings

    import tzlocal

    try:
        with warnings.catch_warnings(action="ignore"):
            name: str | None = tzlocal.get_localzone_name()
        if name is not None and _is_local(name):
            return name
    except (LookupError, UsageError):
        name = None
    if name is None and not os.environ.get("TZ") and not Path("/etc/localtime").exists():
        return "UTC"  # which is what the system takes then, too
    raise UsageError("the time zone of this machine has no name: give one with --timezone, such as Europe/Berlin")


def _is_local(timezone: str) -> bool:
    """Whether the clocks of a zone show what this machine's do, now and in half a year.

    What is configured may be of no use, such as TZ=CET-1CEST, and then a file says something else.
    """
    moments = (time.time(), time.time() + _HALF_A_YEAR)
    offsets = [datetime.fromtimestamp(moment, zone(timezone)).utcoffset() for moment in moments]
    return offsets == [timedelta(seconds=time.localtime(moment).tm_gmtoff) for moment in moments]


async def _begin(store: Store, schedule: Schedule, place: "Place") -> int:
    """Begin an attempt by hand: its number. Raises ScheduleGoing."""
    now = time.time()
    number = None
    if place.take():
        overdue = schedule.due <= now
        following = next_after(schedule.expression, schedule.timezone, now) if overdue else schedule.due
        number = await store.schedules.begin(schedule, following, now, f"pid {os.getpid()}", by_hand=True)
    if number is None:
        raise ScheduleGoing(f"the schedule {schedule.name!r} is going: see 'embedq schedule show {schedule.name}'")
    return number


@asynccontextmanager
async def _opened(settings: Settings, name: str, *, read_only: bool) -> AsyncIterator[Store]:
    """The database, which must be there. Raises ScheduleMissing."""
    try:
        store = await Store.open(
            settings.database, read_only=read_only, must_exist=True, busy_seconds=settings.busy_seconds
        )
    except DatabaseMissing as error:
        raise ScheduleMissing(f"there is no schedule {name!r}: {error}") from error
    async with store:
        yield store


def _change(name: str, database: Path | None, change: Callable[[Store], Awaitable[None]]) -> None:
    async def opened() -> None:
        async with _opened(load_settings(database=database), name, read_only=False) as store:
            await change(store)

    asyncio.run(opened())


async def _has_worker(settings: Settings) -> bool:
    """Whether a worker looks at the schedules of this database. Where nobody can tell: no."""
    from embedq_jobs import open_queue, queue_exists

    if not queue_exists(settings):
        return False
    try:
        async with open_queue(settings) as queue:
            reports = await queue.live_workers()
    except QueueError as error:
        print(f"embedq: {error}", file=sys.stderr)
        return False
    return any(report.get("database") == str(settings.database) for report in reports)


def _echo(printed: bytes) -> None:
    sys.stdout.buffer.write(printed)
    sys.stdout.buffer.flush()
