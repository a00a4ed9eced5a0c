"""How long until a command has done its work, where there is next to none?

Whole processes, from start to end, by turns; the interpreter that does nothing is one of the contenders.
"""

import sys
from statistics import median
from typing import Final

from benchmarks.bench import Bench
from benchmarks.corpora import line
from benchmarks.figures import Answer, Line, at_most
from benchmarks.processes import Place, embedq, server
from benchmarks.turns import by_turns

TITLE = "Start-up"
LIMIT_SECONDS = 120.0

_TURNS: Final = {"quick": 1, "standard": 15, "large": 31}
_HEAVIEST: Final = 12


def measure(bench: Bench) -> Answer:
    """Time the commands by turns; say what `embedq --help` imports."""
    # Installed as it is, without plugins.
    place = bench.place(EMBEDQ_PLUGINS="")
    corpus = place.folder / "few.jsonl"
    corpus.write_text("".join(line(number) for number in range(100)))
    with server(place):
        place.embedq("ingest", "few", corpus, "-m", "hashing")
        commands = {
            "interpreter": [sys.executable, "-c", "pass"],
            "import embedq": [sys.executable, "-c", "import embedq"],
            "embedq --help": [*embedq(), "--help"],
            "embedq status": [*embedq(), "status"],
            "embedq similar, 100 entries, hashing": [*embedq(), "similar", "few", "-c", "document 7"],
        }
        for words in commands.values():
            place.run(words)  # compiles what was never imported
        contenders = {name: lambda _, words=words: place.run(words).seconds for name, words in commands.items()}
        seconds = by_turns(contenders, _TURNS[bench.scale], bench.say, "s")
    targets = {"embedq --help": 0.3, "embedq status": 0.5, "embedq similar, 100 entries, hashing": 0.5}
    bare = seconds.pop("interpreter")
    lines = [
        Line(name, "s", values, "the bare interpreter", bare, at_most(targets[name]) if name in targets else None)
        for name, values in seconds.items()
    ]
    return Answer(lines, {"imports_of_help": _imports(place), "bare_interpreter": median(bare)})


def _imports(place: Place) -> dict[str, float]:
    """The imports of `embedq --help` that take longest, each with what it imports itself, in milliseconds."""
    place.run([sys.executable, "-X", "importtime", *embedq()[1:], "--help"])
    found: dict[str, float] = {}
    for text in (place.folder / "stderr").read_text().splitlines():
        parts = text.removeprefix("import time:").split("|")
        if len(parts) == 3 and parts[1].strip().isdigit():
            found[parts[2].strip()] = int(parts[1]) / 1000
    heaviest = sorted(found, key=lambda name: -found[name])[:_HEAVIEST]
    return {name: found[name] for name in heaviest}
