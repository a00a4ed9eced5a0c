"""`embedq models`: the embedding models there are, and the one that is used by default."""

import json as json_module
import sys
from typing import Annotated

import typer

from embedq.commands.groups import ListByDefault
from embedq_core import options

app = typer.Typer(help="List embedding models, and set the default one. Without a command: list.", cls=ListByDefault)


@app.command("list")
def list_models(json: options.Json = False) -> None:
    """List the models: id, aliases, plugin, what they take, batch size."""
    from embedq.tables import print_table
    from embedq_core.text import shown
    from embedq_plugins import get_embedding_models_with_aliases, plugin_problems

    models = get_embedding_models_with_aliases()
    if json:
        print(
            json_module.dumps(
                [
                    {
                        "id": entry.model.model_id,
                        "aliases": list(entry.aliases),
                        "plugin": entry.plugin,
                        "text": entry.model.supports_text,
                        "binary": entry.model.supports_binary,
                        "batch_size": entry.model.batch_size,
                    }
                    for entry in models
                ]
            )
        )
    else:
        print_table(
            ["model", "aliases", "plugin", "takes", "batch"],
            [
                [
                    entry.model.model_id,
                    ", ".join(entry.aliases) or "-",
                    entry.plugin,
                    _takes(text=entry.model.supports_text, binary=entry.model.supports_binary),
                    str(entry.model.batch_size or "any"),
                ]
                for entry in models
            ],
            right={4},
        )
    for problem in plugin_problems():
        print(f"embedq: plugin {shown(problem.plugin)}: {shown(problem.message)}", file=sys.stderr)


def _takes(*, text: bool, binary: bool) -> str:
    return " and ".join(word for word, taken in (("text", text), ("bytes", binary)) if taken) or "nothing"


@app.command("default")
def default_model(
    model: Annotated[str | None, typer.Argument(help="Id or alias to set.", show_default=False)] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Have no default again.")] = False,
) -> None:
    """Show the model for new collections where none is named, or set it."""
    from embedq_core.errors import SettingsError, UsageError
    from embedq_core.settings import default_model_file, load_settings
    from embedq_plugins import get_embedding_model
    from embedq_producer.models import FALLBACK_MODEL, default_model_id

    if model is not None and remove:
        raise UsageError("name a model or use --remove, not both")
    file = default_model_file()
    try:
        if remove:
            file.unlink(missing_ok=True)
        elif model is not None:
            chosen = get_embedding_model(model).model_id
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(chosen + "\n", encoding="utf-8")
            print(chosen)
        else:
            found = default_model_id(load_settings())
            print(found or f"{FALLBACK_MODEL} (built in: no default is set)")
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from error
