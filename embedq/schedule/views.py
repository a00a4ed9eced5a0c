"""Schedules as they are printed: for people, by the clocks of each schedule's time zone, and for programs."""

from datetime import datetime

from embedq.tables import print_fields, print_table
from embedq_core.text import shown_lines
from embedq_producer.terminal import duration
from embedq_store import Attempt, Schedule
from embedq_worker.timetable import last_result, zone

_NO_SCHEDULES = "no schedules yet: embedq schedule add NAME '0 3 * * *' -- submit COLLECTION --files DIR GLOB"


def print_schedules(schedules: list[Schedule]) -> None:
    """Print schedules as a table: name, expression, next time, last result, how long it took, run, command."""
    if not schedules:
        print(_NO_SCHEDULES)
        return
    print_table(
        ["schedule", "next", "last result", "took", "last run", "at", "command"],
        [
            [
                schedule.name,
                _next(schedule),
                last_result(schedule) or "-",
                _took(schedule.last),
                ", ".join(schedule.last.runs[-1:]) if schedule.last else "",
                schedule.expression,
                _command(schedule),
            ]
            for schedule in schedules
        ],
        # Of a time, nothing may be cut.
        right={1, 3},
    )


def print_schedule(schedule: Schedule, attempts: list[Attempt]) -> None:
    """Print a schedule whole, with its latest attempts and the end of what the last one printed."""
    print_fields(
        [
            ("schedule", schedule.name),
            ("at", f"{schedule.expression} ({schedule.timezone})"),
            ("next", _next(schedule)),
            ("command", _command(schedule)),
            ("in", schedule.directory),
            ("added", in_zone(schedule.created, schedule.timezone)),
            ("last result", last_result(schedule) or "-"),
        ]
    )
    if attempts:
        print()
        print_table(
            ["begun", "result", "exit code", "took", "runs", "message"],
            [
                [
                    in_zone(each.begun, schedule.timezone),
                    each.state,
                    "" if each.exit_code is None else str(each.exit_code),
                    _took(each),
                    ", ".join(each.runs),
                    each.message,
                ]
                for each in attempts
            ],
            right={2, 3},
        )
    output = next((each.output for each in attempts if each.state != "skipped"), "")
    if output:
        print("\noutput")
        print("\n".join(f"  {line}" for line in shown_lines(output).splitlines()))


def schedule_object(schedule: Schedule, attempts: list[Attempt] | None = None) -> dict[str, object]:
    """A schedule for JSON: times in seconds since the epoch, and the next one also by its own clock."""
    latest = schedule.skipped or schedule.last
    found: dict[str, object] = {
        "name": schedule.name,
        "expression": schedule.expression,
        "timezone": schedule.timezone,
        "command": list(schedule.arguments),
        "directory": schedule.directory,
        "enabled": schedule.enabled,
        "created": schedule.created,
        "due": schedule.due if schedule.enabled else None,
        "due_local": _local(schedule.due, schedule.timezone).isoformat() if schedule.enabled else None,
        "last": None if latest is None else _attempt_object(latest),
        "last_run": schedule.last.runs[-1] if schedule.last and schedule.last.runs else None,
    }
    if attempts is not None:
        found["attempts"] = [{**_attempt_object(each), "output": each.output} for each in attempts]
    return found


def in_zone(seconds: float, timezone: str) -> str:
    """A time since the epoch by the clocks of a time zone, to the minute: '2026-03-29 03:00 CEST'."""
    return _local(seconds, timezone).strftime("%Y-%m-%d %H:%M %Z")


def _local(seconds: float, timezone: str) -> datetime:
    return datetime.fromtimestamp(seconds, zone(timezone))


def _next(schedule: Schedule) -> str:
    return in_zone(schedule.due, schedule.timezone) if schedule.enabled else "disabled"


def _took(attempt: Attempt | None) -> str:
    if attempt is None or attempt.ended is None or attempt.state == "skipped":
        return ""
    return duration(max(attempt.ended - attempt.begun, 0.0))


def _command(schedule: Schedule) -> str:
    from embedq_worker.scheduled import command_line

    return command_line(schedule.arguments)


def _attempt_object(attempt: Attempt) -> dict[str, object]:
    return {
        "state": attempt.state,
        "exit_code": attempt.exit_code,
        "due": attempt.due,
        "begun": attempt.begun,
        "ended": attempt.ended,
        "seconds": None if attempt.ended is None else round(attempt.ended - attempt.begun, 3),
        "missed": attempt.missed,
        "runs": list(attempt.runs),
        "runner": attempt.runner,
        "message": attempt.message,
    }
