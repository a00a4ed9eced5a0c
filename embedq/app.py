"""The command line, composed of the commands of all rooms. Their code is imported when a command runs."""

import inspect
from typing import Annotated

import typer

from embedq.commands import (
    collections,
    control,
    dead,
    demo,
    doctor,
    embedding,
    ingest,
    models,
    reembed,
    runs,
    schedule,
    search,
    status,
)
from embedq_producer.cli import submit
from embedq_producer.corpus_options import CorpusCommand
from embedq_worker.cli import worker

app = typer.Typer(
    name="embedq",
    help="Turn a corpus into searchable vectors: nothing is lost, no text is paid for twice.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="First steps: 'embedq demo', then 'embedq ingest COLLECTION FILE' and 'embedq similar COLLECTION -c TEXT'.",
)

_INTO = "Into vectors"
_OUT = "Search"
_KEPT = "Collections and models"
_WATCH = "Watch and repair"
_STEER = "Steer"

app.command(cls=CorpusCommand, rich_help_panel=_INTO)(ingest.ingest)
app.command(cls=CorpusCommand, rich_help_panel=_INTO)(submit)
app.command(rich_help_panel=_INTO)(worker)
app.command(rich_help_panel=_INTO)(embedding.embed)
app.command(rich_help_panel=_INTO)(demo.demo)
app.command(rich_help_panel=_OUT)(search.similar)
app.add_typer(collections.app, name="collections", rich_help_panel=_KEPT)
app.command(rich_help_panel=_KEPT)(reembed.reembed)
app.add_typer(models.app, name="models", rich_help_panel=_KEPT)
app.command(rich_help_panel=_WATCH)(status.status)
app.add_typer(runs.app, name="runs", rich_help_panel=_WATCH)
app.add_typer(dead.app, name="dead", rich_help_panel=_WATCH)
app.command(rich_help_panel=_WATCH)(doctor.doctor)
app.add_typer(schedule.app, name="schedule", rich_help_panel=_STEER)
app.command(rich_help_panel=_STEER)(control.pause)
app.command(rich_help_panel=_STEER)(control.resume)
app.command(rich_help_panel=_STEER)(control.drain)


def _let_paragraphs_flow(group: typer.Typer) -> None:
    """Have the help of every command broken where the terminal ends, and not where its source is."""
    for command in group.registered_commands:
        text = inspect.getdoc(command.callback) or ""
        command.help = "\n\n".join(paragraph.replace("\n", " ") for paragraph in text.split("\n\n"))
    for each in group.registered_groups:
        if each.typer_instance is not None:
            _let_paragraphs_flow(each.typer_instance)


_let_paragraphs_flow(app)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(version("embedq"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of the program itself."""
