"""Options that many commands share, so that they are spelled and explained the same everywhere."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from embedq_core.errors import UsageError
from embedq_core.items import unstorable
from embedq_core.priority import Priority
from embedq_core.text import shown


def text(value: str | None) -> str | None:
    """For an argument that is looked for, or kept: the system gives also what is no text. Raises UsageError."""
    problem = None if value is None else unstorable(value)
    if value is not None and problem is not None:
        raise UsageError(f"{shown(value)!r} is no text in UTF-8: it {problem}")
    return value


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
Urgency: TypeAlias = Annotated[
    Priority,
    typer.Option(
        "--priority",
        metavar="high|normal",
        help="With high, go ahead of what is queued already for the model; that still gets a share.",
        case_sensitive=False,
    ),
]
Collection: TypeAlias = Annotated[
    str, typer.Argument(metavar="COLLECTION", help="Name of the collection.", show_default=False, callback=text)
]
OnlyPrefix: TypeAlias = Annotated[
    str, typer.Option("--prefix", metavar="TEXT", help="Only ids that begin with TEXT.", callback=text)
]
