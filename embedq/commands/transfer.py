"""The commands of `embedq collections` that take collections out of a database, into it, and to other names."""

import json as json_module
from typing import Annotated

import typer

from embedq_core import options

_VECTORS = "Vectors"
_FORMAT = typer.Option(
    "--format", metavar="FORMAT", help="Format: jsonl, parquet or npz; told by the name of FILE if left out."
)


def export_collection(
    collection: options.Collection,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="File to write; - for standard output, which is meant if left out.", show_default=False
        ),
    ] = "-",
    format: Annotated[str | None, _FORMAT] = None,  # noqa: A002 - the option's name
    vectors: Annotated[
        bool,
        typer.Option(
            "--vectors/--no-vectors",
            help="With the vectors, or only what 'embedq submit' needs to make them anew.",
            rich_help_panel=_VECTORS,
        ),
    ] = True,
    base64: Annotated[
        bool,
        typer.Option(
            "--base64",
            help="In jsonl: vectors as base64, a quarter as long as numbers.",
            rich_help_panel=_VECTORS,
        ),
    ] = False,
    prefix: options.OnlyPrefix = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Write a collection to a file: as it stands at this moment, whole or not at all.

    With vectors, 'embedq collections import' reads it back bit for bit: ids, contents, metadata, vectors, hashes,
    times, model. jsonl is an object a line; parquet needs pyarrow; npz is for numpy.load: ids and vectors.
    """
    from embedq.transfer.entry_files import Shape
    from embedq.transfer.exporting import ExportRequest, export
    from embedq.transfer.forms import STANDARD_STREAM
    from embedq_core.errors import UsageError
    from embedq_core.text import plural, shown

    if json and file == STANDARD_STREAM:
        raise UsageError("--json says what was written to a file: name one")
    shape = Shape(vectors=vectors, base64=base64)
    done = export(ExportRequest(collection, file, format, shape, prefix, overwrite, database))
    if json:
        print(json_module.dumps(done.as_object()))
    elif file != STANDARD_STREAM:
        print(f"exported {plural(done.entries, 'entry', 'entries')} of {shown(collection)} to {shown(file)}")
    if done.left_out:
        left = plural(done.left_out, "entry was", "entries were")
        typer.echo(f"embedq: {left} left out, having no content: it was not kept (--no-store)", err=True)
        raise typer.Exit(1)


def import_collection(
    collection: options.Collection,
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="File to read; - for standard input.", show_default=False)
    ],
    format: Annotated[str | None, _FORMAT] = None,  # noqa: A002 - the option's name
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            metavar="MODEL",
            help="The model that made the vectors, by id or alias, where the file doesn't say.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace entries of the same ids that are different.")
    ] = False,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Read entries with their vectors from a file into a collection, which is made if it isn't there.

    From one database into another: embedq collections export docs | embedq collections import docs - -d other.db

    The whole file is checked before anything is written. Killed on the way, it can be run again: what is there as the
    file has it is passed over. Entries without vectors are for 'embedq submit', which reads the same files.
    """
    from embedq.transfer.importing import ImportRequest, import_file
    from embedq_core.text import plural, shown

    done = import_file(ImportRequest(source, collection, format, model, replace, database))
    if json:
        print(json_module.dumps(done.as_object()))
    else:
        print(
            f"imported {plural(done.new, 'entry', 'entries')} into {shown(done.collection)} ({shown(done.model_id)}): "
            f"{done.replaced:,} replaced, {done.same:,} there already"
        )


def rename_collection(
    context: typer.Context,
    collection: options.Collection,
    name: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.", show_default=False)],
    force: Annotated[
        bool, typer.Option("--force", help="Rename it even while work for it is queued, or the queue can't be asked.")
    ] = False,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Give a collection another name; its dead letters go with it.

    Work that is still queued would make a collection of the old name, so it is refused while there is any. Schedules
    that name it are told, and left as they are.
    """
    from embedq.transfer.renaming import rename
    from embedq_core.text import shown

    schedules = rename(collection, name, database, context.find_root().command, force=force)
    if json:
        print(json_module.dumps({"collection": name, "was": collection, "schedules": schedules}))
    else:
        print(f"renamed {shown(collection)} to {shown(name)}")
    for schedule in schedules:
        typer.echo(
            f"embedq: the schedule {shown(schedule)!r} names {shown(collection)} still, and would make it anew: "
            "'embedq schedule add --replace' puts another in its place",
            err=True,
        )


def copy_collection(
    collection: options.Collection,
    name: Annotated[str, typer.Argument(metavar="NEW", help="Name of the copy.", show_default=False)],
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Copy a collection with its vectors to a new name, without paying for anything; dead letters are not copied.

    The copy appears when it is whole. What is written to the collection meanwhile may be in it or not.
    """
    from embedq.transfer.renaming import copy
    from embedq_core.text import plural, shown

    entries = copy(collection, name, database)
    if json:
        print(json_module.dumps({"collection": name, "copy_of": collection, "entries": entries}))
    else:
        print(f"copied {shown(collection)} to {shown(name)}: {plural(entries, 'entry', 'entries')}")
