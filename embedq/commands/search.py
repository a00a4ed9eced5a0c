"""`embedq similar`: the entries of a collection nearest to a text, a file, an entry, or each of many texts."""

from pathlib import Path
from typing import Annotated

import typer

from embedq_core import options
from embedq_core.errors import UsageError


def similar(
    collection: options.Collection,
    id: Annotated[  # noqa: A002 - the argument's name
        str | None,
        typer.Argument(metavar="ID", help="Id of an entry to compare with.", show_default=False, callback=options.text),
    ] = None,
    content: Annotated[
        str | None,
        typer.Option("-c", "--content", metavar="TEXT", help="Text to compare with.", callback=options.text),
    ] = None,
    input: Annotated[  # noqa: A002 - the option's name
        Path | None, typer.Option("-i", "--input", metavar="FILE", help="File to compare with; - for standard input.")
    ] = None,
    binary: Annotated[bool, typer.Option("--binary", help="Read --input as bytes.")] = False,
    number: Annotated[int, typer.Option("-n", "--number", metavar="N", min=1, help="How many results.")] = 10,
    prefix: options.OnlyPrefix = "",
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="KEY=VALUE", help="Only entries whose metadata holds this. May be repeated."),
    ] = None,
    group: Annotated[
        bool, typer.Option("--group", help="Documents instead of their parts, each by the best of them.")
    ] = False,
    batch: Annotated[
        Path | None,
        typer.Option(
            "--batch", metavar="FILE", help="File of queries: a text on each line, or rows; - for standard input."
        ),
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Format of --batch: lines (of text), csv, tsv, json, nl (JSON lines) or parquet; told by the name or "
            "the first bytes of FILE if left out.",
        ),
    ] = None,
    ann: Annotated[
        bool, typer.Option("--ann", help="Search a large collection faster: one of a hundred may be missed.")
    ] = False,
    plain: Annotated[bool, typer.Option("-p", "--plain", help="Print text to read instead of JSON lines.")] = False,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Print the entries most similar to a text, a file or an entry, by cosine similarity, best first.

    The three nearest to a question, to read: embedq similar docs -c 'how do I resume?' -n 3 --plain

    Each is a line of JSON with id, score, content and metadata; with --json all are one array, with --plain text to
    read. With --batch, there is a line, or an element of the array, for each query: its id, or the number of its line,
    and its results.

    The search is exact. With --ann it asks an index, which is built in the background when it is first asked for: see
    'embedq collections index'.
    """
    if json and plain:
        raise UsageError("--json and --plain contradict each other")
    if batch is not None:
        from embedq.search.searching_many import BatchRequest, run_similar_batch

        if plain or binary or any(value is not None for value in (id, content, input)):
            raise UsageError("--batch says what to compare with: leave out ID, -c, -i, --binary and --plain")
        request = BatchRequest(collection, batch, format, number, prefix, tuple(where or ()), ann, group)
        run_similar_batch(request, database=database, as_json=json)
    if format is not None:
        raise UsageError("--format is for --batch FILE")
    from embedq.search.searching import SearchRequest, run_similar

    run_similar(
        SearchRequest(collection, id, content, input, binary, number, prefix, tuple(where or ()), ann, group),
        plain=plain,
        as_json=json,
        database=database,
    )
