"""The real program, run as a user runs it."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

TESTS = Path(__file__).parent.parent


_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


def _without_privileges() -> None:
    """Take from root, who runs tests in containers, the power to ignore the permissions of files."""
    libc = ctypes.CDLL(None)
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


class CommandLine:
    """The real program, in a process of its own, in an empty directory, with the tests' models as a plugin."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = directory / "embeddings.db"
        self.calls_file = directory / "model-calls.txt"
        self.environment: dict[str, str] = {
            **os.environ,
            "EMBEDQ_DATABASE": str(self.database),
            "EMBEDQ_PLUGINS": str(TESTS / "support" / "plugin.py"),
            "EMBEDQ_TEST_CALLS": str(self.calls_file),
            "PYTHONPATH": str(TESTS),
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
        try:
            done = subprocess.run(
                self.command(*arguments),
                cwd=self.directory,
                env={**self.environment, **(environment or {})},
                input=input.encode() if isinstance(input, str) else (input or b""),
                capture_output=True,
                timeout=40,
                check=False,
                preexec_fn=_without_privileges if permissions_hold else None,
            )
        except subprocess.TimeoutExpired as hung:
            raise AssertionError(f"{arguments} did not end: {hung.stdout!r} {hung.stderr!r}") from hung
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        if exit_code is not None:
            assert result.exit_code == exit_code, f"{arguments}: {result}"
        return result

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line as a list."""
        return [sys.executable, "-m", "embedq", *map(str, arguments)]

    def start(self, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """Start a command and return its process; end it with `stop`."""
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


class Result:
    """What a command printed, and how it ended."""

    def __init__(self, exit_code: int, out: str, err: str) -> None:
        self.exit_code = exit_code
        self.out = out
        self.err = err

    def __repr__(self) -> str:
        return f"exit code {self.exit_code}\n--- stdout\n{self.out}--- stderr\n{self.err}"
