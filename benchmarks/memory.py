"""Does memory stay flat while items stream through?

The resident memory of the worker, what Redis says that it uses, and the producer's resident memory are looked at
through one run. Compared are the medians of the last fifth and of the second fifth of the items: what the first fifth
adds is warming up. The slope is that of a straight line through all that was seen after the first fifth.
"""

import json
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from statistics import linear_regression, median
from typing import Final

import psutil

from benchmarks.bench import Bench
from benchmarks.corpora import write_corpus
from benchmarks.figures import Answer, Line, ratio_at_most
from benchmarks.processes import LONGEST_SECONDS, Failed, Place, Server, Workers, embedq, server, workers

TITLE = "Memory while items stream through"
LIMIT_SECONDS = 400.0

_ITEMS: Final = {"quick": 4000, "standard": 1_000_000, "large": 5_000_000}
_EVERY: Final = {"quick": 0.02, "standard": 0.25, "large": 1.0}
_MODEL: Final = "prepared-array"
_FLAT: Final = 1.10
_MB: Final = 1e6

Seen = tuple[int, dict[str, float]]


def measure(bench: Bench) -> Answer:
    """One run, looked at all the while."""
    items = _ITEMS[bench.scale]
    corpus = write_corpus(bench.folder / "corpus.jsonl", items)
    place = bench.place()
    with server(place) as redis, workers(place, redis, _MODEL) as working:
        at_rest = working.resident_bytes() / _MB
        command = [*embedq(), "submit", "documents", str(corpus), "-m", _MODEL, "--wait", "--json"]
        with (place.folder / "submitted").open("wb") as out:
            process = subprocess.Popen(
                command, env=place.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL
            )
            seen = _watch(bench, place, process, working, redis)
    run = json.loads((place.folder / "submitted").read_text())
    if process.returncode != 0 or run["done"] != items:
        raise Failed(f"embedq submit ended with {process.returncode}: {run}")
    details: dict[str, object] = {"items": items, "seconds": run["seconds"], "worker_at_rest_mb": at_rest}
    lines = []
    for name, shown, judged in (
        ("worker", "worker, resident", True),
        ("redis", "Redis, used_memory", True),
        ("producer", "producer, resident", False),
    ):
        early, late = fifth(seen, name, items, 1), fifth(seen, name, items, 4)
        peak = max(values[name] for _, values in seen)
        slope = slope_of(seen, name, items)
        details[name] = {"peak_mb": peak, "slope_mb_a_million": slope, "series": _thinned(seen, name)}
        note = f"peak {peak:.0f} MB, {slope:+.1f} MB a million items"
        target = ratio_at_most(_FLAT) if judged else None
        lines.append(Line(f"{shown}, last fifth", "MB", late, "its second fifth", early, target, note))
    return Answer(lines, details)


def fifth(seen: Sequence[Seen], name: str, items: int, which: int) -> list[float]:
    """The median of what was seen of `name` in a fifth of the items, 0 to 4; nothing where nothing was seen."""
    values = [values[name] for done, values in seen if which * items / 5 <= done <= (which + 1) * items / 5]
    return [median(values)] if values else []


def slope_of(seen: Sequence[Seen], name: str, items: int) -> float:
    """Megabytes a million items, after the first fifth; 0 where there is no line to draw."""
    after = [(done / 1e6, values[name]) for done, values in seen if done > items / 5]
    if len({done for done, _ in after}) < 2:
        return 0.0
    return linear_regression([done for done, _ in after], [value for _, value in after]).slope


def _watch(
    bench: Bench, place: Place, process: "subprocess.Popen[bytes]", working: Workers, redis: Server
) -> list[Seen]:
    """How many items were stored, and megabytes of each part, again and again until the producer ends."""
    seen: list[Seen] = []
    producer = psutil.Process(process.pid)
    began = said = time.monotonic()
    with closing(sqlite3.connect(place.database)) as db:
        while process.poll() is None:
            if time.monotonic() - began > LONGEST_SECONDS * 3:
                process.kill()
            (stored,) = db.execute("SELECT max(rowid) FROM embeddings").fetchone()
            with suppress(psutil.NoSuchProcess):
                values = {
                    "worker": working.resident_bytes() / _MB,
                    "redis": redis.used_memory() / _MB,
                    "producer": float(producer.memory_info().rss) / _MB,
                }
                seen.append((int(stored or 0), values))
            if time.monotonic() - said > 10:
                said = time.monotonic()
                bench.say(f"{stored:,} stored, worker {seen[-1][1]['worker']:.0f} MB")
            time.sleep(_EVERY[bench.scale])
    return seen


def _thinned(seen: Sequence[Seen], name: str) -> list[tuple[int, float]]:
    step = max(1, len(seen) // 50)
    return [(done, round(values[name], 1)) for done, values in seen[::step]]
