"""`embedq embed`: one value now, without the queue."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from embedq_core import options


class VectorFormat(StrEnum):
    """How a vector is printed."""

    json = "json"
    blob = "blob"
    base64 = "base64"
    hex = "hex"


def embed(
    collection: Annotated[
        str | None,
        typer.Argument(metavar="COLLECTION", help="Collection to keep the vector in; needs ID.", show_default=False),
    ] = None,
    id: Annotated[str | None, typer.Argument(metavar="ID", help="Id to keep it under.", show_default=False)] = None,  # noqa: A002
    content: Annotated[str | None, typer.Option("-c", "--content", metavar="TEXT", help="Text to embed.")] = None,
    input: Annotated[  # noqa: A002 - the option's name
        Path | None,
        typer.Option("-i", "--input", metavar="FILE", help="File to embed; - for standard input.", show_default="-"),
    ] = None,
    binary: Annotated[bool, typer.Option("--binary", help="Read the input as bytes.")] = False,
    metadata: Annotated[
        str | None, typer.Option("--metadata", metavar="JSON", help="Object to keep beside the vector.")
    ] = None,
    store: Annotated[
        bool, typer.Option("--store/--no-store", help="Keep the content beside its vector: embedding it anew needs it.")
    ] = True,
    format: Annotated[  # noqa: A002 - the option's name
        VectorFormat | None,
        typer.Option(
            "-f",
            "--format",
            metavar="FORMAT",
            help="How to print the vector: json, blob (its bytes), base64 or hex.",
            show_default="json; nothing is printed where it is kept",
        ),
    ] = None,
    model: options.Model = None,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Embed one value: print its vector, or keep it in a collection.

    To print it: embedq embed -c 'a text' -m MODEL

    With --json, or --format json, the vector is an array of numbers; it is printed, too, where it is kept.
    """
    from embedq.embedding_one import EmbedRequest, run_embed
    from embedq_core.errors import UsageError

    if json and format not in (None, VectorFormat.json):
        raise UsageError(f"--json and --format {format} contradict each other")
    form = VectorFormat.json if json else format
    run_embed(
        EmbedRequest(collection, id, content, input, binary, metadata, store, form and form.value, model),
        database=database,
    )
