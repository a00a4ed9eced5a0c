"""How fast is ingesting with a model that costs nothing: beside a plain loop on `sqlite3`, and beside llm?

Every turn begins with a new database, a new Redis and a new worker, which has done one item before. Ours is timed
from the start of the process `embedq submit` to the ledger's `finished`, which follows the last commit; the peers
from the start of their processes to their ends. Each is given vectors as it likes them best: embedq an array, the
loop packed bytes, llm lists of floats.
"""

import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.corpora import DIMENSION, write_corpus
from benchmarks.figures import Answer, Line, at_least, ratio_at_least
from benchmarks.processes import Failed, Place, embedq, server, workers
from benchmarks.turns import by_turns, rates

TITLE = "Ingest, a model without cost"
LIMIT_SECONDS = 600.0

_OURS, _PLAIN, _LLM = "submit + one worker", "plain sqlite3 loop", "llm embed-multi"
_LISTS = "submit + one worker, lists of floats"
_ONE_ARRAY, _ONE_LISTS = "ingest in one command", "ingest in one command, lists of floats"


@dataclass(frozen=True, slots=True)
class _Size:
    items: int
    turns: int
    llm_turns: int


_SIZES: Final = {"quick": _Size(300, 1, 0), "standard": _Size(200_000, 5, 2), "large": _Size(200_000, 9, 3)}


@dataclass(slots=True)
class Noted:
    """What was noticed beside the seconds of each turn with an array, each a value for each turn."""

    again: list[float] = field(default_factory=list)
    """Seconds for the unchanged corpus."""

    from_start: list[float] = field(default_factory=list)
    """Seconds from the run's own start, the first time."""

    again_from_start: list[float] = field(default_factory=list)
    """Seconds from the run's own start, the second time."""

    processor: dict[str, list[float]] = field(default_factory=dict)
    """Seconds of processor time of each process."""


def measure(bench: Bench) -> Answer:
    """Ingest by turns."""
    size, noted = _SIZES[bench.scale], Noted()
    corpus = write_corpus(bench.folder / "corpus.jsonl", size.items)
    contenders = {
        _OURS: lambda _: _ours(bench, corpus, size.items, "prepared-array", noted),
        _PLAIN: lambda _: _plain(bench, corpus, size.items, noted),
        _LISTS: lambda _: _ours(bench, corpus, size.items, "prepared-lists", Noted()),
        _ONE_ARRAY: lambda _: _whole(bench, corpus, size.items, "prepared-array"),
        _ONE_LISTS: lambda _: _whole(bench, corpus, size.items, "prepared-lists"),
    }
    if bench.scale == "quick":
        contenders = {name: contenders[name] for name in (_OURS, _PLAIN)}
    seconds = by_turns(contenders, size.turns, bench.say, "s")
    # Apart, since it takes so much longer.
    seconds |= by_turns({_LLM: lambda _: _llm(bench, corpus, size.items)}, size.llm_turns, bench.say, "s")
    return Answer(lines_of(size.items, seconds, noted), {"items": size.items, "seconds": seconds})


def lines_of(items: int, seconds: Mapping[str, Sequence[float]], noted: Noted) -> list[Line]:
    """Rates from seconds, beside the peers'; processor time an item of each process, beside all of the loop's."""
    rate = {name: rates(items, values) for name, values in seconds.items()}
    lines = [
        Line(_OURS, "items/s", rate[_OURS], _PLAIN, rate[_PLAIN], ratio_at_least(1.0)),
        Line(_OURS, "items/s", rate[_OURS], _LLM, rate[_LLM], ratio_at_least(10)),
        Line(
            "unchanged corpus again",
            "items/s",
            rates(items, noted.again),
            target=at_least(150_000),
            note="no call of the model",
        ),
        Line(
            "… the first time, from the run's own start",
            "items/s",
            rates(items, noted.from_start),
            _PLAIN,
            rate[_PLAIN],
        ),
    ]
    lines.append(Line("… again, from the run's own start", "items/s", rates(items, noted.again_from_start)))
    others = [name for name in (_LISTS, _ONE_ARRAY, _ONE_LISTS) if name in rate]
    lines += [Line(name, "items/s", rate[name], _LLM, rate[_LLM]) for name in others]
    each = {name: [1e6 * value / items for value in values] for name, values in noted.processor.items()}
    loop = each.pop(_PLAIN)
    return lines + [Line(f"processor time, {name}", "µs/item", each[name], _PLAIN, loop) for name in sorted(each)]


def _ours(bench: Bench, corpus: Path, items: int, model: str, noted: Noted) -> float:
    """Seconds from the start of `embedq submit` to the last commit."""
    place = bench.place()
    with server(place) as redis, workers(place, redis, model) as working:
        before = working.cpu_seconds(), redis.cpu_seconds()
        ended, run = place.submit("documents", corpus, model)
        after = working.cpu_seconds(), redis.cpu_seconds()
        again, run_again = place.submit("documents", corpus, model)
    _check(run, "embedded", items)
    _check(run_again, "unchanged", items)
    if run_again["calls"]:
        raise Failed(f"an unchanged corpus cost {run_again['calls']} calls of the model")
    check_rows(place.database, items)
    place.clear()
    noted.again.append(float(run_again["finished"]) - again.began)
    noted.from_start.append(float(run["finished"]) - float(run["started"]))
    noted.again_from_start.append(float(run_again["finished"]) - float(run_again["started"]))
    for name, spent in (
        ("producer", ended.cpu_seconds),
        ("worker", after[0] - before[0]),
        ("Redis", after[1] - before[1]),
    ):
        noted.processor.setdefault(name, []).append(spent)
    return float(run["finished"]) - ended.began


def _check(run: Mapping[str, object], outcome: str, items: int) -> None:
    if run[outcome] != items:
        raise Failed(f"{outcome}: {run[outcome]} of {items}")


def _plain(bench: Bench, corpus: Path, items: int, noted: Noted) -> float:
    place = bench.place()
    ended = place.run([sys.executable, "-m", "benchmarks.plain_loop", place.database, corpus])
    _finish(place, items)
    noted.processor.setdefault(_PLAIN, []).append(ended.cpu_seconds)
    return ended.seconds


def _whole(bench: Bench, corpus: Path, items: int, model: str) -> float:
    place = bench.place()
    ended = place.run([*embedq(), "ingest", "documents", corpus, "-m", model])
    _finish(place, items)
    return ended.seconds


def _llm(bench: Bench, corpus: Path, items: int) -> float:
    place = bench.place()
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "llm",
        "embed-multi",
        "documents",
        corpus,
        "--format",
        "nl",
        "--store",
    ]
    ended = place.run([*command, "-m", "prepared-lists", "-d", place.database])
    _finish(place, items)
    return ended.seconds


def _finish(place: Place, items: int) -> None:
    check_rows(place.database, items)
    place.clear()


def check_rows(database: Path, items: int) -> None:
    """Count what was stored, whoever did. Raises Failed where it is not all there."""
    query = "SELECT count(*), min(length(embedding)), count(content) FROM embeddings WHERE id LIKE 'document-%'"
    with closing(sqlite3.connect(database)) as db:
        stored = db.execute(query).fetchone()
    if stored != (items, 4 * DIMENSION, items):
        raise Failed(f"{database.name}: rows, bytes a vector and contents are {stored}")
