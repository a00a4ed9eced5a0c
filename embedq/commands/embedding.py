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
        typer.Option("-i", "--input", metavar="FILE", help="File to embed; - or nothing: standard input."),
    ] = None,
    binary: Annotated[bool, typer.Option("--binary", help="Read the input as bytes.")] = False,
    metadata: Annotated[
        str | None, typer.Option("--metadata", metavar="JSON", help="Object to keep beside the vector.")
    ] = None,
    store: Annotated[bool, typer.Option("--store/--no-store", help="Keep the content beside the vector.")] = True,
    format: Annotated[  # noqa: A002 - the option's name
        VectorFormat | None,
        typer.Option("-f", "--format", help="How to print the vector; without a collection, json."),
    ] = None,
    model: options.Model = None,
    database: options.Database = None,
) -> None:
    """Embed one value: print its vector, or keep it in a collection."""
    from embedq.embedding_one import EmbedRequest, run_embed

    run_embed(
        EmbedRequest(collection, id, content, input, binary, metadata, store, format and format.value, model),
        database=database,
    )
