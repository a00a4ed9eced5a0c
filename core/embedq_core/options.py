"""Options that many commands share, so that they are spelled and explained the same everywhere."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Database: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "-d",
        "--database",
        help="SQLite file that holds the vectors.",
        show_default="$EMBEDQ_DATABASE, else one in your data folder",
        metavar="FILE",
    ),
]
Model: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        help="Embedding model, by id or alias: see 'embedq models'.",
        show_default="the collection's, else $EMBEDQ_MODEL or 'embedq models default'",
        metavar="MODEL",
    ),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
Collection: TypeAlias = Annotated[str, typer.Argument(help="Name of the collection.", show_default=False)]
