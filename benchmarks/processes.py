"""Real processes for the benchmarks: a Redis of their own, workers, and commands with what they cost."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any, cast

import psutil
import redis

from embedq_jobs.embedded import find_server

ROOT = Path(__file__).parents[1]
LONGEST_SECONDS = 900
START_SECONDS = 60


class Failed(Exception):  # noqa: N818 - it is what became of a measurement
    """A command of a benchmark ended as it should not: there is nothing to measure."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that has ended: wall seconds, seconds of processor time and most resident bytes, children included."""

    began: float
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    out: str


class Place:
    """A folder with a database, an empty environment, and the benchmarks' models as plugins of both programs."""

    def __init__(self, folder: Path, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.database = folder / "bench.db"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EMBEDQ_", "LLM_"))}
        path = os.pathsep.join(filter(None, [str(ROOT), str(_llm_site(folder)), kept.get("PYTHONPATH")]))
        self.environment = {
            **kept,
            "PYTHONPATH": path,
            "XDG_CONFIG_HOME": str(folder),
            "XDG_DATA_HOME": str(folder),
            "LLM_USER_PATH": str(folder / "llm"),
            "EMBEDQ_DATABASE": str(self.database),
            "EMBEDQ_PLUGINS": "benchmarks.models",
            "EMBEDQ_LOG_LEVEL": "warning",
            # An installed program was compiled when it was installed, and not each time it starts.
            "PYTHONDONTWRITEBYTECODE": "",
            **environment,
        }

    def run(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Ended:
        """Run a command to its end. Raises Failed where it ends badly, or takes longer than LONGEST_SECONDS."""
        words = [str(word) for word in command]
        out, error = self.folder / "stdout", self.folder / "stderr"
        with out.open("wb") as out_file, error.open("wb") as error_file:
            began = time.time()
            process = subprocess.Popen(
                words,
                env={**self.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=error_file,
            )
            watchdog = Timer(LONGEST_SECONDS, process.kill)
            watchdog.start()
            try:
                ended = _ended(process, began)
            finally:
                watchdog.cancel()
        if process.returncode != 0:
            raise Failed(f"{' '.join(words)} ended with {process.returncode}:\n{error.read_text()[-2000:]}")
        return Ended(*ended, out.read_text())

    def embedq(self, *arguments: str | Path) -> Ended:
        """Run `embedq` to its end."""
        return self.run([*embedq(), *arguments])

    def submit(self, collection: str, corpus: Path, model: str) -> tuple[Ended, dict[str, Any]]:
        """`embedq submit --wait`: the process, and what the ledger says of the run. All items must be stored."""
        ended = self.embedq("submit", collection, corpus, "-m", model, "--wait", "--json")
        summary = json.loads(ended.out)
        if summary["done"] != summary["items"] or summary["dead"] or not summary["finished"]:
            raise Failed(f"not all items were stored: {summary}")
        return ended, summary

    def size(self) -> int:
        """Bytes of the database's pages, those that are still in its write-ahead log only once."""
        with closing(sqlite3.connect(self.database)) as db:
            (size,) = db.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()
        return int(size)

    def clear(self) -> None:
        """Delete it all."""
        shutil.rmtree(self.folder, ignore_errors=True)


def embedq() -> list[str]:
    """The command line of embedq in this Python."""
    return [sys.executable, "-m", "embedq"]


def _llm_site(folder: Path) -> Path:
    """A folder that makes llm find `benchmarks.llm_models`, as if a distribution had been installed."""
    site = folder / "site"
    information = site / "embedq_benchmarks-0.dist-info"
    information.mkdir(parents=True, exist_ok=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: embedq-benchmarks\nVersion: 0\n")
    (information / "entry_points.txt").write_text("[llm]\nprepared = benchmarks.llm_models\n")
    return site


class Server:
    """A Redis of the benchmarks' own: on a Unix socket, with an append-only file, as the documentation advises."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        command = [find_server(), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(folder)]
        command += ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]
        self.process = subprocess.Popen([*command, "--logfile", str(folder / "redis.log")])
        self.client = redis.Redis(unix_socket_path=str(self.socket))
        _wait_for(self._answers)

    def _answers(self) -> bool:
        with suppress(redis.exceptions.ConnectionError):
            return bool(self.client.ping())
        return False

    def used_memory(self) -> int:
        """Bytes that Redis says it uses."""
        found: Any = self.client.info("memory")
        return int(found["used_memory"])

    def workers(self) -> int:
        """How many workers have reported."""
        return int(cast("int", self.client.hlen("embedq:workers")))

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def end(self) -> None:
        """End it; what it holds is of no more use."""
        self.client.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def server(place: Place) -> Iterator[Server]:
    """A Redis for `place`, which all commands that are run there use."""
    running = Server(place.folder)
    place.environment["EMBEDQ_REDIS_URL"] = running.url
    try:
        yield running
    finally:
        running.end()


class Workers:
    """`embedq worker` processes that run, their models loaded."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._processes = [psutil.Process(pid) for pid in pids]

    def resident_bytes(self) -> int:
        """Resident memory of them all and of their children, now."""
        return sum(int(process.memory_info().rss) for process in self._all())

    def cpu_seconds(self) -> float:
        """Processor time of them all so far."""
        times = [process.cpu_times() for process in self._all()]
        return float(sum(time.user + time.system for time in times))

    def _all(self) -> list[Any]:
        return [each for process in self._processes for each in (process, *process.children(recursive=True))]


@contextmanager
def workers(place: Place, redis: Server, model: str, count: int = 1) -> Iterator[Workers]:
    """`count` worker processes that have opened the queue of `model` and, one of them at least, called it."""
    log = (place.folder / "workers.log").open("wb")
    running = [
        subprocess.Popen([*embedq(), "worker"], env=place.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for _ in range(count)
    ]
    try:
        # Each reports when it has started; it opens the queue of the model soon after there is one.
        _wait_for(lambda: redis.workers() >= count)
        warm = place.folder / "warm.jsonl"
        warm.write_text("".join(f'{{"id": "{number}", "content": "warm {number}"}}\n' for number in range(count)))
        place.submit("warm", warm, model)
        yield Workers([process.pid for process in running])
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.close()


def _wait_for(condition: Any) -> None:  # noqa: ANN401 - any function without arguments
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise Failed("what had to start did not start in time")
        time.sleep(0.02)


def _ended(process: "subprocess.Popen[bytes]", began: float) -> tuple[float, float, float, int]:
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    # Linux counts in KiB, macOS in bytes.
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return began, time.time() - began, usage.ru_utime + usage.ru_stime, peak
