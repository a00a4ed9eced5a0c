"""`embedq collections`: what the database holds."""

import json as json_module
from typing import Annotated

import typer

from embedq.commands import transfer
from embedq.commands.groups import ListByDefault
from embedq_core import options

app = typer.Typer(
    help="List collections, show, index, audit, export, import, copy, rename and delete one, or undo a re-embedding. "
    "Without a command: list.",
    cls=ListByDefault,
)


@app.command("list")
def list_collections(database: options.Database = None, json: options.Json = False) -> None:
    """List the collections of the database: name, model, entries.

    What 'embedq reembed' makes, or keeps, beside a collection is listed too, and named as such.
    """
    from embedq.inspecting import collection_list
    from embedq.tables import print_table

    rows = collection_list(database)
    if json:
        print(json_module.dumps([row.as_object() for row in rows]))
    elif rows:
        heads, cells = (
            ["collection", "model", "entries"],
            [[row.name, row.model_id, f"{row.entries:,}"] for row in rows],
        )
        if any(row.role for row in rows):
            heads, cells = [*heads, ""], [[*cell, row.role_words] for cell, row in zip(cells, rows, strict=True)]
        print_table(heads, cells, right={2})
    else:
        print("no collections yet: 'embedq ingest COLLECTION FILE' makes one")


@app.command()
def show(collection: options.Collection, database: options.Database = None, json: options.Json = False) -> None:
    """Show a collection: model, entries, dimension, coverage, sizes, age, dead letters, what is queued for it."""
    from embedq.inspecting import collection_figures
    from embedq.tables import print_fields

    figures = collection_figures(collection, database)
    if json:
        print(json_module.dumps(figures.as_object()))
    else:
        print_fields(figures.as_words())


@app.command()
def index(collection: options.Collection, database: options.Database = None, json: options.Json = False) -> None:
    """Build the index for 'embedq similar --ann', or add to it what it lacks, and wait for it.

    What has been built when it is stopped is thrown away.
    """
    from embedq.search.indexing import run_index

    run_index(collection, database, as_json=json)


app.command("export")(transfer.export_collection)
app.command("import")(transfer.import_collection)
app.command("rename")(transfer.rename_collection)
app.command("copy")(transfer.copy_collection)


@app.command()
def audit(
    collection: options.Collection,
    sample: Annotated[
        int, typer.Option("--sample", metavar="N", min=0, help="Embed N random entries anew and compare; 0: none.")
    ] = 50,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="The same N takes the same sample.", show_default="another each time"),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Queue what is wrong, to be embedded anew from the stored content.")
    ] = False,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Check a collection: hashes, vectors, the model's configuration, and whether the model still answers the same.

    Every entry is looked at. The sample is embedded anew, which costs as much as embedding it did: what has changed
    behind a model's name shows in the similarity of the new vectors with the stored ones. Exits with 1 where
    something is wrong. A repair may be stopped at any moment and begun again.
    """
    from embedq.audit.auditing import AuditRequest, run_audit

    run_audit(AuditRequest(collection, sample, seed, repair, json, database))


@app.command()
def delete(
    collection: options.Collection,
    yes: options.Yes = False,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Delete a collection and all its entries. Asks first."""
    from embedq.asking import ask
    from embedq.inspecting import collection_count, delete_collection
    from embedq_core.text import plural, shown

    if not yes:
        count = collection_count(collection, database)
        ask(f"Delete {shown(collection)} and its {plural(count, 'entry', 'entries')}?")
    deleted = delete_collection(collection, database)
    if json:
        print(json_module.dumps({"collection": collection, "deleted": deleted}))
    else:
        print(f"deleted {shown(collection)}: {plural(deleted, 'entry', 'entries')}")


@app.command()
def rollback(
    collection: options.Collection,
    yes: options.Yes = False,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Go back to the vectors that a collection had before 'embedq reembed'. Asks first.

    What came since is queued for the old model. The new vectors are kept: the same 'embedq reembed' goes forward again,
    and pays for nothing that is there.
    """
    from embedq.reembed.undoing import run_rollback

    run_rollback(collection, database, confirmed=yes, as_json=json)


@app.command("drop-old")
def drop_old(
    collection: options.Collection,
    yes: options.Yes = False,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Drop the vectors that 'embedq reembed', or a rollback, has kept beside a collection. Asks first."""
    from embedq.reembed.undoing import run_drop_old
    from embedq_core.settings import load_settings

    run_drop_old(collection, load_settings(database=database), confirmed=yes, as_json=json)


@app.command()
def path(database: options.Database = None, json: options.Json = False) -> None:
    """Print the path of the database, which need not be there yet."""
    from embedq_core.settings import load_settings

    file = load_settings(database=database).database
    print(json_module.dumps({"database": str(file), "exists": file.exists()}) if json else file)
