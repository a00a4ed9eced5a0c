"""The real program, run as a user runs it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support import forked
from support.started import Started
from support.waiting import BOUND_SECONDS

TESTS = Path(__file__).parent.parent


def python_path() -> str:
    """Where programs of the tests look for modules: here, and where this process was told to look."""
    return os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))


class CommandLine:
    """The real program, in a process of its own, in an empty directory, with the tests' models as a plugin."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = directory / "embeddings.db"
        self.calls_file = directory.with_name("model-calls.txt")
        self._streams = directory.with_name("streams")
        self._streams.mkdir()
        self._count = 0
        self.environment: dict[str, str] = {
            **os.environ,
            "EMBEDQ_DATABASE": str(self.database),
            "EMBEDQ_PLUGINS": str(TESTS / "support" / "plugin.py"),
            "EMBEDQ_TEST_CALLS": str(self.calls_file),
            "PYTHONPATH": python_path(),
            "COLUMNS": "80",
        }

    def __call__(
        self,
        *arguments: str | Path,
        input: str | bytes | None = None,  # noqa: A002 - as in subprocess
        exit_code: int | None = 0,
        environment: Mapping[str, str] | None = None,
        permissions_hold: bool = False,
    ) -> "Result":
        """Run a command to its end; `exit_code` None means any. With `permissions_hold`, for root as well."""
        program = forked.embedq_without_privileges if permissions_hold else forked.embedq
        result = self.run(program, *arguments, given=input, environment=environment)
        if exit_code is not None:
            assert result.exit_code == exit_code, f"{arguments}: {result}"
        return result

    def run(
        self,
        program: forked.Program,
        *arguments: str | Path,
        given: str | bytes | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> "Result":
        """Run a program to its end, in this one's directory and environment."""
        self._count += 1
        given_file, out_file, err_file = (self._streams / f"{self._count}-{name}" for name in ("in", "out", "err"))
        given_file.write_bytes(_bytes(given))
        process = forked.start(
            program,
            list(map(str, arguments)),
            self.directory,
            {**self.environment, **(environment or {})},
            (given_file, out_file, err_file),
        )
        process.join(BOUND_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
        out, err = (path.read_text() if path.exists() else "" for path in (out_file, err_file))
        exit_code = process.exitcode
        process.close()
        assert exit_code is not None
        assert exit_code != -signal.SIGKILL, f"{arguments} did not end: {out} {err}"
        return Result(exit_code, out, err)

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line as a list."""
        return [sys.executable, "-m", "embedq", *map(str, arguments)]

    def start(self, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> Started:
        """Start a command and return its process, which is to be ended and communicated with."""
        given = {**self.environment, **(environment or {})}
        return Started(forked.embedq, list(map(str, arguments)), self.directory, given)

    def start_apart(
        self, *arguments: str | Path, environment: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[str]":
        """The same in an interpreter of its own, whose command line the system knows."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.directory,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def batch_sizes(self) -> list[int]:
        """Sizes of the batches that recording models were given, in all processes."""
        return [int(line) for line in self.calls_file.read_text().split()] if self.calls_file.exists() else []


def _bytes(given: str | bytes | None) -> bytes:
    return given.encode() if isinstance(given, str) else given or b""


class Result:
    """What a command printed, and how it ended."""

    def __init__(self, exit_code: int, out: str, err: str) -> None:
        self.exit_code = exit_code
        self.out = out
        self.err = err

    def __repr__(self) -> str:
        return f"exit code {self.exit_code}\n--- stdout\n{self.out}--- stderr\n{self.err}"
