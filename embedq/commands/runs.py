"""`embedq runs`: submissions, and how far they have come."""

import json as json_module
import sys
from typing import Annotated

import typer

from embedq.commands.groups import ListByDefault
from embedq_core import options
from embedq_core.errors import UsageError

STATES = ("queued", "in_progress", "complete", "interrupted", "cancelled")

app = typer.Typer(help="List runs, show one, wait for one, cancel one. Without a command: list.", cls=ListByDefault)

RunId = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Id of the run, as 'submit' printed it.", show_default=False, callback=options.text
    ),
]


@app.command("list")
def list_runs(
    number: Annotated[int, typer.Option("-n", "--number", metavar="N", min=1, help="How many, the newest first.")] = 20,
    collection: Annotated[
        str | None, typer.Option("--collection", metavar="NAME", help="Only those of this collection.")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option("--state", metavar="STATE", help="Only those in this state: " + ", ".join(STATES) + "."),
    ] = None,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """List the latest runs: state, collection, share that is done, time left, speed, outcomes, model calls.

    A narrow terminal shows the first of these; 'embedq runs show RUN' shows all of one.
    """
    if state is not None and state not in STATES:
        raise UsageError(f"there is no state {state!r}: --state takes {', '.join(STATES)}")
    from embedq.steer.running import latest_runs, print_runs
    from embedq_producer.summary import summary_object

    summaries = latest_runs(number, database, collection=collection, state=state)
    if json:
        print(json_module.dumps([summary_object(summary) for summary in summaries]))
        return
    if not summaries and (collection is not None or state is not None):
        print("no such runs")
        return
    if not summaries:
        print("no runs yet: 'embedq submit COLLECTION FILE' begins one")
        return
    print_runs(summaries)


@app.command()
def show(run: RunId, database: options.Database = None, json: options.Json = False) -> None:
    """Show a run: source, progress, speed, time left, outcomes, model calls and how full they were."""
    from embedq.steer.running import one_run, run_fields
    from embedq.tables import print_fields
    from embedq_producer.summary import summary_object

    summary = one_run(run, database)
    if json:
        print(json_module.dumps(summary_object(summary)))
    else:
        print_fields(run_fields(summary))


@app.command()
def wait(run: RunId, database: options.Database = None, json: options.Json = False) -> None:
    """Wait until all of a run is stored or dead, and say what became of it.

    Exits with 1 if some of it is dead, or its source was not sent to its end.
    """
    import asyncio

    from embedq.steer.waiting import wait_until_settled

    sys.exit(asyncio.run(wait_until_settled(run, database, as_json=json)))


@app.command()
def cancel(run: RunId, yes: options.Yes = False, database: options.Database = None, json: options.Json = False) -> None:
    """Cancel a run: take what waits of it out of the queue, and take no more of it. Asks first.

    What workers have in hand is finished, since it is being paid for; what is stored stays. Exits with 1 if the run was
    complete.
    """
    from embedq.steer.steering import run_cancel

    run_cancel(run, database, yes=yes, as_json=json)
