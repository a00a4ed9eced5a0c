"""`embedq ingest` against `llm embed-multi`: the same corpus, the same model without cost, whole processes.

    python benchmarks/ingest_vs_llm.py [--items 50000] [--runs 3] [--rows lists|array] [--json FILE]

The model returns vectors that were made beforehand, so that what is measured is everything else: starting,
reading, queueing (embedq starts its Redis and ends it again), looking up, hashing, storing. Both programs keep the
contents, both begin with a database that isn't there, and they take turns, so that neither gets the better
moments of the machine. What they have stored is counted afterwards.

`--rows lists` is what llm asks of a model: lists of floats. `--rows array` is a numpy array, which embedq takes
as it is and llm takes apart.
"""

import argparse
import json
import os
import platform
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

DIMENSION = 384
CHARACTERS = 400
MODEL = "prepared"
LONGEST_SECONDS = 600

# The part that both plugins share, to the letter.
_VECTORS = f"""
import os
import random

_random = random.Random(7)
_FEW = [[_random.uniform(-1, 1) for _ in range({DIMENSION})] for _ in range(64)]
_ROWS = _FEW * 32
if os.environ["BENCHMARK_ROWS"] == "array":
    import numpy
    _ROWS = numpy.array(_ROWS, dtype=numpy.float32)


def _prepared(items):
    count = len(list(items))
    return _ROWS[:count] if count <= len(_ROWS) else [_ROWS[index % len(_ROWS)] for index in range(count)]
"""

_PLUGIN = """
import {package}


class PreparedModel({package}.EmbeddingModel):
    model_id = "{model}"

    def embed_batch(self, items):
        return iter(_prepared(items)) if "{package}" == "llm" else _prepared(items)


@{package}.hookimpl
def register_embedding_models(register):
    register(PreparedModel())
"""


def main() -> None:
    """Measure, print a table, and write the figures where `--json` says."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="embedq-benchmark-") as folder:
        figures = _measure(Path(folder), options)
    _print(figures)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="embedq ingest against llm embed-multi, with a model without cost")
    parser.add_argument("--items", type=int, default=50_000, help="lines of the corpus (default 50000)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each program (default 3)")
    parser.add_argument("--rows", choices=("lists", "array"), default="lists", help="what the model returns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    return parser.parse_args()


def _measure(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    corpus = folder / "corpus.jsonl"
    _write_corpus(corpus, options.items)
    environment = _environment(folder, options.rows)
    seconds: dict[str, list[float]] = {"embedq ingest": [], "llm embed-multi": []}
    for run in range(options.runs):
        for name, command, database in (
            ("embedq ingest", _embedq(corpus, folder / f"embedq-{run}.db"), folder / f"embedq-{run}.db"),
            ("llm embed-multi", _llm(corpus, folder / f"llm-{run}.db"), folder / f"llm-{run}.db"),
        ):
            seconds[name].append(_timed(command, environment))
            _check(database, options.items)
            print(f"{name}: {seconds[name][-1]:.2f} s", file=sys.stderr)
    medians = {name: statistics.median(runs) for name, runs in seconds.items()}
    return {
        "items": options.items,
        "characters": CHARACTERS,
        "dimension": DIMENSION,
        "rows": options.rows,
        "seconds": seconds,
        "median_seconds": medians,
        "items_per_second": {name: options.items / median for name, median in medians.items()},
        "ratio": medians["llm embed-multi"] / medians["embedq ingest"],
        "machine": {
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "embedq": version("embedq"),
            "llm": version("llm"),
        },
    }


def _write_corpus(path: Path, items: int) -> None:
    rng = random.Random(11)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))) for _ in range(5000)]
    with path.open("w") as file:
        for number in range(items):
            content = " ".join(rng.choices(words, k=CHARACTERS // 5))[: CHARACTERS - 10] + f" {number:09}"
            file.write(json.dumps({"id": f"document-{number}", "content": content}) + "\n")


def _environment(folder: Path, rows: str) -> dict[str, str]:
    """Nothing of the user's settings, and a plugin for each program: a file for embedq, a distribution for llm."""
    plugin = folder / "embedq_plugin.py"
    plugin.write_text(_VECTORS + _PLUGIN.format(package="embedq", model=MODEL))
    site = folder / "site"
    information = site / "prepared_llm-0.1.dist-info"
    information.mkdir(parents=True)
    (site / "prepared_llm.py").write_text(_VECTORS + _PLUGIN.format(package="llm", model=MODEL))
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: prepared-llm\nVersion: 0.1\n")
    (information / "entry_points.txt").write_text("[llm]\nprepared = prepared_llm\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EMBEDQ_", "LLM_"))}
    return kept | {
        "BENCHMARK_ROWS": rows,
        "EMBEDQ_PLUGINS": str(plugin),
        "XDG_CONFIG_HOME": str(folder),
        "LLM_USER_PATH": str(folder / "llm"),
        "PYTHONPATH": str(site),
    }


def _embedq(corpus: Path, database: Path) -> list[str]:
    return [sys.executable, "-m", "embedq", "ingest", "documents", str(corpus), "-m", MODEL, "-d", str(database)]


def _llm(corpus: Path, database: Path) -> list[str]:
    command = [sys.executable, "-m", "llm", "embed-multi", "documents", str(corpus), "--format", "nl"]
    return [*command, "-m", MODEL, "-d", str(database), "--store"]


def _timed(command: Sequence[str], environment: Mapping[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, timeout=LONGEST_SECONDS, check=False)
    took = time.perf_counter() - began
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr.decode()}")
    return took


def _check(database: Path, items: int) -> None:
    with closing(sqlite3.connect(database)) as db:
        query = "SELECT count(*), min(length(embedding)), count(content) FROM embeddings"
        stored = db.execute(query).fetchone()
    if stored != (items, 4 * DIMENSION, items):
        sys.exit(f"{database.name}: rows, bytes a vector, contents are {stored}")


def _print(figures: dict[str, object]) -> None:
    seconds, medians, rates = (figures[name] for name in ("seconds", "median_seconds", "items_per_second"))
    machine = figures["machine"]
    assert isinstance(seconds, dict) and isinstance(medians, dict)  # noqa: S101, PT018 - for type checkers
    assert isinstance(rates, dict) and isinstance(machine, dict)  # noqa: S101, PT018
    print(
        f"{figures['items']:,} lines of {figures['characters']} characters, {figures['dimension']} dimensions, "
        f"the model returns {figures['rows']}"
    )
    print(f"{machine['cores']} cores, {machine['system']}, Python {machine['python']}, llm {machine['llm']}\n")
    print(f"{'':<16} {'median':>9} {'items/s':>9}  runs")
    for name, runs in seconds.items():
        shown = ", ".join(f"{value:.2f}" for value in runs)
        print(f"{name:<16} {medians[name]:>7.2f} s {rates[name]:>9,.0f}  {shown}")
    print(f"\nembedq is {figures['ratio']:.1f} times as fast")


if __name__ == "__main__":
    main()
