"""`embedq collections`: what the database holds."""

import json as json_module

import typer

from embedq.commands.groups import ListByDefault
from embedq_core import options

app = typer.Typer(help="List, show, index and delete collections. Without a command: list.", cls=ListByDefault)


@app.command("list")
def list_collections(database: options.Database = None, json: options.Json = False) -> None:
    """List the collections of the database: name, model, entries."""
    from embedq.inspecting import collection_list
    from embedq.tables import print_table

    rows = collection_list(database)
    if json:
        print(json_module.dumps([{"name": name, "model": model, "entries": count} for name, model, count in rows]))
    elif rows:
        print_table(["collection", "model", "entries"], [[n, m, f"{c:,}"] for n, m, c in rows], right={2})
    else:
        print("no collections yet: 'embedq ingest COLLECTION FILE' makes one")


@app.command()
def show(collection: options.Collection, database: options.Database = None, json: options.Json = False) -> None:
    """Show a collection: entries, dimension, sizes, age, dead letters."""
    from embedq.inspecting import collection_figures
    from embedq.tables import print_fields

    figures = collection_figures(collection, database)
    if json:
        print(json_module.dumps(figures.as_object()))
    else:
        print_fields(figures.as_words())


@app.command()
def index(collection: options.Collection, database: options.Database = None) -> None:
    """Build the index for 'embedq similar --ann', or add to it what it lacks, and wait for it.

    What has been built when it is stopped is thrown away.
    """
    from embedq.indexing import run_index

    run_index(collection, database)


@app.command()
def delete(collection: options.Collection, yes: options.Yes = False, database: options.Database = None) -> None:
    """Delete a collection and all its entries. Asks first."""
    from embedq.inspecting import collection_count, delete_collection
    from embedq_core.text import plural, shown

    count = collection_count(collection, database)
    if not yes:
        typer.confirm(f"Delete {shown(collection)} and its {plural(count, 'entry', 'entries')}?", abort=True)
    delete_collection(collection, database)
    print(f"deleted {shown(collection)}: {plural(count, 'entry', 'entries')}")


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
    from embedq.reembedding_undone import run_rollback

    run_rollback(collection, database, confirmed=yes, as_json=json)


@app.command("drop-old")
def drop_old(
    collection: options.Collection,
    yes: options.Yes = False,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Drop the vectors that 'embedq reembed', or a rollback, has kept beside a collection. Asks first."""
    from embedq.reembedding_undone import run_drop_old
    from embedq_core.settings import load_settings

    run_drop_old(collection, load_settings(database=database), confirmed=yes, as_json=json)


@app.command()
def path(database: options.Database = None) -> None:
    """Print the path of the database."""
    from embedq_core.settings import load_settings

    print(load_settings(database=database).database)
