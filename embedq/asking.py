"""Asking before what can't be undone."""

import sys

import typer

from embedq_core.errors import UsageError


def ask(question: str) -> None:
    """Return where somebody says yes. Raises typer.Abort where not, UsageError where nobody is there to answer.

    It is asked on standard error, all of it: what goes to standard output may be for a program.
    """
    print(f"{question} [y/N]: ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not (answer or sys.stdin.isatty()):
        print(file=sys.stderr)
        raise UsageError("nobody is there to answer: say --yes if that is meant")
    if answer.strip().lower() not in ("y", "yes"):
        raise typer.Abort
