"""The program without its start-up: a process that has imported everything forks one for each command.

Importing takes most of the time of a command that does little, and the tests run hundreds of them. What is forked is
as good a process as any: its own memory, directory, environment, standard streams and signals.
"""

import functools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import TypeAlias

import pytest

from support import privileges

_PRELOADED = "support.preloaded"


@functools.cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOADED])
    # The server looks for modules where an interpreter that starts does, not where this one does; what it does not
    # find it leaves out without a word.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    return context


def embedq() -> None:
    """The command line of embedq."""
    from embedq.__main__ import main

    main()


def embedq_without_privileges() -> None:
    """The same where the permissions of files hold, for root as well."""
    privileges.give_up()
    embedq()


def llm() -> None:
    """The command line of llm, which looks for plugins when it is imported: here, and not beforehand."""
    from llm.cli import cli

    cli()


Program: TypeAlias = Callable[[], None]
Stream: TypeAlias = Path | Connection


def start(
    program: Program,
    arguments: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    streams: tuple[Stream, Stream, Stream],
) -> ForkServerProcess:
    """Start `program ARGUMENTS`, its standard input, output and errors in the files or the pipes of `streams`."""
    return call(_run, program, list(arguments), directory, dict(environment), streams)


def _run(
    program: Program,
    arguments: list[str],
    directory: Path,
    environment: dict[str, str],
    streams: tuple[Stream, Stream, Stream],
) -> None:
    assert _PRELOADED in sys.modules
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    # An interpreter that starts reads these; so must one that has started long ago.
    time.tzset()
    sys.path[:0] = environment.get("PYTHONPATH", "").split(os.pathsep)
    for number, (stream, flags) in enumerate(
        zip(streams, (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT | os.O_APPEND] * 2), strict=True)
    ):
        opened = os.open(stream, flags, 0o600) if isinstance(stream, Path) else os.dup(stream.fileno())
        os.dup2(opened, number)
        os.close(opened)
        if not isinstance(stream, Path):
            stream.close()
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the standard stream, which ends with the process
    sys.argv = [program.__name__, *arguments]
    code = _ended(program)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _ended(program: Program) -> int:
    try:
        program()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # as the interpreter does
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def call(function: Callable[..., None], *arguments: object) -> ForkServerProcess:
    """Start `function(*arguments)`, of a module that a new process can import, in a process of its own."""
    process = _context().Process(target=function, args=arguments)
    process.start()
    return process
