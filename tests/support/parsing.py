"""Command lines parsed as the program parses them, and not run."""

from collections.abc import Iterator, Sequence
from typing import Any

import typer.main

from embedq.app import app


def parsed(arguments: Sequence[str]) -> dict[str, object]:
    """The parameters of the command that `arguments`, without the name of the program, ask for.

    Raises what Typer raises for a command or an option that there isn't, or a value that won't do.
    """
    # Typer brings a click of its own, whose types it does not offer.
    command: Any = typer.main.get_command(app)
    context = command.make_context("embedq", list(arguments))
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        if not rest:
            break
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return dict(context.params)


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, by its words, such as ('runs', 'list')."""

    def within(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        if hasattr(command, "commands"):
            for name, each in command.commands.items():
                yield from within((*words, name), each)
        else:
            yield words, command

    return within((), typer.main.get_command(app))
