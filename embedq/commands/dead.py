"""`embedq dead`: items that could not be embedded."""

import json as json_module
from typing import Annotated

import typer

from embedq.commands.groups import ListByDefault
from embedq_core import options

app = typer.Typer(help="List the items that could not be embedded. Without a command: list.", cls=ListByDefault)


@app.command("list")
def list_dead(
    collection: Annotated[str | None, typer.Option("--collection", metavar="NAME", help="Of this collection.")] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Of this run.")] = None,
    error: Annotated[str | None, typer.Option("--error", metavar="CLASS", help="With this error class.")] = None,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many, the newest first.")] = 20,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """List dead letters: which item, of which collection and run, and why."""
    from embedq.inspecting import dead_letters, moment
    from embedq.tables import print_table

    letters = dead_letters(database, collection=collection, run=run, error=error, limit=number)
    if json:
        print(
            json_module.dumps(
                [
                    {
                        "run": letter.run,
                        "collection": letter.collection,
                        "id": letter.id,
                        "content": letter.content if isinstance(letter.content, str) else None,
                        "content_bytes": None if letter.content is None else len(letter.content),
                        "metadata": letter.metadata,
                        "model": letter.model,
                        "error": letter.error,
                        "message": letter.message,
                        "attempts": letter.attempts,
                        "died": letter.died,
                    }
                    for letter in letters
                ]
            )
        )
    elif letters:
        print_table(
            ["id", "collection", "error", "message", "died", "run"],
            [
                [letter.id, letter.collection, letter.error, letter.message, moment(letter.died), letter.run]
                for letter in letters
            ],
        )
    else:
        print("no dead letters")
