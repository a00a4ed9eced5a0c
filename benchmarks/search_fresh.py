"""Searches in fresh processes: what the first one of all costs, what the next do, and what a budget of memory holds."""

import json
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks import features
from benchmarks.bench import Bench
from benchmarks.figures import Answer, Line, at_least, at_most, ratio_at_most
from benchmarks.processes import Ended, Place, embedq
from benchmarks.search_rows import COLLECTION, NUMBER, Rows

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

_TURNS: Final = {"quick": 1, "standard": 7, "large": 15}
_SLOW_SECONDS: Final = 30
_BUDGET_SHARE: Final = 4
_MB: Final = 1e6


def fresh_lines(bench: Bench, place: Place, rows: Rows, queries: "Floats") -> list[Line]:
    """`embedq similar` on a collection that nobody has searched, again and again; then within a budget."""
    answer = Answer()
    shown = f"{len(rows.ids):,} vectors"
    first = _similar(place)
    beside = _beside(place)
    # Where nothing is kept between processes, two of them show it.
    turns = _TURNS[bench.scale] if first.seconds < _SLOW_SECONDS else 2
    later = [_similar(place).seconds for _ in range(turns)]
    bench.say(f"fresh process: {first.seconds:.2f} s the first time, then {median(later):.2f} s")
    note = f"it leaves {beside / _MB:.0f} MB beside the database, and takes {first.peak_bytes / _MB:.0f} MB of memory"
    answer.lines.append(Line(f"embedq similar, fresh process, {shown}", "s", later, target=at_most(1.0)))
    answer.lines.append(Line("… the first one of all", "s", [first.seconds], note=note))
    answer.lines += _within_budget(bench, place, rows, queries)
    return answer.lines


def _similar(place: Place) -> Ended:
    ended = place.run([*embedq(), "similar", COLLECTION, "-c", "the content of document 7", "-n", str(NUMBER)])
    if len(ended.out.splitlines()) != NUMBER:
        raise AssertionError(ended.out)
    return ended


def _beside(place: Place) -> int:
    """Bytes in the folder beside the database."""
    folder = place.database.with_name(place.database.name + ".embedq")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _within_budget(bench: Bench, place: Place, rows: Rows, queries: "Floats") -> list[Line]:
    """A quarter of what the vectors take is allowed: are the answers right, and is no more used?"""
    budget = rows.vectors.nbytes // _BUDGET_SHARE
    names = f"budget of {budget / _MB:.0f} MB, recall@10", "… resident memory it adds"
    recall_target, memory_target = at_least(1.0), ratio_at_most(1.0)
    variable = features.budget_variable()
    if variable is None:
        return [
            Line(names[0], "", target=recall_target, state="not built"),
            Line(names[1], "MB", peer="the budget", target=memory_target, state="not built"),
        ]
    file = place.folder / "queries.npy"
    np.save(file, queries)
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.search_child", place.database, file]
    found = json.loads(place.run(command, {variable: str(budget)}).out)
    right = sum(
        len(set(ids) & {id_ for id_, _ in truth})
        for ids, truth in zip(found["found"], rows.truth(queries), strict=True)
    )
    added = (found["most"] - found["before"]) / _MB
    in_files = f"pages of files among it: {found['of_files'] / _MB:.0f} MB of all"
    each = 1000 * found["seconds"] / len(queries)
    bench.say(f"budget of {budget / _MB:.0f} MB: {added:.0f} MB added, {each:.0f} ms a query")
    return [
        Line(names[0], "", [right / (NUMBER * len(queries))], target=recall_target, note=f"{each:.0f} ms a query"),
        Line(names[1], "MB", [added], "the budget", [budget / _MB], memory_target, in_files),
    ]
