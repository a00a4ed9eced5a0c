"""A program in a terminal of its own, whose screen can be read."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import pyte

from support.waiting import BOUND_SECONDS

# The terminal sends its signals, for Ctrl-C and when it has another size, to the session that has it as its own.
_ADOPT = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A pseudo-terminal of `columns` by `rows`, in which `command` runs."""

    def __init__(
        self, command: Sequence[str], directory: Path, environment: Mapping[str, str], *, columns: int, rows: int
    ) -> None:
        self._master, slave = pty.openpty()
        self._display = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._display)
        self.written = b""
        """All that the program has written."""
        self._set_size(columns, rows)
        self.process = subprocess.Popen(
            [sys.executable, "-ISc", _ADOPT, *command],
            cwd=directory,
            env={name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
            | {"TERM": "xterm-256color"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self._master)

    @property
    def lines(self) -> list[str]:
        """What stands on the screen, without the spaces at the ends."""
        self._read()
        return [line.rstrip() for line in self._display.display]

    @property
    def text(self) -> str:
        """The screen as one text."""
        return "\n".join(self.lines)

    def shows_cursor(self) -> bool:
        """Whether there is a cursor."""
        self._read()
        return not self._display.cursor.hidden

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the screen is as it should be."""
        deadline = time.monotonic() + BOUND_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.text
            select.select([self._master], [], [], 0.05)

    def resize(self, columns: int, rows: int) -> None:
        """Make the window another size."""
        self._read()
        self._display.resize(rows, columns)
        self._set_size(columns, rows)

    def press(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._master, keys)

    def end(self) -> int:
        """The exit code, once the program has ended and all that it wrote was read."""
        deadline = time.monotonic() + BOUND_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.text
            self._read(0.05)
        self._read()
        return self.process.returncode

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self, timeout: float = 0.0) -> None:
        while select.select([self._master], [], [], timeout)[0]:
            try:
                some = os.read(self._master, 65536)
            except OSError:  # as Linux says that nobody is there any more
                return
            if not some:
                return
            self.written += some
            self._stream.feed(some)
