"""The command that runs workers."""

from typing import Annotated

import typer

from embedq_core import options


def worker(
    model: Annotated[
        list[str] | None,
        typer.Option("-m", "--model", metavar="MODEL", help="Serve this model only. May be repeated."),
    ] = None,
    burst: Annotated[bool, typer.Option("--burst", help="End when the queue is empty.")] = False,
    processes: Annotated[int, typer.Option("--processes", min=1, metavar="N", help="Run N worker processes.")] = 1,
    grace: Annotated[
        float,
        typer.Option(
            "--grace", min=0, metavar="SECONDS", help="Time that a call of the model gets to end when the worker stops."
        ),
    ] = 30.0,
    database: options.Database = None,
) -> None:
    """Run a worker: embed what is queued, until it is stopped.

    Ctrl-C or SIGTERM: no new work is taken, calls of the model that are going on may end, the rest goes back to
    the queue. Nothing is lost, however a worker ends.
    """
    from embedq_worker.running import run_worker

    run_worker(tuple(model or ()), burst=burst, processes=processes, grace_seconds=grace, database=database)
