"""The command that runs workers."""

from typing import Annotated, Literal

import typer

from embedq_core import options
from embedq_core.errors import UsageError
from embedq_core.settings import MOST_PORT

_TOLD = "Metrics and log"


def worker(
    model: Annotated[
        list[str] | None,
        typer.Option("-m", "--model", metavar="MODEL", help="Serve this model only. May be repeated."),
    ] = None,
    burst: Annotated[
        bool, typer.Option("--burst", help="End when the queue is empty, or what is left can't be done now.")
    ] = False,
    processes: Annotated[int, typer.Option("--processes", min=1, metavar="N", help="Run N worker processes.")] = 1,
    grace: Annotated[
        float,
        typer.Option(
            "--grace", min=0, metavar="SECONDS", help="Time that a call of the model gets to end when the worker stops."
        ),
    ] = 30.0,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            metavar="PORT",
            help="Serve metrics for Prometheus at this port: 0 for any that is free, which the log names. "
            "With --processes, the processes take this port and the ones after it.",
            show_default="$EMBEDQ_METRICS_PORT, else none are served",
            rich_help_panel=_TOLD,
        ),
    ] = None,
    metrics_host: Annotated[
        str | None,
        typer.Option(
            "--metrics-host",
            metavar="ADDRESS",
            help="Serve them at this address of the machine: 0.0.0.0 for all, to whoever can reach it.",
            show_default="$EMBEDQ_METRICS_HOST, else 127.0.0.1",
            rich_help_panel=_TOLD,
        ),
    ] = None,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option(
            "--log-format",
            metavar="text|json",
            help="Log lines for people, or as JSON with fields of their own for run, chunk, collection and model.",
            show_default="$EMBEDQ_LOG_FORMAT, else text",
            rich_help_panel=_TOLD,
        ),
    ] = None,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Run a worker: embed what is queued, until it is stopped.

    Ctrl-C or SIGTERM: no new work is taken, calls of the model that are going on may end, the rest goes back to
    the queue. Nothing is lost, however a worker ends.

    With --json, what it has done is printed when it ends. Log lines go to standard error in any case.
    """
    from embedq_core.settings import load_settings
    from embedq_worker.running import run_worker
    from embedq_worker.service import ServiceOptions

    if metrics_port is not None and not 0 <= metrics_port <= MOST_PORT:
        raise UsageError(f"--metrics-port takes a port, from 0 to {MOST_PORT}, not {metrics_port}")
    settings = load_settings(
        database=database, metrics_port=metrics_port, metrics_host=metrics_host, log_format=log_format
    )
    if metrics_host is not None and settings.metrics_port is None:
        raise UsageError("--metrics-host says where metrics are served: name the port, too, with --metrics-port")
    run_worker(
        settings, ServiceOptions(tuple(model or ()), burst, grace, schedules=True), processes=processes, as_json=json
    )
