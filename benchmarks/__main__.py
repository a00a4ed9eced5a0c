"""`python -m benchmarks`: ask the questions, print their tables, write the figures as JSON.

It ends with 0 where every target is met, else with 1.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import QUESTIONS, Scale, ask
from benchmarks.figures import QuestionObject, exit_status, table


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask, print, write; return the exit status."""
    options = _options(arguments)
    scale: Scale = "quick" if options.quick else "large" if options.large else "standard"
    began = time.perf_counter()
    answers: dict[str, QuestionObject] = {}
    for name in options.only or QUESTIONS:
        print(f"{name} …", file=sys.stderr, flush=True)
        answers[name] = ask(name, scale, options.folder, apart=not options.quick)
        print(f"\n{answers[name]['title']} ({answers[name]['seconds']:.0f} s)\n{table(answers[name])}\n", flush=True)
        if options.out is not None:
            # After each, so that what was measured isn't lost when the next is interrupted.
            merge(options.out, answers)
    lines = [line for answer in answers.values() for line in answer["lines"] if line["target"]]
    met = sum(line["verdict"] == "met" for line in lines)
    print(f"{met} of {len(lines)} targets met, in {(time.perf_counter() - began) / 60:.1f} minutes, {scale} size")
    if scale == "quick":
        print("too small to judge: this shows that the benchmarks work, and nothing else")
    return exit_status(list(answers.values()))


def merge(path: Path, answers: dict[str, QuestionObject]) -> None:
    """Put `answers` into the JSON file, in the place of older ones to the same questions."""
    old = json.loads(path.read_text())["questions"] if path.exists() else {}
    merged = {**old, **answers}
    ordered = {name: merged[name] for name in QUESTIONS if name in merged}
    path.write_text(json.dumps({"version": 1, "questions": ordered}, indent=1, ensure_ascii=False) + "\n")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="embedq beside its peers")
    parser.add_argument("--only", choices=QUESTIONS, nargs="+", metavar="QUESTION", help=", ".join(QUESTIONS))
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="tiny sizes, to see that the benchmarks work")
    size.add_argument("--large", action="store_true", help="larger sizes and more turns; growth up to 5,000,000 rows")
    parser.add_argument(
        "--folder", type=Path, help="work in this folder; up to 30 GB with --large (default: temporary)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures to FILE; others in it are kept")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    # As Ctrl-C does: what was started is ended, and what was written deleted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
