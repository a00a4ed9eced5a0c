"""When schedules are due: cron expressions in time zones. No clock and no I/O; `now` is given.

An expression means what Debian's cron makes of it, with one rule more. Where its hours are `*`, it runs at each such
minute that a clock on the wall shows. Where it names hours, also as `*/2`, each of its times comes once a day, whatever
daylight saving does: one that does not exist comes when clocks have been put forward, one that exists twice the first
time.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeAlias
from zoneinfo import ZoneInfo

from embedq_core.errors import UsageError
from embedq_core.text import plural, shown

if TYPE_CHECKING:
    from embedq_store import Schedule

_FIELDS: Final = 5
# Beyond so many it doesn't matter how many times were missed, and counting them would take long.
MOST_MISSED: Final = 1000
# A time that is found later than that was missed, since nobody looked when it came; workers look each minute.
LATE_SECONDS: Final = 120


@dataclass(frozen=True, slots=True)
class Due:
    """A schedule that is to be run now, with the number of times before that it makes up for, at most MOST_MISSED."""

    schedule: "Schedule"
    missed: int
    following: float


@dataclass(frozen=True, slots=True)
class Skipped:
    """A schedule whose time has come while its last run is going: why it is skipped, and when it is due again."""

    schedule: "Schedule"
    missed: int
    following: float
    why: str


Owed: TypeAlias = Due | Skipped


@dataclass(frozen=True, slots=True)
class Upcoming:
    """A schedule for those who watch: when it is next due (seconds since the epoch), and what its last run came to."""

    name: str
    due: float | None
    seconds: float | None
    """Until then; below 0 it is overdue. None, as `due`, where it is disabled."""
    timezone: str
    last: str

    def as_object(self) -> dict[str, object]:
        """For JSON."""
        return {
            "name": self.name,
            "due": self.due,
            "seconds": self.seconds,
            "timezone": self.timezone,
            "last": self.last,
        }


def zone(name: str) -> ZoneInfo:
    """The time zone of this name. Raises UsageError."""
    try:
        return ZoneInfo(name)
    # Names that are folders, or lead out of the database, are errors of other kinds.
    except (KeyError, ValueError, OSError):
        raise UsageError(
            f"there is no time zone {shown(name)!r}: name one as 'Europe/Berlin', 'America/New_York' or 'UTC'"
        ) from None


def times_after(expression: str, timezone: str, moment: float) -> Iterator[float]:
    """The times of `expression` after `moment`, in seconds since the epoch, in order.

    Raises UsageError for an expression that can't be used, or that means no time in fifty years.
    """
    from cronsim import CronSim, CronSimError

    fields = expression.split()
    if len(fields) != _FIELDS:
        raise UsageError(
            f"{shown(expression)!r} is no cron expression: it needs five fields, which are minute, hour, day of the "
            "month, month and day of the week, such as '0 3 * * *'"
        )
    try:
        times = CronSim(" ".join(_naming_hours(fields)), datetime.fromtimestamp(moment, zone(timezone)))
    except CronSimError as error:
        raise UsageError(f"{shown(expression)!r} is no cron expression: {str(error).lower()}") from None
    latest, found = moment, False
    for time in times:
        # By the clock on the wall, the first of two equal times may be before the second, which is `moment`.
        if time.timestamp() > latest:
            latest, found = time.timestamp(), True
            yield latest
    if not found:
        raise UsageError(f"{shown(expression)!r} means no time in the next fifty years: correct its day and month")


def next_after(expression: str, timezone: str, moment: float) -> float:
    """The first time of `expression` after `moment`. Raises UsageError, as `times_after` does."""
    return next(times_after(expression, timezone, moment))


def owed(schedules: "Iterable[Schedule]", going: Mapping[int, str], now: float) -> list[Owed]:
    """What is to be done at `now`, the longest overdue first.

    Times that were missed are made up for by one run. `going` says, by the schedule's key, why its last run is not at
    its end: then the time is skipped. But one that was missed, or is to be tried again since its run was interrupted
    or lost, waits for that end: nobody may have been there to do what is left, and now there is.
    """
    found: list[Owed] = []
    due = [schedule for schedule in schedules if schedule.enabled and schedule.due <= now]
    for schedule in sorted(due, key=lambda schedule: (schedule.due, schedule.name)):
        missed, following = _passed(schedule, now)
        why = going.get(schedule.key)
        if why is None:
            found.append(Due(schedule, missed, following))
        elif now - schedule.due <= LATE_SECONDS and not _tried(schedule):
            found.append(Skipped(schedule, missed, following, why))
    return found


def upcoming(schedules: "Iterable[Schedule]", now: float) -> list[Upcoming]:
    """The schedules as those who watch want them: the next that is due first, disabled ones at the end."""
    rows = [
        Upcoming(
            schedule.name,
            schedule.due if schedule.enabled else None,
            schedule.due - now if schedule.enabled else None,
            schedule.timezone,
            last_result(schedule),
        )
        for schedule in schedules
    ]
    return sorted(rows, key=lambda row: (row.due is None, row.due, row.name))


def last_result(schedule: "Schedule") -> str:
    """What became of a schedule's last time, in a few words; empty where there was none."""
    last, skipped = schedule.last, schedule.skipped
    if skipped is not None and (last is None or last.ended is None or last.ended < (skipped.ended or 0)):
        return f"skipped: {skipped.message}"
    if last is None:
        return ""
    words = ending_words(last.state, last.exit_code, last.message)
    if last.missed:
        words += f" (for {missed_words(last.missed)} too)"
    if skipped is not None:
        words += f" ({plural(skipped.missed + 1, 'time')} skipped meanwhile)"
    return words


def ending_words(state: str, exit_code: int | None, message: str) -> str:
    """'done', 'failed (exit code 2)', 'lost: its worker died'."""
    words = f"failed ({_ending(exit_code)})" if state == "failed" else state
    return f"{words}: {message}" if message else words


def missed_words(missed: int) -> str:
    """'3 missed times', '1,000 missed times or more'."""
    return plural(missed, "missed time") + (" or more" if missed >= MOST_MISSED else "")


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return "not begun"
    return f"exit code {exit_code}" if exit_code >= 0 else f"signal {-exit_code}"


def _tried(schedule: "Schedule") -> bool:
    """Whether there was an attempt at the time that a schedule is due at."""
    return schedule.last is not None and schedule.last.due == schedule.due


def _passed(schedule: "Schedule", now: float) -> tuple[int, float]:
    """How many times of a schedule that is due came after that one until `now`; and when the next comes."""
    passed = 0
    for time in times_after(schedule.expression, schedule.timezone, schedule.due):
        if time > now:
            return passed, time
        passed += 1
        if passed == MOST_MISSED:
            break
    return passed, next_after(schedule.expression, schedule.timezone, now)


def _naming_hours(fields: list[str]) -> list[str]:
    """The fields, written so that cronsim takes the times for such that are named, where the hours are not `*`.

    It takes a star at the beginning of minutes or hours for "at intervals", for which there is no daylight saving.
    """
    minute, hour, *days = fields
    if hour in {"*", "*/1"}:
        return fields
    return [minute.replace("*", "0-59"), hour.replace("*", "0-23"), *days]
