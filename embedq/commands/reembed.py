"""`embedq reembed`: another model for a collection, beside the one that it has."""

from pathlib import Path
from typing import Annotated

import typer

from embedq_core import options


def reembed(
    collection: Annotated[
        str | None,
        typer.Argument(metavar="COLLECTION", help="Name of the collection.", show_default=False, callback=options.text),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", metavar="MODEL", help="The new model, by id or alias: see 'embedq models'."),
    ] = None,
    golden: Annotated[
        Path | None,
        typer.Option(
            "--golden",
            metavar="FILE",
            help='Queries that the new vectors must answer: lines of {"query": TEXT, "expected": [ID, …]}.',
        ),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            "--recall",
            metavar="R",
            min=0.0,
            max=1.0,
            help="Share of the expected ids that --golden must find; if left out, what the old vectors find.",
            show_default=False,
        ),
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Take the new vectors as they are, though they were stopped.")
    ] = False,
    drop_old: Annotated[
        bool,
        typer.Option("--drop-old", help="Don't keep the old vectors; without -m, drop those that are kept."),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Also with the model that the collection has, which is meant where -m is left out."
        ),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it has switched; embed here where no worker runs.")
    ] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End it, and remove the new vectors.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List what is, and was, embedded anew.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would come to. Nothing is queued.")] = False,
    yes: options.Yes = False,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Embed the stored content of a collection with another model, beside the vectors that it has.

    Searches are answered from the old vectors until the new ones are complete, then from the new ones, at once. What is
    added meanwhile ends in both. Workers do it, as they do what is submitted, and switch when all is there; dead
    letters are left out, and said. The old vectors are kept: 'embedq collections rollback COLLECTION' goes back.

    Run it again at any moment: it goes on where it was, and nothing is paid for twice. A collection that has the model
    already is left as it is, so a schedule may ask each night; with --force all of it is embedded again.
    """
    from embedq.reembed.reembedding import ReembedRequest, run_reembed

    run_reembed(
        ReembedRequest(
            collection,
            model,
            golden,
            recall,
            accept=accept,
            drop_old=drop_old,
            force=force,
            wait=wait,
            cancel=cancel,
            listed=list_,
            dry_run=dry_run,
            json=json,
        ),
        database,
        confirmed=yes,
    )
