"""How do speed and size change as the collection grows?

A database is filled up, from size to size, with new items, each time by a new `embedq submit` beside the same worker;
a plain loop fills one of its own by turns. Afterwards another plain loop does so without the index of content hashes:
what the first plain loop loses with size is SQLite's; what the second doesn't lose is that index's, whose keys are
hashes, so that each row goes to a page of its own somewhere in it. Rates are from the run's own start, and from the
loop's first row, to the last commit: the start of processes would hide everything at the smallest size.
"""

import sys
from collections.abc import Callable, Mapping
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

_OURS, _PLAIN, _UNINDEXED = "embedq", "plain sqlite3 loop", "plain, no index of hashes"

_CONTENDERS = (_OURS, _PLAIN, _UNINDEXED)

Rates = dict[str, dict[int, float]]
Fill = Callable[[Path, int], float]


def measure(bench: Bench) -> Answer:
    """Fill the databases, two by turns and then the third: together they would take too much of the disk."""
    ours, plain, unindexed = bench.place(), bench.place(), bench.place()
    sizes: dict[str, dict[int, float]] = {_OURS: {}, _PLAIN: {}}

    def note_sizes(rows: int) -> None:
        sizes[_OURS][rows], sizes[_PLAIN][rows] = ours.size() / rows, plain.size() / rows

    with server(ours) as redis, workers(ours, redis, _MODEL):
        fills = {_OURS: lambda corpus, count: _submit(ours, corpus, count), _PLAIN: _plain(plain)}
        rates = _fill(bench, fills, note_sizes)
    ours.clear()
    plain.clear()
    rates |= _fill(bench, {_UNINDEXED: _plain(unindexed, "--no-hash-index")}, lambda _: None)
    unindexed.clear()
    return Answer(lines_of(rates, sizes), {"rates": rates, "bytes_an_item": sizes, "timed_rows": _TIMED[bench.scale]})


def lines_of(rates: Rates, sizes: Rates) -> list[Line]:
    """Rates and bytes an item at each size, and what is left of the best rate at the largest size."""
    lines = []
    for rows, rate in rates[_OURS].items():
        lines += [
            Line(f"at {rows:,} rows", "items/s", [rate], peer, [rates[peer][rows]]) for peer in (_PLAIN, _UNINDEXED)
        ]
    for rows, size in sizes[_OURS].items():
        lines.append(Line(f"at {rows:,} rows", "bytes/item", [size], _PLAIN, [sizes[_PLAIN][rows]]))
    last = max(rates[_OURS])
    left = {name: 100 * values[last] / max(values.values()) for name, values in rates.items()}
    for peer in (_PLAIN, _UNINDEXED):
        lines.append(Line(f"left of the best rate at {last:,}", "%", [left[_OURS]], peer, [left[peer]]))
    return lines


def _fill(bench: Bench, fills: Mapping[str, Fill], at_size: Callable[[int], None]) -> Rates:
    """Rates of each at each size, in items a second."""
    rates: Rates = {name: {} for name in fills}
    corpus = bench.folder / "corpus.jsonl"
    for before, size in pairwise((0, *_SIZES[bench.scale])):
        for first, count in parts(before, size, min(_TIMED[bench.scale], size - before)):
            write_corpus(corpus, count, first)
            for name, fill in fills.items():
                # The last part is timed, and overwrites what the others took.
                rates[name][size] = fill(corpus, count)
                bench.say(f"{name}, {first + count:,} rows: {rates[name][size]:,.0f} items/s")
        at_size(size)
    return rates


def parts(before: int, size: int, timed: int, most: int = 1_000_000) -> list[tuple[int, int]]:
    """First row and number of rows of what fills a database from `before` to `size`; the last one is timed."""
    found = []
    first = before
    while first < size - timed:
        count = min(most, size - timed - first)
        found.append((first, count))
        first += count
    return [*found, (first, timed)]


def _submit(place: Place, corpus: Path, count: int) -> float:
    _, run = place.submit("documents", corpus, _MODEL)
    if run["embedded"] != count:
        raise Failed(f"embedded {run['embedded']} of {count}")
    return count / (float(run["finished"]) - float(run["started"]))


def _plain(place: Place, *options: str) -> Fill:
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.plain_loop", place.database]
    return lambda corpus, count: count / float(place.run([*command, corpus, *options]).out)
