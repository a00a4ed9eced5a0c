"""How fast is a search, and is it right: beside the bare product, and beside the libraries made for it?

Every contender has its vectors in memory and has answered before; in each turn each gets the same query, a new one.
What is not built is said not to be.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import embedq
from benchmarks import features
from benchmarks.bench import Bench
from benchmarks.figures import Answer, Line, at_least, ratio_at_least, ratio_at_most
from benchmarks.search_fresh import fresh_lines
from benchmarks.search_peers import BARE, Search, bare_numpy, llm_similar, peers, threads, unit_rows
from benchmarks.search_rows import COLLECTION, NUMBER, Rows, make_queries, make_rows
from benchmarks.turns import by_turns

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

TITLE = "Search"
LIMIT_SECONDS = 1500.0


@dataclass(frozen=True, slots=True)
class _Size:
    rows: tuple[int, ...]
    turns: int
    llm_rows: int
    """Up to how many rows llm is asked: it takes about a minute for a million."""


_SIZES: Final = {
    "quick": _Size((1200,), 2, 0),
    "standard": _Size((10_000, 100_000, 1_000_000), 41, 100_000),
    "large": _Size((10_000, 100_000, 1_000_000), 61, 1_000_000),
}
_CHECKED: Final = 20
_MANY: Final = 100
_RECALL: Final = 0.97


def measure(bench: Bench) -> Answer:
    """Each number of rows in a database of its own; what is asked of the largest only comes last."""
    size = _SIZES[bench.scale]
    answer = Answer()
    for count in size.rows:
        place = bench.place()
        began = time.perf_counter()
        rows = make_rows(place.database, count)
        bench.say(f"{count:,} rows written in {time.perf_counter() - began:.1f} s")
        largest = count == size.rows[-1]
        if largest:
            # First, while there is nothing but the rows.
            answer.lines += fresh_lines(bench, place, rows, make_queries(rows, _CHECKED))
        with embedq.Collection(COLLECTION, rows.database) as collection:
            answer.lines += _warm(bench, collection, rows, size, answer.details, judged=largest)
            answer.lines.append(_exact(collection, rows))
            if largest:
                answer.lines += _filtered(bench, collection, rows, size.turns)
                answer.lines.append(_many(bench, collection, rows, size.turns))
                answer.lines += _approximate(bench, collection, rows, size.turns)
        place.clear()
    answer.details["threads"] = threads()
    return answer


def timed(search: Search, queries: "Floats") -> Callable[[int], float]:
    """A contender: milliseconds for the query of the turn."""

    def turn(number: int) -> float:
        query = queries[number % len(queries)]
        began = time.perf_counter()
        search(query)
        return 1000 * (time.perf_counter() - began)

    return turn


def ours(collection: embedq.Collection, **more: Any) -> Search:  # noqa: ANN401 - whatever it takes
    """The collection as a contender. `more` is what may not be built: see `benchmarks.features`."""
    return lambda query: collection.similar_by_vector(query, NUMBER, **more)


def _warm(
    bench: Bench,
    collection: embedq.Collection,
    rows: Rows,
    size: _Size,
    details: dict[str, object],
    *,
    judged: bool,
) -> list[Line]:
    matrix = unit_rows(rows)
    others, missing = peers(matrix)
    queries = make_queries(rows, size.turns)
    contenders: dict[str, Search] = {"embedq": ours(collection), BARE: bare_numpy(matrix), **others}
    for search in contenders.values():
        search(queries[0])
        search(queries[-1])
    found = by_turns({name: timed(search, queries) for name, search in contenders.items()}, size.turns)
    shown = f"similar, {len(rows.ids):,} vectors"
    mine = found.pop("embedq")
    target = ratio_at_most(1.15)
    lines = [
        Line(shown, "ms", mine, name, values, target if judged and name == BARE else None)
        for name, values in found.items()
    ]
    lines += [
        Line(shown, "ms", mine, name, note=reason, state="not measured") for name, reason in missing.items() if judged
    ]
    if len(rows.ids) <= size.llm_rows:
        slow = timed(llm_similar(rows.database), queries)(0)
        lines.append(Line(shown, "ms", mine, "llm", [slow], note="llm: one query"))
    details[shown] = {"turns": size.turns, "worst_ms": max(mine)}
    bench.say(
        ", ".join([f"{shown}: embedq {median(mine):.2f} ms"] + [f"{n} {median(v):.2f}" for n, v in found.items()])
    )
    return lines


def _exact(collection: embedq.Collection, rows: Rows) -> Line:
    """How many of the queries have the ids, the order and the scores of a scan in float64."""
    queries = make_queries(rows, _CHECKED)
    pairs = zip(queries, rows.truth(queries), strict=True)
    right = sum(same(collection.similar_by_vector(query, NUMBER), truth) for query, truth in pairs)
    name = f"as a float64 scan, {len(rows.ids):,} vectors"
    note = "queries with the same ids, order and scores, ties by id"
    return Line(name, f"of {len(queries)}", [right], target=at_least(len(queries)), note=note)


def same(found: Sequence[embedq.Entry], truth: Sequence[tuple[str, float]]) -> bool:
    """Whether ids and order are those of the truth, and scores but for the last digits."""
    return [entry.id for entry in found] == [id_ for id_, _ in truth] and all(
        entry.score is not None and abs(entry.score - score) < 1e-12
        for entry, (_, score) in zip(found, truth, strict=True)
    )


def recall(found: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> float:
    """Which share of the true entries was found, over all queries."""
    hits = sum(len(set(some) & set(right)) for some, right in zip(found, truth, strict=True))
    return hits / sum(len(right) for right in truth)


def _filtered(bench: Bench, collection: embedq.Collection, rows: Rows, turns: int) -> list[Line]:
    """A filter that keeps most costs little more than none; one that keeps few costs less."""
    plain, most, few = ours(collection), ratio_at_most(1.2), ratio_at_most(1.0)
    contenders = {
        "prefix that keeps 95 %": (ours(collection, prefix="common/"), most),
        "prefix that keeps 0.5 %": (ours(collection, prefix="rare/"), few),
    }
    lines = []
    if features.has_where():
        contenders["where that keeps 95 %"] = (ours(collection, where={"kind": "common"}), most)
        contenders["where that keeps 0.5 %"] = (ours(collection, where={"kind": "rare"}), few)
    else:
        lines += [
            Line(f"where that keeps {share}", "ms", peer="no filter", target=target, state="not built")
            for share, target in (("95 %", most), ("0.5 %", few))
        ]
    queries = make_queries(rows, turns)
    for search, _ in contenders.values():
        search(queries[0])
    searches = {"no filter": plain, **{name: search for name, (search, _) in contenders.items()}}
    found = by_turns({name: timed(search, queries) for name, search in searches.items()}, turns)
    bench.say("filters: " + ", ".join(f"{name} {median(values):.1f} ms" for name, values in found.items()))
    return [
        *(
            Line(name, "ms", found[name], "no filter", found["no filter"], target)
            for name, (_, target) in contenders.items()
        ),
        *lines,
    ]


def _many(bench: Bench, collection: embedq.Collection, rows: Rows, turns: int) -> Line:
    name, target = f"{_MANY} queries at once", ratio_at_least(5)
    search = features.many(collection)
    if search is None:
        return Line(name, "queries/s", peer="one by one", target=target, state="not built")
    queries = make_queries(rows, _MANY)
    search(queries[:2], NUMBER)
    at_once, single = timed(lambda _: search(queries, NUMBER), queries), timed(ours(collection), queries)
    found = by_turns({"many": at_once, "single": single}, max(2, turns // 4), bench.say, "ms")
    many = [1000 * _MANY / value for value in found["many"]]
    return Line(name, "queries/s", many, "one by one", [1000 / value for value in found["single"]], target)


def _approximate(bench: Bench, collection: embedq.Collection, rows: Rows, turns: int) -> list[Line]:
    rate_target, recall_target = ratio_at_least(10), at_least(_RECALL)
    if not features.has_ann():
        return [
            Line("approximate index", "queries/s", peer="exact", target=rate_target, state="not built"),
            Line("approximate index, recall@10", "", target=recall_target, state="not built"),
        ]
    queries = make_queries(rows, max(turns, _CHECKED))
    search, plain = ours(collection, ann=True), ours(collection)
    began = time.perf_counter()
    collection.build_index()
    built = f"index built in {time.perf_counter() - began:.0f} s"
    search(queries[0])
    found = by_turns({"ann": timed(search, queries), "exact": timed(plain, queries)}, turns)
    bench.say(f"approximate: {median(found['ann']):.2f} ms, {built}")
    approximate, exact = ([[entry.id for entry in each(query)] for query in queries] for each in (search, plain))
    rates = {name: [1000 / value for value in values] for name, values in found.items()}
    return [
        Line("approximate index", "queries/s", rates["ann"], "exact", rates["exact"], rate_target, built),
        Line("approximate index, recall@10", "", [recall(approximate, exact)], target=recall_target),
    ]
