"""`status --watch`: on a terminal, in a log, for programs, and while Redis is away."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from embedq.status.reporting import Status, StatusReader
from embedq.status.watching import _show_until
from embedq_core.counts import Counts
from embedq_core.settings import Settings, load_settings
from embedq_jobs import Queue, Run, open_queue
from support.chunks import chunk, items
from support.command_line import CommandLine
from support.servers import MortalRedis
from support.started import Started
from support.terminals import Terminal
from support.waiting import BOUND_SECONDS

RUN = "20261231-235959-x7kqb"
WATCH = ("status", "--watch", "--interval", "0.1")
WORKER = {"host": "machine", "pid": 4711, "models": ["recording"], "since": 0.0, "in_hand_bytes": 1024}


async def begin(queue: Queue) -> None:
    """A run of four chunks of 50 items, and a worker that says it is there."""
    await queue.runs.open(Run(RUN, "pets", "recording", "pets.csv", time.time(), batch_size=10))
    for number in range(4):
        await queue.put(chunk(items(50), number))
    await queue.runs.close(RUN, 4, skipped=0, duplicates=0)
    await beat(queue)


async def beat(queue: Queue) -> None:
    report = WORKER | {"seen": time.time() + 3600, "in_hand_bytes_limit": 4096}
    await queue.redis.hset(queue.names.workers, "machine:4711", json.dumps(report))  # type: ignore[misc]  # redis-py's


async def do(queue: Queue, number: int) -> None:
    counts = Counts(embedded=49, failed=1, calls=5, inputs=50)
    await queue.runs.record(RUN, number, "recording", counts)


def line_of(terminal: Terminal, word: str) -> str:
    return next((line for line in terminal.lines if line.startswith(word)), "")


async def test_a_terminal_shows_one_screen_that_is_redrawn_in_place(
    embedq: CommandLine, redis_url: str, queue: Queue
) -> None:
    environment = embedq.environment | {"EMBEDQ_REDIS_URL": redis_url}
    await begin(queue)
    with Terminal(embedq.command(*WATCH), embedq.directory, environment, columns=100, rows=30) as terminal:
        # What the terminal has got of a screen may be a part of it.
        terminal.until(lambda: line_of(terminal, "machine:4711") != "")
        assert not terminal.shows_cursor()
        first = terminal.lines
        assert first[0].startswith("embedq  ")
        assert "Ctrl-C ends" in first[0]
        assert line_of(terminal, "to do").split()[2:4] == ["200", "items,"]
        assert line_of(terminal, "machine:4711")
        assert line_of(terminal, RUN).split()[1:5] == ["queued", "pets", "0%", "-"]

        # It goes on in place: the same line, and nothing of the old one beside it.
        place = next(number for number, line in enumerate(first) if line.startswith(RUN))
        await do(queue, 0)
        terminal.until(lambda: "25%" in terminal.lines[place])
        assert [line for line in terminal.lines if line.startswith(RUN)] == [terminal.lines[place]]
        assert "  49 embedded, 1 …  " in terminal.lines[place]
        assert sum("Ctrl-C ends" in line for line in terminal.lines) == 1
        assert terminal.lines[0].startswith("embedq  ")

        # A smaller window: what matters most, and nothing that is wider than it.
        terminal.resize(60, 24)
        await do(queue, 1)
        terminal.until(lambda: "50%" in line_of(terminal, RUN))
        assert sum("Ctrl-C ends" in line for line in terminal.lines) == 1
        assert line_of(terminal, "run ").split()[:4] == ["run", "state", "collection", "done"]
        assert "…" in line_of(terminal, "run ")
        assert line_of(terminal, "to do").split()[2:4] == ["100", "items,"]

        terminal.resize(100, 30)
        terminal.until(lambda: "outcome" in line_of(terminal, "run "))
        terminal.press(b"\x03")
        assert terminal.end() == 0
        assert terminal.shows_cursor()
        assert b"Traceback" not in terminal.written
    # Never a line more than there is, which would make the terminal scroll; and the first screen comes back.
    assert terminal.written.endswith(b"\x1b[?7h\x1b[?25h\x1b[?1049l")


async def test_a_window_that_gets_another_size_is_redrawn_at_once(
    embedq: CommandLine, redis_url: str, queue: Queue
) -> None:
    environment = embedq.environment | {"EMBEDQ_REDIS_URL": redis_url}
    await begin(queue)
    rarely = embedq.command("status", "--watch", "--interval", "3600")
    with Terminal(rarely, embedq.directory, environment, columns=100, rows=30) as terminal:
        terminal.until(lambda: RUN in terminal.text)
        terminal.resize(60, 10)
        terminal.until(lambda: "no room for: " in terminal.text)
        terminal.resize(120, 40)
        terminal.until(lambda: "started" in line_of(terminal, "run "))

        # Ctrl-Z: the shell gets its screen and its cursor, until it is to go on.
        terminal.press(b"\x1a")
        terminal.until(terminal.shows_cursor)
        stopped = await asyncio.to_thread(os.waitid, os.P_PID, terminal.process.pid, os.WSTOPPED)
        assert stopped is not None
        assert stopped.si_status == signal.SIGSTOP
        terminal.process.send_signal(signal.SIGCONT)
        terminal.until(lambda: not terminal.shows_cursor() and RUN in terminal.text)

        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 0
        assert terminal.shows_cursor()


async def test_a_log_gets_a_line_each_time_and_programs_an_object(
    embedq: CommandLine, redis_url: str, queue: Queue
) -> None:
    await begin(queue)
    processes = [
        embedq.start(*WATCH, *options, environment={"EMBEDQ_REDIS_URL": redis_url}) for options in ((), ("--json",))
    ]
    log, objects = [_some_lines_of(process) for process in processes]
    assert all("  200 items to do (" in line and "1 worker, 1 run going on, 0 dead letters" in line for line in log)
    assert [(told["items"], told["runs"][0]["run"]) for told in map(json.loads, objects)] == [(200, RUN)] * len(objects)


def _some_lines_of(process: Started) -> list[str]:
    """What it prints until it is told to stop, three lines at least; that it ends well."""
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=BOUND_SECONDS)
    assert (process.returncode, errors) == (0, "")
    assert "\x1b" not in "".join(lines) + rest
    return [*lines, *rest.splitlines()]


class Recorder:
    """A view that keeps what it is shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[Status | None, str]] = []

    def show(self, status: Status | None, problem: str) -> None:
        self.shown.append((status, problem))

    def resized(self) -> None:
        raise AssertionError

    def suspend(self) -> None:
        raise AssertionError


