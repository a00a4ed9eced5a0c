"""`embedq schedule`: commands that workers run at times."""

import json as json_module
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from embedq.commands.groups import ListByDefault
from embedq_core import options
from embedq_core.errors import UsageError

app = typer.Typer(
    help="Run commands at times: workers do it, and look once a minute. Without a command: list.", cls=ListByDefault
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.", show_default=False)]


class CommandAfterDashes(TyperCommand):
    """A command that is given another one, whose options are not its own: they stand after `--`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - click's context, which Typer vendors
        """Parse. Raises UsageError where the other command has options and nothing says where it begins."""
        if "--" not in args and not any(name in args for name in ctx.help_option_names):
            raise UsageError(
                "put -- before the command to run: embedq schedule add NAME '0 3 * * *' -- submit docs --files . '*.md'"
            )
        return super().parse_args(ctx, args)


@app.command("list")
def list_schedules(database: options.Database = None, json: options.Json = False) -> None:
    """List the schedules: when each is next due, what its last run came to, what it runs."""
    from embedq.schedule.scheduling import all_schedules
    from embedq.schedule.views import print_schedules, schedule_object

    schedules, looked_at = all_schedules(database)
    if json:
        print(json_module.dumps([schedule_object(schedule) for schedule in schedules]))
    else:
        print_schedules(schedules)
    if schedules and not looked_at:
        print("no worker is running: schedules wait ('embedq worker' runs one)", file=sys.stderr)


@app.command()
def show(name: Name, database: options.Database = None, json: options.Json = False) -> None:
    """Show a schedule: its command and where it runs, its latest runs, the end of what the last one printed."""
    from embedq.schedule.scheduling import one_schedule
    from embedq.schedule.views import print_schedule, schedule_object

    schedule, attempts = one_schedule(name, database)
    if json:
        print(json_module.dumps(schedule_object(schedule, attempts)))
    else:
        print_schedule(schedule, attempts)


@app.command(cls=CommandAfterDashes)
def add(
    context: typer.Context,
    name: Name,
    expression: Annotated[
        str,
        typer.Argument(
            metavar="CRON", help="When: minute, hour, day of the month, month, day of the week.", show_default=False
        ),
    ],
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND", help="After --: a command of embedq, without 'embedq' itself.", show_default=False
        ),
    ],
    timezone: Annotated[
        str | None,
        typer.Option(
            "--timezone", metavar="ZONE", help="By whose clocks, such as Europe/Berlin.", show_default="this machine's"
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of the schedule of this name.")
    ] = False,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Add a schedule: a worker runs COMMAND at the times of CRON, in this directory, on this database.

    Every night at three: embedq schedule add nightly '0 3 * * *' -- submit docs --files ./docs '**/*.md'

    Times that were missed, since no worker was running, are made up for by one run. While the last run is still
    going, a time is skipped. Where daylight saving takes the hour away, it runs when clocks have been put forward.
    """
    from embedq.schedule.scheduling import AddRequest, add_schedule
    from embedq.schedule.views import in_zone, schedule_object
    from embedq_core.text import shown

    request = AddRequest(name, expression, tuple(command), timezone, replace, database)
    schedule = add_schedule(request, context.find_root().command)
    if json:
        print(json_module.dumps(schedule_object(schedule)))
    else:
        print(f"{shown(name)}: first due {in_zone(schedule.due, schedule.timezone)}")
        print(f"'embedq schedule run {shown(name)}' tries it out", file=sys.stderr)


@app.command()
def remove(name: Name, yes: options.Yes = False, database: options.Database = None, json: options.Json = False) -> None:
    """Remove a schedule and what is known of its runs. Asks first. What it is running goes on."""
    from embedq.asking import ask
    from embedq.schedule.scheduling import one_schedule, remove_schedule
    from embedq.schedule.views import schedule_object
    from embedq_core.text import shown

    schedule, _ = one_schedule(name, database)
    if not yes:
        ask(f"Remove the schedule {shown(name)}?")
    remove_schedule(name, database)
    print(json_module.dumps(schedule_object(schedule)) if json else f"removed {shown(name)}")


@app.command()
def run(name: Name, database: options.Database = None, json: options.Json = False) -> None:
    """Run a schedule's command here and now, and end with its exit code. No worker begins it meanwhile.

    With --json, what became of it is printed instead of what it prints.
    """
    from embedq.schedule.scheduling import run_schedule

    sys.exit(run_schedule(name, database, as_json=json))


@app.command()
def enable(name: Name, database: options.Database = None, json: options.Json = False) -> None:
    """Run a schedule again, from now on: times that were missed while it was disabled are not made up for."""
    _switch(name, database, on=True, json=json)


@app.command()
def disable(name: Name, database: options.Database = None, json: options.Json = False) -> None:
    """Run a schedule no more until it is enabled. What it is running goes on."""
    _switch(name, database, on=False, json=json)


def _switch(name: str, database: options.Database, *, on: bool, json: bool) -> None:
    from embedq.schedule.scheduling import switch_schedule
    from embedq.schedule.views import in_zone, schedule_object
    from embedq_core.text import shown

    schedule = switch_schedule(name, database, on=on)
    if json:
        print(json_module.dumps(schedule_object(schedule)))
    else:
        words = f"next due {in_zone(schedule.due, schedule.timezone)}" if on else "disabled"
        print(f"{shown(name)}: {words}")
