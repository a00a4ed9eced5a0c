"""`embedq dead`: items that could not be embedded."""

import json as json_module
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from embedq.commands.groups import ListByDefault
from embedq_core import options
from embedq_core.priority import Priority

app = typer.Typer(
    help="List the items that could not be embedded, show, requeue and purge them. Without a command: list.",
    cls=ListByDefault,
)

Ids: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="Only those of items with these ids.", show_default=False)
]
Keys: TypeAlias = Annotated[
    list[int] | None,
    typer.Option("--key", metavar="KEY", help="Only the one with this key, as listed. May be repeated."),
]
Of: TypeAlias = Annotated[
    str | None, typer.Option("--collection", metavar="NAME", help="Only those of this collection.")
]
Run: TypeAlias = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only those of this run.")]
Error: TypeAlias = Annotated[
    str | None, typer.Option("--error", metavar="CLASS", help="Only those with this error class.")
]
All: TypeAlias = Annotated[bool, typer.Option("--all", help="All dead letters.")]


@app.command("list")
def list_dead(
    ids: Ids = None,
    key: Keys = None,
    collection: Of = None,
    run: Run = None,
    error: Error = None,
    number: Annotated[int, typer.Option("-n", "--number", metavar="N", min=1, help="How many, the newest first.")] = 20,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """List dead letters: which item, of which collection and run, and why."""
    from embedq.dead.letters import dead_headings, print_letters_json, selected
    from embedq.inspecting import moment
    from embedq.tables import print_table

    selection = selected(ids, key, collection, run, error)
    if json:
        print_letters_json(selection, number, database)
        return
    headings = dead_headings(selection, number, database)
    if not headings:
        print("no dead letters")
        return
    print_table(
        ["key", "id", "collection", "error", "message", "died", "run"],
        [
            [str(each.key), each.id, each.collection, each.error, each.message, moment(each.died), each.run]
            for each in headings
        ],
        right={0},
    )


@app.command()
def show(
    ids: Ids = None,
    key: Keys = None,
    collection: Of = None,
    run: Run = None,
    error: Error = None,
    raw: Annotated[
        Path | None,
        typer.Option(
            "--raw", metavar="FILE", help="Write the content, byte for byte, to a file; - for standard output."
        ),
    ] = None,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Show dead letters whole: every field, content and metadata. Of several with one id, all."""
    from embedq.dead.letters import print_letters, print_letters_json, selected
    from embedq_core.errors import UsageError

    selection = selected(ids, key, collection, run, error)
    if selection.everything:
        raise UsageError("say which: an ID, --key, --collection, --run or --error")
    if json and raw is not None:
        raise UsageError("--json and --raw contradict each other")
    if json:
        print_letters_json(selection, None, database)
    else:
        print_letters(selection, database, raw)


@app.command()
def requeue(
    ids: Ids = None,
    key: Keys = None,
    collection: Of = None,
    run: Run = None,
    error: Error = None,
    everything: All = False,
    priority: options.Urgency = Priority.NORMAL,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Put dead letters back into the queue, as a new run, whose id is printed. Say which, or --all.

    There is a run for each collection and model. Content and metadata are those that came in, and the content is kept
    beside the vector. An item leaves the dead letters when it is stored; one that fails again stays, and its attempts
    add up.
    """
    from embedq.dead.letters import chosen, selected
    from embedq.dead.requeueing import run_requeue

    run_requeue(
        chosen(selected(ids, key, collection, run, error), everything=everything), database, priority, as_json=json
    )


@app.command()
def purge(
    ids: Ids = None,
    key: Keys = None,
    collection: Of = None,
    run: Run = None,
    error: Error = None,
    everything: All = False,
    yes: options.Yes = False,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Delete dead letters for good, with their contents. Say which, or --all. Asks first."""
    from embedq.asking import ask
    from embedq.dead.letters import chosen, groups_to_purge, none_matches, selected
    from embedq.dead.letters import purge as purge_letters
    from embedq_core.text import plural, shown

    selection = chosen(selected(ids, key, collection, run, error), everything=everything)
    groups = groups_to_purge(selection, database)
    if not groups:
        if selection.ids or selection.keys:
            raise none_matches(selection)
        print(json_module.dumps({"deleted": 0}) if json else "no dead letters")
        return
    letters = plural(sum(group.letters for group in groups), "dead letter")
    if not yes:
        of = ", ".join(dict.fromkeys(shown(group.collection) or "no collection" for group in groups))
        ask(f"Delete {letters} for good ({of})?")
    deleted = purge_letters(selection, groups, database)
    print(json_module.dumps({"deleted": deleted}) if json else f"deleted {plural(deleted, 'dead letter')}")