@pytest.fixture
def mortal(tmp_path: Path) -> MortalRedis:
    folder = tmp_path / "r"
    folder.mkdir()
    return MortalRedis(folder)


async def test_while_redis_is_away_that_is_said_and_what_was_read_before_stays(
    mortal: MortalRedis, tmp_path: Path
) -> None:
    settings: Settings = load_settings(database=tmp_path / "x.db", redis_url=mortal.url)
    async with open_queue(settings) as queue:
        await begin(queue)
    mortal.kill()
    view, stop, reader = Recorder(), asyncio.Event(), StatusReader(settings)

    async def until(condition: Callable[[Status | None, str], bool]) -> None:
        async with asyncio.timeout(BOUND_SECONDS):
            while not (view.shown and condition(*view.shown[-1])):  # noqa: ASYNC110 - another task shows it
                await asyncio.sleep(0.01)

    watching = asyncio.create_task(_show_until(stop, reader, view, 0.02))
    try:
        await until(lambda status, problem: status is None and "redis.sock" in problem)
        await asyncio.to_thread(mortal.start)
        await until(lambda status, problem: status is not None and not problem)
        mortal.kill()
        await until(lambda status, problem: status is not None and "redis.sock" in problem)
        await asyncio.to_thread(mortal.start)
        await until(lambda status, problem: status is not None and status.items == 200 and not problem)
    finally:
        stop.set()
        await watching
        await reader.close()
        mortal.kill()


def test_an_interval_is_for_watching(embedq: CommandLine) -> None:
    assert "--interval is for --watch" in embedq("status", "--interval", "1", exit_code=2).err
    for wrong in ("0", "nan", "inf", "-1"):
        result = embedq("status", "--watch", "--interval", wrong, exit_code=2)
        assert result.err == "embedq: --interval takes 0.1 to 86,400 seconds\n"
