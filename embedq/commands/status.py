"""`embedq status`: what is going on."""

from typing import Annotated

import typer

from embedq_core import options
from embedq_core.errors import UsageError

LONGEST_SECONDS = 86_400


def status(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again and again, until Ctrl-C: one screen, redrawn in place.")
    ] = False,
    interval: Annotated[
        float | None,
        typer.Option(
            "--interval", metavar="SECONDS", help="How often, with --watch: 0.1 or more.", show_default="2 seconds"
        ),
    ] = None,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Show the queue, the speed, the runs, the dead letters, the workers and their models.

    With --watch, what goes to a file or a pipe is a line each time; with --json as well, an object of JSON a line.
    """
    if interval is not None and not 0.1 <= interval <= LONGEST_SECONDS:
        raise UsageError(f"--interval takes 0.1 to {LONGEST_SECONDS:,} seconds")
    if watch:
        from embedq.status.watching import watch_status

        watch_status(database, interval=2.0 if interval is None else interval, as_json=json)
        return
    if interval is not None:
        raise UsageError("--interval is for --watch")
    from embedq.status.once import print_status

    print_status(database, as_json=json)
