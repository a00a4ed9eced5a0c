"""Schedules: commands that workers run at times, and their attempts. Who may begin one is decided here, by SQLite.

An attempt is one run of a schedule's command. Its beginning takes the schedule's due time in one transaction: of
several that want to begin it at the same time, one finds the due time that it expects.
"""

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from embedq_core.errors import ScheduleExists, ScheduleMissing
from embedq_core.text import suggestion
from embedq_store.access import Access

# Attempts of a schedule that are kept.
KEPT_ATTEMPTS: Final = 50
# A time whose attempts were lost is tried so often: what takes the machine down with it would do so for ever.
LOST_ATTEMPTS: Final = 2

State: TypeAlias = Literal["running", "done", "failed", "interrupted", "lost", "skipped"]
"""Of an attempt: its exit code was 0 or another, it was told to stop, its worker died; or it was never begun."""

_COLUMNS: Final = "key, name, expression, timezone, arguments, directory, enabled, due, created"
_ATTEMPT: Final = "key, due, missed, begun, ended, state, exit_code, runs, runner, message"


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """What a schedule is made of.

    `arguments` are those of a command of embedq, without its name; `directory` is where it runs, absolute;
    `timezone` is a name of the IANA database; `due` is the first time, in seconds since the epoch.
    """

    name: str
    expression: str
    timezone: str
    arguments: tuple[str, ...]
    directory: str
    due: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a schedule's command, or one that was skipped. Times are in seconds since the epoch.

    `due` is the time that it was for, None if somebody ran it by hand before its time; `missed` counts earlier times
    that it makes up for, or of a skipped one, times that were skipped after the first. `exit_code` is negative where a
    signal ended it, as in subprocess. `runs` are the runs that it queued. `output` is the end of what it printed.
    """

    key: int
    due: float | None
    missed: int
    begun: float
    ended: float | None
    state: State
    exit_code: int | None
    runs: tuple[str, ...]
    runner: str
    message: str
    output: str = ""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as it stands: `due` is next, `last` its latest attempt, `skipped` one that was skipped since then."""

    key: int
    name: str
    expression: str
    timezone: str
    arguments: tuple[str, ...]
    directory: str
    enabled: bool
    due: float
    created: float
    last: Attempt | None = None
    skipped: Attempt | None = None


