"""`python -m benchmarks.page FILE` puts the figures of FILE beside docs/performance.md, and their tables into it.

So no figure on the page is typed by hand. Each question has a place on the page between two comments.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.bench import QUESTIONS
from benchmarks.figures import HEADINGS, QuestionObject, table_rows

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "performance.md"
FIGURES = DOCS / "performance.json"

_PLACE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def main(file: Path) -> None:
    """Keep the figures of `file` in the documentation, and write the page anew."""
    text = file.read_text()
    FIGURES.write_text(text)
    PAGE.write_text(rendered(PAGE.read_text(), json.loads(text)["questions"]))


def published() -> dict[str, QuestionObject]:
    """The figures that are kept in the documentation; none where there are none."""
    if not FIGURES.exists():
        return {}
    questions: dict[str, QuestionObject] = json.loads(FIGURES.read_text())["questions"]
    return questions


def rendered(page: str, questions: Mapping[str, QuestionObject]) -> str:
    """The page with the figures of each question in its place. Raises ValueError for a place of no question."""

    def figures(found: re.Match[str]) -> str:
        begin, name, end = found.groups()
        if name not in QUESTIONS:
            raise ValueError(f"the page has a place for {name!r}, which is no question")
        return begin + (_section(questions[name]) if name in questions else "Not measured yet.\n") + end

    return _PLACE.sub(figures, page)


def _section(question: QuestionObject) -> str:
    rows = ["| " + " | ".join(HEADINGS) + " |", "|---|--:|---|--:|--:|---|---|"]
    rows += ["| " + " | ".join(row) + " |" for row in table_rows(question)]
    machine = ", ".join(f"{name} {value}" for name, value in question["machine"].items())
    measured = f"{question['measured'][:10]}, {question['scale']} size, {question['seconds']:.0f} s in all; {machine}."
    return "\n".join(["", *rows, "", f"Measured {measured}", ""])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
