"""How do speed and size change as the collection grows?

The same database is filled up, from size to size, with new items, each time by a new `embedq submit` beside the same
worker; a plain loop fills one of its own by turns, and another one without the index of content hashes. What the plain
loop loses as well is SQLite's; what it doesn't lose without that index is the index's: its keys are hashes, so each
row goes to a page of its own somewhere in it. Rates are from the run's own start, and from the loop's first row, to
the last commit: the start of processes would hide everything at the smallest size.
"""

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.corpora import write_corpus
from benchmarks.figures import Answer, Line
from benchmarks.processes import Failed, Place, server, workers

TITLE = "Growth"
LIMIT_SECONDS = 600.0

_SIZES: Final = {
    "quick": (200, 400),
    "standard": (10_000, 100_000, 1_000_000),
    "large": (10_000, 100_000, 1_000_000, 5_000_000),
}
# The last of the rows up to each size are timed; the rest only has to get there.
_TIMED: Final = {"quick": 100, "standard": 200_000, "large": 200_000}
_MODEL: Final = "prepared-array"


def measure(bench: Bench) -> Answer:
    """Fill the databases by turns."""
    ours, plain, unindexed = bench.place(), bench.place(), bench.place()
    lines: list[Line] = []
    with server(ours) as redis, workers(ours, redis, _MODEL):
        for before, size in pairwise((0, *_SIZES[bench.scale])):
            timed = min(_TIMED[bench.scale], size - before)
            rates: dict[str, float] = {}
            for first, count in parts(before, size, timed):
                corpus = write_corpus(bench.folder / "corpus.jsonl", count, first)
                rates = {
                    "ours": _ours(ours, corpus, count),
                    "plain": _plain(plain, corpus, count),
                    "unindexed": _plain(unindexed, corpus, count, "--no-hash-index"),
                }
                bench.say(f"{first + count:,} rows: " + ", ".join(f"{key} {value:,.0f}" for key, value in rates.items()))
            bytes_ = [place.size() / size for place in (ours, plain)]
            shown = f"{size:,} rows"
            lines += [
                Line(f"rate at {shown}", "items/s", [rates["ours"]], "plain loop", [rates["plain"]]),
                Line(f"rate at {shown}", "items/s", [rates["ours"]], "plain, no hash index", [rates["unindexed"]]),
                Line(f"size at {shown}", "bytes/item", [bytes_[0]], "plain loop", [bytes_[1]]),
            ]
    for place in (ours, plain, unindexed):
        place.clear()
    return Answer(lines, {"falls": _falls(lines), "timed_rows": _TIMED[bench.scale]})


def parts(before: int, size: int, timed: int, most: int = 1_000_000) -> list[tuple[int, int]]:
    """First row and number of rows of what fills a database from `before` to `size`; the last one is timed."""
    found = []
    first = before
    while first < size - timed:
        count = min(most, size - timed - first)
        found.append((first, count))
        first += count
    return [*found, (first, timed)]


def _ours(place: Place, corpus: Path, count: int) -> float:
    _, run = place.submit("documents", corpus, _MODEL)
    if run["embedded"] != count:
        raise Failed(f"embedded {run['embedded']} of {count}")
    return count / (float(run["finished"]) - float(run["started"]))


def _plain(place: Place, corpus: Path, count: int, *options: str) -> float:
    ended = place.run([sys.executable, "-m", "benchmarks.plain_loop", place.database, corpus, *options])
    return count / float(ended.out)


def _falls(lines: Sequence[Line]) -> dict[str, float]:
    """Which share of the rate at the first size is left at the last one, of each contender."""
    rates = [line for line in lines if line.unit == "items/s"]
    with_index = [line for line in rates if line.peer == "plain loop"]
    without = [line for line in rates if line.peer != "plain loop"]
    return {
        "ours": with_index[-1].ours[0] / with_index[0].ours[0],
        "plain loop": with_index[-1].theirs[0] / with_index[0].theirs[0],
        "plain loop without the index of hashes": without[-1].theirs[0] / without[0].theirs[0],
    }
