"""`embedq similar`: the entries of a collection nearest to a text, a file or an entry."""

from pathlib import Path
from typing import Annotated

import typer

from embedq_core import options


def similar(
    collection: options.Collection,
    id: Annotated[  # noqa: A002 - the argument's name
        str | None, typer.Argument(help="Id of an entry to compare with.", show_default=False)
    ] = None,
    content: Annotated[
        str | None, typer.Option("-c", "--content", metavar="TEXT", help="Text to compare with.")
    ] = None,
    input: Annotated[  # noqa: A002 - the option's name
        Path | None, typer.Option("-i", "--input", metavar="FILE", help="File to compare with; - for standard input.")
    ] = None,
    binary: Annotated[bool, typer.Option("--binary", help="Read --input as bytes.")] = False,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many results.")] = 10,
    prefix: Annotated[str, typer.Option("--prefix", metavar="TEXT", help="Only ids that begin with TEXT.")] = "",
    plain: Annotated[bool, typer.Option("-p", "--plain", help="Print text to read instead of JSON lines.")] = False,
    database: options.Database = None,
) -> None:
    """Print the entries most similar to a text, a file or an entry, by cosine similarity, best first.

    Each is a line of JSON with id, score, content and metadata; with --plain, text to read.
    """
    from embedq.searching import SearchRequest, run_similar

    run_similar(SearchRequest(collection, id, content, input, binary, number, prefix), plain=plain, database=database)
