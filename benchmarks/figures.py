"""What a benchmark finds: lines of the table, their targets, and whether these are met. No measuring here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal, TypedDict

State = Literal["measured", "not built", "not measured"]
Verdict = Literal["met", "missed", "not built", "not measured", "too small", ""]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on the ratio to the peer, or on our own value, in the line's unit."""

    of: Literal["ratio", "value"]
    sense: Literal[">=", "<="]
    bound: float

    def holds(self, found: float) -> bool:
        """Whether `found` is within the bound."""
        return found >= self.bound if self.sense == ">=" else found <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.sense == '>=' else '≤'} {number(self.bound)}{' ×' if self.of == 'ratio' else ''}"


def ratio_at_least(bound: float) -> Target:
    """Ours divided by the peer's is `bound` or more."""
    return Target("ratio", ">=", bound)


def ratio_at_most(bound: float) -> Target:
    """Ours divided by the peer's is `bound` or less."""
    return Target("ratio", "<=", bound)


def at_least(bound: float) -> Target:
    """Ours is `bound` or more, in the line's unit."""
    return Target("value", ">=", bound)


def at_most(bound: float) -> Target:
    """Ours is `bound` or less, in the line's unit."""
    return Target("value", "<=", bound)


class LineObject(TypedDict):
    """A line as JSON. `ours` and `theirs` hold a value for each turn; the medians are null where there is none."""

    name: str
    unit: str
    ours: list[float]
    ours_median: float | None
    peer: str
    theirs: list[float]
    theirs_median: float | None
    ratio: float | None
    target: str
    verdict: Verdict
    note: str


class QuestionObject(TypedDict):
    """A question as JSON: when, where and at which scale it was asked, its lines, and what else was noticed."""

    title: str
    scale: str
    measured: str
    seconds: float
    machine: dict[str, str | int | float]
    details: dict[str, object]
    lines: list[LineObject]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: our values, one for each turn, and those of a peer in the same turns.

    The ratio is always ours divided by the peer's, in the line's unit: of rates, more is better; of times, less.
    """

    name: str
    unit: str
    ours: Sequence[float] = ()
    peer: str = ""
    theirs: Sequence[float] = ()
    target: Target | None = None
    note: str = ""
    state: State = "measured"

    @property
    def ratio(self) -> float | None:
        """Ours by the peer's: the median over the turns, which both had; else the ratio of the medians."""
        if not self.ours or not self.theirs:
            return None
        if len(self.ours) == len(self.theirs):
            return median(ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True))
        return median(self.ours) / median(self.theirs)

    def verdict(self, *, judged: bool) -> Verdict:
        """Whether the target is met. A small run, `judged` False, says nothing about it."""
        if self.target is None:
            return "" if self.state == "measured" else self.state
        found = self.ratio if self.target.of == "ratio" else (median(self.ours) if self.ours else None)
        if self.state != "measured":
            return self.state
        if not judged:
            return "too small"
        if found is None:
            return "not measured"
        return "met" if self.target.holds(found) else "missed"

    def as_object(self, *, judged: bool) -> LineObject:
        """The line for JSON."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": list(self.ours),
            "ours_median": median(self.ours) if self.ours else None,
            "peer": self.peer,
            "theirs": list(self.theirs),
            "theirs_median": median(self.theirs) if self.theirs else None,
            "ratio": self.ratio,
            "target": "" if self.target is None else str(self.target),
            "verdict": self.verdict(judged=judged),
            "note": self.note,
        }


@dataclass(slots=True)
class Answer:
    """What a question found: lines for the table, and details for the JSON only."""

    lines: list[Line] = field(default_factory=list)
    details: dict[str, object] = field(default_factory=dict)


def exit_status(questions: Sequence[QuestionObject]) -> int:
    """0 where every target of these questions is met, 1 where one is missed, or nobody knows.

    Of questions asked in the quick size, which judges nothing, 0 says that all could be measured that is built.
    """
    for question in questions:
        bad = {"missed", "not measured"} | ({"not built"} if question["scale"] != "quick" else set())
        if any(line["target"] and line["verdict"] in bad for line in question["lines"]):
            return 1
    return 0


HEADINGS = ("what", "ours", "peer", "peer's", "ratio", "target", "")


def table_rows(question: QuestionObject) -> list[tuple[str, ...]]:
    """The lines of a question as texts, under HEADINGS."""
    return [
        (
            line["name"],
            _value(line["ours_median"], line["unit"]),
            line["peer"],
            _value(line["theirs_median"], line["unit"]),
            "" if line["ratio"] is None else f"{number(line['ratio'])} ×",
            line["target"],
            "; ".join(filter(None, (line["verdict"], line["note"]))),
        )
        for line in question["lines"]
    ]


def table(question: QuestionObject) -> str:
    """The lines of a question for a terminal."""
    rows = [HEADINGS, *table_rows(question)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    right = {1, 3, 4}
    return "\n".join(
        "  ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _value(value: float | None, unit: str) -> str:
    return "" if value is None else f"{number(value)} {unit}".rstrip()


def number(value: float) -> str:
    """A number with three digits that count, or all before the point: 0.0123, 1.23, 12.3, 12,345."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 3 if abs(value) < 0.1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
