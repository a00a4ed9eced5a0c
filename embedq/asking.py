"""Asking before what can't be undone, and waiting for what somebody types."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from embedq_core.errors import UsageError


def ask(question: str) -> None:
    """Return where somebody says yes. Raises typer.Abort where not, UsageError where nobody is there to answer.

    It is asked on standard error, all of it: what goes to standard output may be for a program.
    """
    with ended_by_ctrl_c():
        print(f"{question} [y/N]: ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
    if not (answer or sys.stdin.isatty()):
        print(file=sys.stderr)
        raise UsageError("nobody is there to answer: say --yes if that is meant")
    if answer.strip().lower() not in ("y", "yes"):
        raise typer.Abort


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """For a block that reads what somebody types: Ctrl-C raises KeyboardInterrupt there and then.

    Where a coroutine runs, asyncio would take note of it, and the reading would go on.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
