"""Running a schedule's command: a process of its own, one at a time for each schedule, whose end is written down.

Which attempt is going is told by a lock on a file, which the command inherits: the system releases it when both the
process that began the command and the command itself have ended, however they ended.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Self

from embedq_jobs import RUN_NOTE, noted_runs, queue_directory
from embedq_store import Schedule, Store
from embedq_store.schedules import State

WATCH_SECONDS: Final = 0.1
# A command that was told to stop commits and hands back what it has in hand.
GOODBYE_SECONDS: Final = 10.0
# Of what a command prints, the end is kept; its file is emptied when it has grown so large.
TAIL_BYTES: Final = 8 * 1024
FILE_BYTES: Final = 1024 * 1024
_INTERRUPTED: Final = frozenset({130, -signal.SIGTERM, -signal.SIGINT})

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Ending:
    """What became of a command: see `embedq_store.Attempt`."""

    state: State
    exit_code: int | None
    runs: tuple[str, ...]
    message: str
    output: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """When a command is to be stopped: `grace_seconds` after `stop` is set, so that it may end by itself before."""

    stop: asyncio.Event
    grace_seconds: float = 0.0


class Place:
    """Where the command of a schedule runs: its lock, the end of its output, the runs that it made.

    The files lie beside the database, in the folder that is for its user alone.
    """

    def __init__(self, database: Path, schedule: int) -> None:
        self._folder = queue_directory(database) / "schedules"
        self._name = str(schedule)
        self._lock: IO[bytes] | None = None

    def take(self) -> bool:
        """Take the lock. False if a command of this schedule has it, or whoever begins one. Raises OSError."""
        for folder in (self._folder.parent, self._folder):
            folder.mkdir(mode=0o700, exist_ok=True)
        lock = self._file("lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        self._lock = lock
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Release what was taken; a command that is still running keeps it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def lock(self) -> int:
        """The descriptor that a command inherits."""
        assert self._lock is not None, "take it first"  # noqa: S101 - a slip of ours
        return self._lock.fileno()

    @property
    def notes(self) -> Path:
        """The file in which the command notes the runs that it makes."""
        return self._file("runs")

    @property
    def output(self) -> Path:
        """The file to which the command prints."""
        return self._file("output")

    def runs(self) -> tuple[str, ...]:
        """The runs that the last command made."""
        return noted_runs(self.notes)

    def clear(self) -> None:
        """Forget the last command, before the next. Raises OSError."""
        for file in (self.notes, self.output):
            file.write_bytes(b"")
            file.chmod(0o600)

    def remove(self) -> None:
        """Remove the files of a schedule that was removed, unless its command is going: then they stay."""
        with contextlib.suppress(OSError), self:
            if self.take():
                for kind in ("runs", "output", "lock"):
                    self._file(kind).unlink(missing_ok=True)

    def _file(self, kind: str) -> Path:
        return self._folder / f"{self._name}.{kind}"


class _Output:
    """Follows what a command prints, and keeps the end."""

    def __init__(self, file: Path, echo: Callable[[bytes], None] | None) -> None:
        self._file = file
        self._echo = echo
        self._read = 0
        self._tail = b""

    def follow(self) -> None:
        """Take note of what is new."""
        with self._file.open("rb") as printed:
            printed.seek(self._read)
            while new := printed.read(FILE_BYTES):
                self._read += len(new)
                self._tail = (self._tail + new)[-TAIL_BYTES:]
                if self._echo is not None:
                    self._echo(new)
        if self._read > FILE_BYTES:
            # The command appends, so it goes on at the beginning.
            os.truncate(self._file, 0)
            self._read = 0

    def text(self) -> str:
        """The end of it; a line that was cut is left out."""
        return tail_text(self._tail)


def tail_text(printed: bytes) -> str:
    """The last TAIL_BYTES of what a command has printed, beginning with a whole line where there is one."""
    tail = printed[-TAIL_BYTES:]
    if len(tail) == TAIL_BYTES:
        tail = tail.partition(b"\n")[2] or tail
    return tail.decode(errors="replace")


async def settle_lost(store: Store, database: Path, schedule: Schedule, now: float) -> bool:
    """Where the last attempt at `schedule` goes on by the store, but nobody is at it, note that it was lost."""
    last = schedule.last
    if last is None or last.state != "running":
        return False
    with Place(database, schedule.key) as place:
        if not place.take():
            return False
        output = tail_text(place.output.read_bytes()) if place.output.exists() else ""
        message = f"its worker {last.runner} died, or the machine did"
        return await store.schedules.end(last.key, "lost", now, runs=place.runs(), message=message, output=output)


async def attempt(
    store: Store,
    database: Path,
    schedule: Schedule,
    number: int,
    place: Place,
    *,
    stopping: Stopping,
    clock: Clock,
    echo: Callable[[bytes], None] | None = None,
) -> Ending:
    """Run the command of `schedule`, as attempt `number`, to its end, and note what became of it. Raises StoreError.

    `place` must be taken. What the command prints goes to `echo` as it comes.
    """
    try:
        ending = await _run(database, schedule, place, stopping, echo)
    except OSError as error:
        why = f"{error.filename or schedule.directory}: {error.strerror}"
        ending = Ending("failed", None, (), why, "")
    await store.schedules.end(
        number,
        ending.state,
        clock(),
        exit_code=ending.exit_code,
        runs=ending.runs,
        message=ending.message,
        output=ending.output,
    )
    return ending


async def _run(
    database: Path, schedule: Schedule, place: Place, stopping: Stopping, echo: Callable[[bytes], None] | None
) -> Ending:
    place.clear()
    with place.output.open("ab") as printed:
        process = await asyncio.create_subprocess_exec(
            # -P: what lies in the directory that the command works in is not code of ours.
            *(sys.executable, "-P", "-m", "embedq", *schedule.arguments),
            cwd=schedule.directory,
            env=environment(database, place.notes),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
            # A process group of its own: Ctrl-C reaches it from us, when its time has come.
            start_new_session=True,
            pass_fds=(place.lock,),
        )
    output = _Output(place.output, echo)
    try:
        told = await _watch(process, output, stopping)
    finally:
        # Only where the watching was cancelled.
        if process.returncode is None:
            _signal(process, signal.SIGKILL)
            await process.wait()
    code = process.returncode
    output.follow()
    interrupted = code != 0 and (told or (stopping.stop.is_set() and code in _INTERRUPTED))
    state: State = "done" if code == 0 else "interrupted" if interrupted else "failed"
    return Ending(state, code, place.runs(), "", output.text())


async def _watch(process: asyncio.subprocess.Process, output: _Output, stopping: Stopping) -> bool:
    """Follow a command until it has ended, told to when its time has come. Whether it was told to."""
    ended = asyncio.create_task(process.wait())
    told_at: float | None = None
    stopped_at: float | None = None
    try:
        while not ended.done():
            await asyncio.wait([ended], timeout=WATCH_SECONDS)
            output.follow()
            if ended.done() or not stopping.stop.is_set():
                continue
            now = time.monotonic()
            stopped_at = now if stopped_at is None else stopped_at
            if told_at is None and now - stopped_at >= stopping.grace_seconds:
                told_at = now
                _signal(process, signal.SIGTERM)
            elif told_at is not None and now - told_at >= GOODBYE_SECONDS:
                _signal(process, signal.SIGKILL)
    finally:
        ended.cancel()
    return told_at is not None


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def environment(database: Path, notes: Path) -> dict[str, str]:
    """The environment of a command: this one, with the database of this process and the file for its runs.

    Files that are named relative to this directory are named in full, since the command runs in another.
    """
    found = {**os.environ, "EMBEDQ_DATABASE": str(database), RUN_NOTE: str(notes)}
    if found.get("EMBEDQ_SETTINGS"):
        found["EMBEDQ_SETTINGS"] = str(Path(found["EMBEDQ_SETTINGS"]).absolute())
    if found.get("EMBEDQ_PLUGINS"):
        names = found["EMBEDQ_PLUGINS"].split(os.pathsep)
        found["EMBEDQ_PLUGINS"] = os.pathsep.join(
            str(Path(name).expanduser().absolute()) if name.endswith(".py") or os.sep in name else name
            for name in names
        )
    return found


def command_line(arguments: Sequence[str]) -> str:
    """The command as one would type it, for people to read."""
    from shlex import join

    return f"embedq {join(arguments)}"
