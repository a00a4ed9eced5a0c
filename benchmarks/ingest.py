"""How fast is ingesting with a model that costs nothing: beside a plain loop on `sqlite3`, and beside llm?

Every turn begins with a new database, a new Redis and a new worker, which has done one item before. Ours is timed
from the start of the process `embedq submit` to the ledger's `finished`, which follows the last commit; the peers
from the start of their processes to their ends.
"""

import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.corpora import DIMENSION, write_corpus
from benchmarks.figures import Answer, Line, at_least, ratio_at_least
from benchmarks.processes import Failed, Place, embedq, server, workers
from benchmarks.turns import by_turns, rates

TITLE = "Ingest, a model without cost"
LIMIT_SECONDS = 600.0

_LLM = "llm embed-multi"
_PLAIN = "plain sqlite3 loop"


@dataclass(frozen=True, slots=True)
class _Size:
    items: int
    turns: int
    llm_turns: int


_SIZES: Final = {"quick": _Size(300, 1, 1), "standard": _Size(200_000, 5, 2), "large": _Size(200_000, 9, 3)}


def measure(bench: Bench) -> Answer:
    """Ingest by turns."""
    size = _SIZES[bench.scale]
    corpus = write_corpus(bench.folder / "corpus.jsonl", size.items)
    ours = _Ours(bench, corpus, size.items)
    contenders = {
        "submit + worker": lambda _: ours.turn("prepared-array"),
        "plain": lambda _: plain(bench, corpus, size.items),
        "submit + worker, lists": lambda _: ours.turn("prepared-lists"),
        "ingest, array": lambda _: _whole(bench, corpus, size.items, "prepared-array"),
        "ingest, lists": lambda _: _whole(bench, corpus, size.items, "prepared-lists"),
    }
    if bench.scale == "quick":
        contenders = {name: contenders[name] for name in ("submit + worker", "plain")}
    seconds = by_turns(contenders, size.turns, bench.say, "s")
    seconds |= by_turns({"llm": lambda _: _llm(bench, corpus, size.items)}, size.llm_turns, bench.say, "s")
    rate = {name: rates(size.items, values) for name, values in seconds.items()}
    first = rate["submit + worker"]
    lines = [
        Line("submit + one worker", "items/s", first, _PLAIN, rate["plain"], ratio_at_least(1.0)),
        Line("submit + one worker", "items/s", first, _LLM, rate["llm"], ratio_at_least(10)),
        Line("unchanged corpus again", "items/s", ours.again, target=at_least(150_000), note="no model call"),
        Line("… from the run's own start", "items/s", ours.from_start, _PLAIN, rate["plain"]),
    ]
    for name, shown in (
        ("submit + worker, lists", "submit + one worker, lists of floats"),
        ("ingest, array", "ingest in one command, an array"),
        ("ingest, lists", "ingest in one command, lists of floats"),
    ):
        if name in rate:
            lines.append(Line(shown, "items/s", rate[name], _LLM, rate["llm"]))
    return Answer(lines, {"items": size.items, "seconds": seconds, "processor_seconds": ours.cpu})


class _Ours:
    """Submit beside a worker: what each turn took, the second time too, and which process used what."""

    def __init__(self, bench: Bench, corpus: Path, items: int) -> None:
        self._bench, self._corpus, self._items = bench, corpus, items
        self.again: list[float] = []
        self.from_start: list[float] = []
        self.cpu: list[dict[str, float | str]] = []

    def turn(self, model: str) -> float:
        """Seconds from the start of `embedq submit` to the last commit."""
        place = self._bench.place()
        with server(place) as redis, workers(place, redis, model) as working:
            before = working.cpu_seconds(), redis.cpu_seconds()
            ended, run = place.submit("documents", self._corpus, model)
            after = working.cpu_seconds(), redis.cpu_seconds()
            again, run_again = place.submit("documents", self._corpus, model)
        _check(run, "embedded", self._items)
        _check(run_again, "unchanged", self._items)
        if run_again["calls"]:
            raise Failed(f"an unchanged corpus cost {run_again['calls']} calls of the model")
        check_rows(place.database, self._items)
        place.clear()
        if model == "prepared-array":
            self.again.append(self._items / (float(run_again["finished"]) - again.began))
            self.from_start.append(self._items / (float(run["finished"]) - float(run["started"])))
        self.cpu.append(
            {
                "model": model,
                "producer": round(ended.cpu_seconds, 3),
                "worker": round(after[0] - before[0], 3),
                "redis": round(after[1] - before[1], 3),
            }
        )
        return float(run["finished"]) - ended.began


def _check(run: dict[str, object], outcome: str, items: int) -> None:
    if run[outcome] != items:
        raise Failed(f"{outcome}: {run[outcome]} of {items}")


def plain(bench: Bench, corpus: Path, items: int) -> float:
    """Seconds of the plain loop, as a whole process, with a new database."""
    place = bench.place()
    ended = place.run([sys.executable, "-m", "benchmarks.plain_loop", place.database, corpus])
    check_rows(place.database, items)
    place.clear()
    return ended.seconds


def _whole(bench: Bench, corpus: Path, items: int, model: str) -> float:
    place = bench.place()
    ended = place.run([*embedq(), "ingest", "documents", corpus, "-m", model])
    check_rows(place.database, items)
    place.clear()
    return ended.seconds


def _llm(bench: Bench, corpus: Path, items: int) -> float:
    place = bench.place()
    command = [sys.executable, "-m", "llm", "embed-multi", "documents", corpus, "--format", "nl", "--store"]
    ended = place.run([*command, "-m", "prepared-lists", "-d", place.database])
    check_rows(place.database, items)
    place.clear()
    return ended.seconds


def check_rows(database: Path, items: int) -> None:
    """Count what was stored, whoever did. Raises Failed where it is not all there."""
    query = "SELECT count(*), min(length(embedding)), count(content) FROM embeddings WHERE id LIKE 'document-%'"
    with closing(sqlite3.connect(database)) as db:
        stored = db.execute(query).fetchone()
    if stored != (items, 4 * DIMENSION, items):
        raise Failed(f"{database.name}: rows, bytes a vector and contents are {stored}")
