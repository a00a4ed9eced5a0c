"""`status --watch`: the status again and again, redrawn in place on a terminal, a line each time elsewhere.

Ctrl-C and SIGTERM are the ordinary way to end it.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGSTOP, SIGTERM, SIGTSTP, SIGWINCH
from typing import Final, Protocol

from embedq.status.reporting import Status, StatusReader, status_object
from embedq.status.screen import screen
from embedq.status.sections import summary_line
from embedq_core.cancelling import cancel
from embedq_core.errors import EmbedqError
from embedq_core.settings import Settings, load_settings
from embedq_core.text import shown

# The other screen, so that what stood on this one comes back; no cursor; lines that are too long are not broken.
_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"

# How long an answer may take before that is said.
QUIET_SECONDS: Final = 1.0

_NO_SIZE: Final = (80, 24)


class View(Protocol):
    """Where a status is shown."""

    def show(self, status: Status | None, problem: str) -> None:
        """Show the latest status, and what keeps a newer one from being read, if anything does."""

    def resized(self) -> None:
        """The terminal has another size."""

    def suspend(self) -> None:
        """Stop the process, as Ctrl-Z asks, until it is to go on."""


def watch_status(database: Path | None, *, interval: float, as_json: bool) -> None:
    """Show the status every `interval` seconds until Ctrl-C."""
    asyncio.run(_watch(load_settings(database=database), interval, as_json=as_json))


async def _watch(settings: Settings, interval: float, *, as_json: bool) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for signal in (SIGINT, SIGTERM, SIGHUP):
        loop.add_signal_handler(signal, stop.set)
    with _view(interval, as_json=as_json) as view:
        loop.add_signal_handler(SIGWINCH, view.resized)
        loop.add_signal_handler(SIGTSTP, view.suspend)
        reader = StatusReader(settings)
        try:
            await _show_until(stop, reader, view, interval)
        finally:
            with contextlib.suppress(EmbedqError):
                await reader.close()


async def _show_until(stop: asyncio.Event, reader: StatusReader, view: View, interval: float) -> None:
    """Read and show, until `stop` is set. What can't be read now is read the next time."""
    status: Status | None = None
    stopped = asyncio.create_task(stop.wait())
    while not stop.is_set():
        began, problem = time.monotonic(), ""
        reading = asyncio.create_task(reader.read())
        # A Redis that hangs answers nothing for a while: the screen says so meanwhile.
        patience = max(interval, QUIET_SECONDS)
        while not (await asyncio.wait([reading, stopped], timeout=patience, return_when=asyncio.FIRST_COMPLETED))[0]:
            view.show(status, f"no answer for {time.monotonic() - began:.0f} s: waiting")
        if stop.is_set():
            await cancel([reading])
            break
        try:
            status = await reading
        except EmbedqError as error:
            problem = str(error)
        view.show(status, problem)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), max(interval - (time.monotonic() - began), 0.0))
    stopped.cancel()


@contextlib.contextmanager
def _view(interval: float, *, as_json: bool) -> Iterator[View]:
    if as_json:
        yield _JsonLines()
    elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        print(end=_ENTER, flush=True)
        try:
            yield _Terminal(interval)
        finally:
            print(end=_LEAVE, flush=True)
    else:
        yield _Lines()


class _Terminal:
    """One screen, drawn over the last one."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._status: Status | None = None
        self._problem = ""

    def show(self, status: Status | None, problem: str) -> None:
        self._status, self._problem = status, problem
        self._draw()

    def resized(self) -> None:
        # A terminal that gets narrower breaks the lines that stand there: nothing of them is left.
        self._draw(clear=True)

    def suspend(self) -> None:
        # The shell is given back its screen and its cursor.
        print(end=_LEAVE, flush=True)
        os.kill(os.getpid(), SIGSTOP)
        print(end=_ENTER, flush=True)
        self._draw()

    def _draw(self, *, clear: bool = False) -> None:
        # Not shutil's, which believes COLUMNS and LINES, whatever has become of the window since.
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
        if not (columns and rows):
            columns, rows = _NO_SIZE
        lines = screen(self._status, columns, rows, now=time.time(), every=self._interval, problem=self._problem)
        body = "\r\n".join(f"{line}{_END_OF_LINE}" for line in lines)
        print(end=f"{_HOME}{_BELOW if clear else ''}{body}{_BELOW}", flush=True)


class _Plain:
    """What is no terminal."""

    def resized(self) -> None:
        """There is no size."""

    def suspend(self) -> None:
        os.kill(os.getpid(), SIGSTOP)


class _Lines(_Plain):
    """A line each time, as a log has it."""

    def show(self, status: Status | None, problem: str) -> None:
        text = problem or ("" if status is None else summary_line(status))
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {shown(text)}", flush=True)


class _JsonLines(_Plain):
    """An object of JSON a line; one with `problem` alone where there is nothing new to say."""

    def show(self, status: Status | None, problem: str) -> None:
        told = {"at": time.time(), "problem": problem} if problem or status is None else status_object(status)
        print(json.dumps(told), flush=True)
