"""What comes next in a re-embedding: decided here from what is known of it, done in `embedq_worker.reembedding`."""

from dataclasses import dataclass
from typing import Final, TypeAlias

from embedq_core.text import plural, shown
from embedq_jobs import RunSummary
from embedq_store import Coverage, Reembedding
from embedq_worker.golden import Verdict

# Where the new model fails on more than this share of the entries, somebody has to look before they are given up.
MOST_DEAD: Final = 0.1
# What may be missing before the switch begins, as a share of the entries and at most.
NEARLY: Final = 0.01
FEW: Final = 2048
# And after a run that was queued and done whole: what is missing then came while it went on.
LATE: Final = 0.1
FEW_LATE: Final = 128


@dataclass(frozen=True, slots=True)
class Wait:
    """There is nothing to do yet: a run is going on."""


@dataclass(frozen=True, slots=True)
class QueueMissing:
    """Queue what has no vector of the new model yet."""


@dataclass(frozen=True, slots=True)
class CheckGolden:
    """Ask the golden queries of both models' vectors."""


@dataclass(frozen=True, slots=True)
class Switch:
    """Let the new vectors take the place of the old."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Leave it until somebody has looked at it: `reason` says why, and what to do."""

    reason: str


Step: TypeAlias = Wait | QueueMissing | CheckGolden | Switch | Stop


def is_going_on(run: RunSummary | None) -> bool:
    """Whether chunks of a run are still to be worked off. One that the ledger has forgotten is over."""
    return run is not None and run.chunks_done < run.chunks


def next_step(reembedding: Reembedding, coverage: Coverage, run: RunSummary | None, *, passed: bool) -> Step:
    """What comes next. `run` is its latest one, None before the first and where the ledger has forgotten it; `passed`
    says whether the golden check has been passed.
    """
    if is_going_on(run):
        return Wait()
    if run is not None and run.state == "cancelled":
        return Stop(f"its run {run.run.id} was cancelled: {_again(reembedding)} goes on, --cancel ends it")
    problem = _obstacle(reembedding, coverage, run)
    if problem is not None:
        return problem
    if not _is_nearly_covered(coverage, run):
        return QueueMissing()
    checked = passed or accepted(reembedding) or reembedding.golden is None
    return Switch() if checked else CheckGolden()


def _is_nearly_covered(coverage: Coverage, run: RunSummary | None) -> bool:
    """Whether nothing is missing, or what came in the last moments: in a collection that is written to without pause
    something always is. That is embedded right before the switch.
    """
    few = min(coverage.entries * NEARLY, FEW)
    if run is not None and run.state == "complete":
        few = max(few, min(coverage.entries * LATE, FEW_LATE))
    return coverage.missing <= few


def accepted(reembedding: Reembedding) -> bool:
    """Whether somebody takes the new vectors as they are: a recall of nothing is required of them."""
    return reembedding.recall == 0


def after_check(reembedding: Reembedding, verdict: Verdict) -> Stop | None:
    """What follows a golden check; None where it was passed."""
    if not verdict.reason:
        return None
    return Stop(f"{verdict.reason}. To switch all the same: {_again(reembedding, ' --accept')}")


def cannot_be_covered(missing: int) -> Stop:
    """What follows where entries that were queued are done, and missing all the same: it would go on for ever."""
    count = plural(missing, "entry", "entries")
    return Stop(f"{count} can't be covered, as other content is stored than was embedded: submit the source again")


def _obstacle(reembedding: Reembedding, coverage: Coverage, run: RunSummary | None) -> Stop | None:
    """Why it can't go on by itself."""
    again = _again(reembedding)
    if coverage.without_content:
        count = plural(coverage.without_content, "entry", "entries")
        return Stop(f"the contents of {count} were not stored: submit the source again with --store, then {again}")
    if coverage.missing and run is not None and 0 < run.items <= min(run.counts.unchanged, coverage.missing):
        return cannot_be_covered(coverage.missing)
    if _is_nearly_covered(coverage, run) and coverage.dead > coverage.entries * MOST_DEAD and not accepted(reembedding):
        return Stop(
            f"{reembedding.new_model} failed on {coverage.dead:,} of {plural(coverage.entries, 'entry', 'entries')}: "
            f"see 'embedq dead list --collection {shown(reembedding.next_name)}'; requeue them, then {again}, or do "
            f"without them: {_again(reembedding, ' --accept')}"
        )
    return None


def _again(reembedding: Reembedding, option: str = "") -> str:
    return f"'embedq reembed {shown(reembedding.collection)} -m {shown(reembedding.new_model)}{option}'"
