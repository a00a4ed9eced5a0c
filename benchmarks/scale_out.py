"""Do twice as many workers do twice as much, with a model that waits, as that of a remote service does?

The more workers, the more items, so that each number of workers has as long to do. Timed from the start of `embedq
submit` to the last commit: the share of the producer's start is in it, and so is the end, when some have no more to do.
"""

from typing import Final

from benchmarks.bench import Bench
from benchmarks.corpora import write_corpus
from benchmarks.figures import Answer, Line, ratio_at_least
from benchmarks.models import Sleeping
from benchmarks.processes import server, workers
from benchmarks.turns import by_turns

TITLE = "Scale-out: workers whose model waits"
LIMIT_SECONDS = 420.0

_SLEEP: Final = 0.25
_COUNTS: Final = {"quick": (1, 2), "standard": (1, 2, 4, 8), "large": (1, 2, 4, 8)}
_TURNS: Final = {"quick": 1, "standard": 3, "large": 5}
_ROUNDS: Final = {"quick": 1, "standard": 40, "large": 80}


def measure(bench: Bench) -> Answer:
    """Each number of workers by turns."""
    # What one worker can do at once, and how often in the time that a turn should take.
    items = Sleeping.batch_size * Sleeping.concurrency * _ROUNDS[bench.scale]
    counts = _COUNTS[bench.scale]
    corpus = {count: write_corpus(bench.folder / f"{count}.jsonl", count * items) for count in counts}

    def turn(count: int) -> float:
        place = bench.place(BENCHMARK_SLEEP=str(_SLEEP))
        with server(place) as redis, workers(place, redis, Sleeping.model_id, count):
            ended, run = place.submit("documents", corpus[count], Sleeping.model_id)
        place.clear()
        return count * items / (float(run["finished"]) - ended.began)

    contenders = {f"{count} workers": lambda _, count=count: turn(count) for count in counts}
    rate = by_turns(contenders, _TURNS[bench.scale], bench.say, "items/s")
    one = rate["1 workers"]
    model_only = Sleeping.batch_size * Sleeping.concurrency / _SLEEP
    lines = [Line("1 worker", "items/s", one, "the model alone", [model_only] * len(one))]
    for count in counts[1:]:
        linear = [count * value for value in one]
        ours = rate[f"{count} workers"]
        lines.append(Line(f"{count} workers", "items/s", ours, f"{count} times one", linear, ratio_at_least(0.9)))
    return Answer(lines, {"items_a_worker": items, "seconds_a_call": _SLEEP, "batch_size": Sleeping.batch_size})
