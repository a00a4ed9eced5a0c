"""What an audit found, as facts, and in words. Nothing here reads or changes anything."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from embedq_core.text import plural, shown
from embedq_store import Findings, Flawed

# Of one model, the same text may come out a little otherwise on another machine or in another batch; not as much.
SIMILAR: Final = 0.99

# Where so much of a sample has drifted, the collection has, and not some of its entries.
DRIFTED_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Compared:
    """An entry of the sample, and how much its vector resembles what the model makes of its content now."""

    id: str
    similarity: float
    digest: bytes


@dataclass(frozen=True, slots=True)
class Trial:
    """A sample that was embedded anew, the least similar first; `dimension` is that of the new vectors."""

    seed: int
    dimension: int
    compared: list[Compared]

    @property
    def drifted(self) -> list[Compared]:
        """Those that are not similar."""
        return [entry for entry in self.compared if entry.similarity < SIMILAR]


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit found. `differences` are between the recorded configuration and the model's; `model_problem` is
    why the model could not be asked, if it could not.
    """

    collection: str
    model_id: str
    findings: Findings
    differences: list[str]
    model_problem: str | None
    trial: Trial | None

    @property
    def drifted(self) -> list[Compared]:
        """Entries of the sample that the model now embeds otherwise."""
        return [] if self.trial is None else self.trial.drifted

    @property
    def flawed(self) -> list[Flawed]:
        """Rows with problems, by problem."""
        return list(self.findings.problems.values())

    @property
    def wrong(self) -> int:
        """How many entries are known to be wrong."""
        return sum(flawed.entries for flawed in self.flawed) + len(self.drifted)

    @property
    def without_content(self) -> int:
        """How many of them can't be embedded anew from here."""
        return sum(flawed.without_content for flawed in self.flawed)

    @property
    def as_a_whole(self) -> str | None:
        """What is wrong with the collection as a whole, if anything is: no repair of entries mends it."""
        anew = f"'embedq reembed {shown(self.collection)} --force' embeds all of it anew"
        if self.model_problem is not None:
            return self.model_problem
        if self.differences:
            return f"it was embedded with another configuration of {shown(self.model_id)}: {anew}"
        if self.findings.entries and self.findings.dimension is None:
            return f"no entry has a vector: {anew}"
        trial = self.trial
        if trial is not None and trial.compared and trial.dimension != self.findings.dimension:
            return f"the model now returns vectors of {trial.dimension} dimensions: {anew}"
        if trial is not None and len(self.drifted) > len(trial.compared) * DRIFTED_SHARE:
            return f"the model now embeds most of the sample otherwise: {anew}"
        return None

    @property
    def well(self) -> bool:
        """Nothing is wrong."""
        return not self.wrong and self.as_a_whole is None


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done about it: entries cleared and queued; those without content wait for their source, `unreadable`
    ones hold text that is no UTF-8.
    """

    run: str | None
    cleared: int
    queued: int
    without_content: int
    unreadable: int


def as_object(report: Report, repair: Repair | None) -> dict[str, Any]:
    """For JSON. `repair` is null where nothing was done."""
    findings, trial = report.findings, report.trial
    return {
        "collection": report.collection,
        "model": report.model_id,
        "ok": report.well,
        "wrong": report.wrong,
        "as_a_whole": report.as_a_whole,
        "entries": findings.entries,
        "dimension": findings.dimension,
        "without_content": findings.unchecked,
        "zero_vectors": findings.zeros,
        "configuration": report.differences,
        "problems": {problem.value: asdict(flawed) for problem, flawed in sorted(findings.problems.items())},
        "sample": None
        if trial is None
        else {
            "size": len(trial.compared),
            "seed": trial.seed,
            "dimension": trial.dimension,
            "lowest": min((entry.similarity for entry in trial.compared), default=None),
            "threshold": SIMILAR,
            "below": [{"id": entry.id, "similarity": entry.similarity} for entry in trial.drifted],
        },
        "repair": None if repair is None else asdict(repair),
    }


def as_words(report: Report) -> list[tuple[str, str]]:
    """For people."""
    findings = report.findings
    dimension = "" if findings.dimension is None else f", {findings.dimension} dimensions"
    lines = [
        ("collection", report.collection),
        ("model", report.model_id),
        ("entries", f"{findings.entries:,}{dimension}"),
    ]
    lines += [
        ("wrong", f"{flawed.entries:,} with {problem.words}: {_listed(flawed.ids, flawed.entries)}")
        for problem, flawed in sorted(findings.problems.items())
    ]
    if findings.unchecked:
        lines.append(("unchecked", f"{plural(findings.unchecked, 'hash', 'hashes')} of what has no content"))
    if findings.zeros:
        lines.append(("note", plural(findings.zeros, "vector of zeros", "vectors of zeros")))
    lines += [("configured", text) for text in report.differences]
    lines += _sample_words(report.trial)
    return [*lines, ("result", _result(report))]


def _sample_words(trial: Trial | None) -> list[tuple[str, str]]:
    if trial is None or not trial.compared:
        return [("sample", "none")]
    lowest = trial.compared[0]
    count = plural(len(trial.compared), "entry", "entries")
    words = f"{count} embedded anew, similarity {lowest.similarity:.4f} and more (seed {trial.seed})"
    lines = [("sample", words)]
    if trial.drifted:
        ids = [f"{entry.id} ({entry.similarity:.4f})" for entry in trial.drifted[:5]]
        lines.append(("drifted", f"{len(trial.drifted):,} below {SIMILAR}: {_listed(ids, len(trial.drifted))}"))
    return lines


def _result(report: Report) -> str:
    if report.as_a_whole is not None:
        return report.as_a_whole
    if report.wrong:
        words = f"wrong: {plural(report.wrong, 'entry', 'entries')}"
        if report.wrong > report.without_content:
            words += "; --repair embeds anew what has content"
        if report.without_content:
            words += f"; {report.without_content:,} without content: repair, then submit the source again"
        return words
    return "all well"


def _listed(ids: Sequence[str], of: int) -> str:
    return ", ".join(ids) + (", …" if of > len(ids) else "")
