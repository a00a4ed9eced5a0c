"""`embedq pause`, `resume` and `drain`: holding work back, letting it go on, ending workers in good order."""

from typing import Annotated, TypeAlias

import typer

from embedq_core import options

OfModel: TypeAlias = Annotated[
    str | None,
    typer.Option("-m", "--model", metavar="MODEL", help="Only what is for this model.", callback=options.text),
]
OfCollection: TypeAlias = Annotated[
    str | None,
    typer.Option("--collection", metavar="NAME", help="Only what is for this collection.", callback=options.text),
]


def pause(
    model: OfModel = None,
    collection: OfCollection = None,
    reason: Annotated[
        str | None,
        typer.Option(
            "--reason", metavar="TEXT", help="Why, for those who wonder.", show_default=False, callback=options.text
        ),
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="Only show what is paused.")] = False,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Let workers take no new work, until 'embedq resume': everything, or one model or collection.

    What they have in hand is finished. Items can be queued meanwhile. A pause holds when workers and Redis are started
    anew. Pauses of everything, of a model and of a collection are apart: each is lifted by itself.
    """
    from embedq.steer.steering import run_pause, scope_of
    from embedq_core.errors import UsageError

    scope = scope_of(model, collection)
    if list_only and (scope.name or reason is not None):
        raise UsageError("--list shows all pauses and makes none: give it alone")
    run_pause(scope, reason, database, list_only=list_only, as_json=json)


def resume(
    model: OfModel = None,
    collection: OfCollection = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Lift every pause, those of models and collections too.")
    ] = False,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Lift a pause: the one of everything, or that of a model or collection. What waited is due at once.

    Says which others remain. Exits with 1 where it lifted none, and others hold work back.
    """
    from embedq.steer.steering import run_resume, scope_of
    from embedq_core.errors import UsageError

    scope = scope_of(model, collection)
    if everything and scope.name:
        raise UsageError("--all leaves no choice: name one, or give --all alone")
    run_resume(scope, database, everything=everything, as_json=json)


def drain(
    worker: Annotated[
        str | None,
        typer.Option(
            "--worker", metavar="HOST:PID", help="Only this one, as 'embedq status' shows it.", show_default="all"
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until they have ended.")] = False,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Let the workers that run now finish what they have in hand, however long that takes, and end.

    They take no new work and exit with 0; what is queued stays queued. Workers that are started afterwards work as
    usual. An 'embedq ingest' ends, too, and says what it leaves. The command of a schedule has the worker's --grace to
    end, and is due again after that.
    """
    from embedq.steer.draining import run_drain

    run_drain(worker, database, wait=wait, as_json=json)
