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
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest

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


def start(
    arguments: Sequence[str], directory: Path, environment: Mapping[str, str], streams: tuple[Path, Path, Path]
) -> ForkServerProcess:
    """Start `embedq ARGUMENTS`, its standard input, output and errors in the files of `streams`."""
    process = _context().Process(target=_run, args=(list(arguments), directory, dict(environment), streams))
    process.start()
    return process


def _run(arguments: list[str], directory: Path, environment: dict[str, str], streams: tuple[Path, Path, Path]) -> None:
    assert _PRELOADED in sys.modules
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    # An interpreter that starts reads these; so must one that has started long ago.
    time.tzset()
    sys.path[:0] = environment.get("PYTHONPATH", "").split(os.pathsep)
    for number, (path, flags) in enumerate(zip(streams, (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT] * 2), strict=True)):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the standard stream, which ends with the process
    sys.argv = ["embedq", *arguments]
    code = _main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _main() -> int:
    from embedq.__main__ import main

    try:
        main()
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