class Schedules:
    """The schedules of an open database: `embedq_store.Store.schedules`."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def all(self) -> list[Schedule]:
        """All of them, by name, without the output of their attempts."""
        return await self._access.read(_all)

    async def get(self, name: str) -> Schedule:
        """The schedule called `name`. Raises ScheduleMissing, with close names."""
        schedules = await self.all()
        for schedule in schedules:
            if schedule.name == name:
                return schedule
        known = [schedule.name for schedule in schedules]
        raise ScheduleMissing(
            f"there is no schedule {name!r} in {self._access.path}.{suggestion(name, known)}"
            if known
            else f"there is no schedule {name!r} in {self._access.path}: it holds none"
        )

    async def attempts(self, schedule: int, number: int) -> list[Attempt]:
        """The latest attempts of a schedule, newest first, with their output."""
        sql = f"SELECT {_ATTEMPT}, output FROM embedq_schedule_runs WHERE schedule = ? ORDER BY key DESC LIMIT ?"  # noqa: S608
        rows = await self._access.read(lambda db: db.execute(sql, (schedule, number)).fetchall() if _there(db) else [])
        return [_attempt(row) for row in rows]

    async def add(self, new: NewSchedule, now: float, *, replace: bool) -> None:
        """Add a schedule, or with `replace` put it in the place of the one with its name, whose attempts are kept.

        Raises ScheduleExists.
        """

        def add(db: sqlite3.Connection) -> bool:
            values = (new.expression, new.timezone, json.dumps(new.arguments), new.directory, new.due)
            if replace:
                sql = (
                    "UPDATE embedq_schedules SET expression = ?, timezone = ?, arguments = ?, directory = ?, due = ?,"
                    " enabled = 1 WHERE name = ?"
                )
                if db.execute(sql, (*values, new.name)).rowcount:
                    return True
            sql = (
                "INSERT OR IGNORE INTO embedq_schedules"
                " (expression, timezone, arguments, directory, due, name, enabled, created)"
                " VALUES (?, ?, ?, ?, ?, ?, 1, ?)"
            )
            return db.execute(sql, (*values, new.name, now)).rowcount == 1

        if not await self._access.change(add):
            raise ScheduleExists(f"there is a schedule {new.name!r} already: --replace puts this one in its place")

    async def remove(self, schedule: int) -> None:
        """Remove a schedule and what is known of its attempts. One that is going goes on."""

        def remove(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM embedq_schedules WHERE key = ?", (schedule,))
            db.execute("DELETE FROM embedq_schedule_runs WHERE schedule = ?", (schedule,))

        await self._access.change(remove)

    async def enable(self, schedule: int, due: float) -> None:
        """Have a schedule run from `due` on."""
        await self._change("UPDATE embedq_schedules SET enabled = 1, due = ? WHERE key = ?", due, schedule)

    async def disable(self, schedule: int) -> None:
        """Have a schedule run no more until it is enabled."""
        await self._change("UPDATE embedq_schedules SET enabled = 0 WHERE key = ?", schedule)

    async def begin(
        self, schedule: Schedule, following: float, now: float, runner: str, *, missed: int = 0, by_hand: bool = False
    ) -> int | None:
        """Begin an attempt at `schedule` for its due time, if that is reached, and have it due at `following`.

        The number of the attempt; None if somebody else has begun it, or changed the schedule, since it was read.
        `by_hand`, it may be disabled. The lock of the schedule must be held: see `embedq_worker.scheduled`.
        """

        def begin(db: sqlite3.Connection) -> int | None:
            taken = db.execute(
                "UPDATE embedq_schedules SET due = ? WHERE key = ? AND due = ? AND (enabled OR ?) AND NOT EXISTS"
                " (SELECT 1 FROM embedq_schedule_runs WHERE schedule = embedq_schedules.key AND state = 'running')",
                (following, schedule.key, schedule.due, by_hand),
            )
            if not taken.rowcount:
                return None
            due = schedule.due if schedule.due <= now else None
            return _insert(db, schedule.key, due, missed, now, None, "running", runner, "")

        return await self._access.change(begin)

    async def skip(self, schedule: Schedule, following: float, now: float, why: str, *, missed: int = 0) -> bool:
        """Note that `schedule`'s due time passes unused, since its last run is going. False if that is no longer so.

        Several in a row are one attempt, which counts them, so that they don't push out those that say more.
        """

        def skip(db: sqlite3.Connection) -> bool:
            last = db.execute(
                "SELECT key, state FROM embedq_schedule_runs WHERE schedule = ? AND state <> 'skipped'"
                " ORDER BY key DESC LIMIT 1",
                (schedule.key,),
            ).fetchone()
            seen = None if schedule.last is None else (schedule.last.key, schedule.last.state)
            if last != seen:
                return False
            sql = "UPDATE embedq_schedules SET due = ? WHERE key = ? AND due = ? AND enabled"
            if not db.execute(sql, (following, schedule.key, schedule.due)).rowcount:
                return False
            if schedule.skipped is not None:
                sql = "UPDATE embedq_schedule_runs SET missed = missed + ?, ended = ?, message = ? WHERE key = ?"
                if db.execute(sql, (missed + 1, now, why, schedule.skipped.key)).rowcount:
                    return True
            _insert(db, schedule.key, schedule.due, missed, now, now, "skipped", "", why)
            return True

        return await self._access.change(skip)

    async def end(
        self,
        attempt: int,
        state: State,
        now: float,
        *,
        exit_code: int | None = None,
        runs: Sequence[str] = (),
        message: str = "",
        output: str = "",
    ) -> bool:
        """Note how an attempt ended. One that was interrupted or lost is due again, lost ones `LOST_ATTEMPTS` times.

        False if its end was noted before, or the schedule removed.
        """

        def end(db: sqlite3.Connection) -> bool:
            ended = db.execute(
                "UPDATE embedq_schedule_runs SET state = ?, ended = ?, exit_code = ?, runs = ?, message = ?, output = ?"
                " WHERE key = ? AND state = 'running'",
                (state, now, exit_code, json.dumps(list(runs)), message, output, attempt),
            )
            if not ended.rowcount:
                return False
            if state in {"interrupted", "lost"}:
                _make_due_again(db, attempt)
            return True

        return await self._access.change(end)

    # --- private

    async def _change(self, sql: str, *values: object) -> None:
        await self._access.change(lambda db: db.execute(sql, values).rowcount)


def _there(db: sqlite3.Connection) -> bool:
    """Whether the file has the tables: one that is only read may be of an earlier embedq, or of llm's."""
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'embedq_schedule_runs'").fetchone() is not None


