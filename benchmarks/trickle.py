"""How long from submitting one item to having it stored, when one comes every ten milliseconds?

A line is written to the standard input of `embedq submit documents -`, or a chunk of one item put into the queue
from Python; a reader of the database looks every millisecond for what is new. A worker waits, its model loaded.
"""

import asyncio
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from benchmarks.bench import Bench
from benchmarks.corpora import line
from benchmarks.figures import Answer, Line, at_most
from benchmarks.processes import Failed, Place, embedq, server, workers
from embedq_core.items import Item
from embedq_core.settings import load_settings
from embedq_jobs import Chunk, Run, new_run_id, open_queue

TITLE = "Trickle: an item every 10 ms"
LIMIT_SECONDS = 120.0

_INTERVAL: Final = 0.010
_LOOK: Final = 0.001
_ITEMS: Final = {"quick": 20, "standard": 1000, "large": 3000}
_MODEL: Final = "prepared-array"

# The producer starts, and the first batches are short of company: a tenth, and of these at most a second.
_WARM_SHARE, _WARM_ITEMS = 10, 100


def measure(bench: Bench) -> Answer:
    """Both ways, one after the other."""
    items = _ITEMS[bench.scale]
    lines: list[Line] = []
    details: dict[str, object] = {}
    for name, feed in (("submit -, a line at a time", _feed_lines), ("a chunk at a time, from Python", _feed_chunks)):
        place = bench.place()
        with server(place) as redis, workers(place, redis, _MODEL), closing(_Watcher(place.database)) as watcher:
            sent = feed(place, items)
            watcher.wait_for(items)
            warm = min(items // _WARM_SHARE, _WARM_ITEMS)
            delays = [1000 * (watcher.seen[f"document-{n}"] - sent[n]) for n in range(warm, items)]
        place.clear()
        ordered = quantiles(delays, n=100)
        details[name] = {"items": items, "median": median(delays), "p95": ordered[94], "p99": ordered[98]}
        bench.say(f"{name}: median {median(delays):.0f} ms, 99 % within {ordered[98]:.0f} ms")
        note = f"95 % within {ordered[94]:.0f} ms, 99 % within {ordered[98]:.0f} ms"
        lines.append(Line(name, "ms", [median(delays)], target=at_most(150), note=note))
    return Answer(lines, details)


def _feed_lines(place: Place, items: int) -> list[float]:
    """When each line was written, seconds since the epoch."""
    command = [*embedq(), "submit", "documents", "-", "--format", "nl", "-m", _MODEL]
    process = subprocess.Popen(
        command, env=place.environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None  # noqa: S101 - for type checkers
    pipe = process.stdin.fileno()
    sent = _at_intervals(items, lambda number: os.write(pipe, line(number).encode()))
    process.stdin.close()
    if process.wait(60) != 0:
        raise Failed(f"embedq submit ended with {process.returncode}")
    return sent


def _at_intervals(items: int, send: Callable[[int], object]) -> list[float]:
    sent = []
    began = time.time()
    for number in range(items):
        time.sleep(max(0.0, began + number * _INTERVAL - time.time()))
        sent.append(time.time())
        send(number)
    return sent


def _feed_chunks(place: Place, items: int) -> list[float]:
    """When each chunk began to be put, seconds since the epoch."""
    settings = load_settings(database=place.database, redis_url=place.environment["EMBEDQ_REDIS_URL"])

    async def feed() -> list[float]:
        run = Run(new_run_id(), "documents", _MODEL, "benchmark", time.time())
        sent = []
        async with open_queue(settings) as queue:
            await queue.runs.open(run)
            began = time.time()
            for number in range(items):
                await asyncio.sleep(max(0.0, began + number * _INTERVAL - time.time()))
                sent.append(time.time())
                item = Item(f"document-{number}", f"the content of document {number}")
                await queue.put(Chunk(run.id, number, "documents", _MODEL, True, [], [item]))
            await queue.runs.close(run.id, items, skipped=0, duplicates=0)
        return sent

    return asyncio.run(feed())


class _Watcher:
    """A thread that looks into the database, and notes when each id was first seen."""

    def __init__(self, database: Path) -> None:
        self.seen: dict[str, float] = {}
        self._database = database
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        with closing(sqlite3.connect(self._database)) as db:
            last, version = 0, -1
            while not self._stop.wait(_LOOK):
                (found,) = db.execute("PRAGMA data_version").fetchone()
                if found == version:
                    continue
                version = found
                rows = db.execute("SELECT rowid, id FROM embeddings WHERE rowid > ?", (last,)).fetchall()
                now = time.time()
                for rowid, id_ in rows:
                    last = max(last, rowid)
                    self.seen.setdefault(id_, now)

    def wait_for(self, items: int) -> None:
        """Until so many documents were seen."""
        deadline = time.monotonic() + 60
        while sum(id_.startswith("document-") for id_ in list(self.seen)) < items:
            if time.monotonic() > deadline:
                raise Failed(f"only {len(self.seen)} of {items} items were stored")
            time.sleep(0.01)

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()
