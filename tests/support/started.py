"""A program that goes on while a test does other things, forked, and to be used as `subprocess.Popen` is."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TextIO

from support import forked


class Started:
    """`program ARGUMENTS`, which reads nothing, and whose output and errors are pipes."""

    def __init__(
        self, program: forked.Program, arguments: Sequence[str], directory: Path, environment: Mapping[str, str]
    ) -> None:
        self.stdout, out = _pipe()
        self.stderr, err = _pipe()
        with out, err:
            self._process = forked.start(program, arguments, directory, environment, (Path(os.devnull), out, err))
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """What it ended with, if it has ended."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Look whether it has ended."""
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        """Wait for its end."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return self.returncode

    def communicate(self, timeout: float = 20) -> tuple[str, str]:
        """What it has still to say until its end, and that it has ended by then."""
        with ThreadPoolExecutor(2) as readers, self.stdout, self.stderr:
            said = [readers.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            out, err = (each.result() for each in said)
            return out, err


def _pipe() -> tuple[TextIO, Connection]:
    """What is read from, and what can be handed to a process that is forked."""
    reading, writing = os.pipe()
    return os.fdopen(reading), Connection(writing, readable=False)
