"""`embedq models`: the embedding models there are, one that is tried out, and the one that is used by default."""

import sys
from typing import Annotated

import typer

from embedq.commands.groups import ListByDefault
from embedq_core import options

app = typer.Typer(
    help="List embedding models, try one, set the default one. Without a command: list.", cls=ListByDefault
)


@app.command("list")
def list_models(json: options.Json = False) -> None:
    """List the models: id, aliases, plugin, dimension, what they take, batch size, library; and the kinds of models."""
    from embedq.models.listing import print_models
    from embedq_core.text import shown
    from embedq_plugins import plugin_problems

    print_models(as_json=json)
    for problem in plugin_problems():
        print(f"embedq: plugin {shown(problem.plugin)}: {shown(problem.message)}", file=sys.stderr)


@app.command("test")
def try_model(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Id or alias: see 'embedq models'.", show_default=False)
    ],
    json: options.Json = False,
) -> None:
    """Embed two sentences, and say how long their vectors are and how fast that was."""
    from embedq.models.trial import run_trial

    run_trial(model, as_json=json)


@app.command("default")
def default_model(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Id or alias to set.", show_default=False)
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Have no default again.")] = False,
    json: options.Json = False,
) -> None:
    """Show the model for new collections where none is named, or set it."""
    from embedq.models.default import run_default
    from embedq_core.errors import UsageError

    if model is not None and remove:
        raise UsageError("name a model or use --remove, not both")
    run_default(model, remove=remove, as_json=json)