def _all(db: sqlite3.Connection) -> list[Schedule]:
    if not _there(db):
        return []
    latest: dict[tuple[int, bool], Attempt] = {}
    sql = f"SELECT {_ATTEMPT}, '', schedule FROM embedq_schedule_runs WHERE key IN (SELECT max(key)"  # noqa: S608
    for row in db.execute(f"{sql} FROM embedq_schedule_runs GROUP BY schedule, state = 'skipped')"):
        attempt = _attempt(row[:-1])
        latest[row[-1], attempt.state == "skipped"] = attempt
    schedules = []
    for row in db.execute(f"SELECT {_COLUMNS} FROM embedq_schedules ORDER BY name"):  # noqa: S608
        key, name, expression, timezone, arguments, directory, enabled, due, created = row
        last, skipped = latest.get((key, False)), latest.get((key, True))
        if last is not None and skipped is not None and skipped.key < last.key:
            skipped = None
        schedules.append(
            Schedule(
                key, name, expression, timezone, tuple(json.loads(arguments)), directory, bool(enabled), due, created,
                last, skipped,
            )
        )  # fmt: skip
    return schedules


def _attempt(row: Sequence[Any]) -> Attempt:
    key, due, missed, begun, ended, state, exit_code, runs, runner, message, output = row
    return Attempt(key, due, missed, begun, ended, state, exit_code, tuple(json.loads(runs)), runner, message, output)


def _make_due_again(db: sqlite3.Connection, attempt: int) -> None:
    sql = "SELECT schedule, due FROM embedq_schedule_runs WHERE key = ?"
    schedule, due = db.execute(sql, (attempt,)).fetchone()
    sql = "SELECT count(*) FROM embedq_schedule_runs WHERE schedule = ? AND due = ? AND state = 'lost'"
    lost = db.execute(sql, (schedule, due)).fetchone()[0]
    if due is not None and lost < LOST_ATTEMPTS:
        db.execute("UPDATE embedq_schedules SET due = min(due, ?) WHERE key = ?", (due, schedule))


def _insert(
    db: sqlite3.Connection,
    schedule: int,
    due: float | None,
    missed: int,
    begun: float,
    ended: float | None,
    state: State,
    runner: str,
    message: str,
) -> int:
    """Enter an attempt; those beyond `KEPT_ATTEMPTS` go. Its number."""
    # Numbers are not given out again: whoever had one that was removed may still want to note its end.
    latest = db.execute("SELECT coalesce(max(key), 0) FROM embedq_schedule_runs").fetchone()[0]
    key = max(int(latest) + 1, time.time_ns() // 1000)
    db.execute(
        "INSERT INTO embedq_schedule_runs"
        " (key, schedule, due, missed, begun, ended, state, runs, runner, message, output)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, '[]', ?, ?, '')",
        (key, schedule, due, missed, begun, ended, state, runner, message),
    )
    db.execute(
        "DELETE FROM embedq_schedule_runs WHERE schedule = ?1 AND state <> 'running' AND key <= (SELECT key"
        " FROM embedq_schedule_runs WHERE schedule = ?1 ORDER BY key DESC LIMIT 1 OFFSET ?2)",
        (schedule, KEPT_ATTEMPTS),
    )
    return key
