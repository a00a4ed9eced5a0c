"""What the doctor says of one thing."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple


class Verdict(StrEnum):
    """How good or bad something is."""

    ok = "ok"
    warn = "warn"
    fail = "fail"


class Finding(NamedTuple):
    """One line of the doctor's: how it is, what it is about, what was seen, and what to do about it."""

    verdict: Verdict
    what: str
    detail: str
    mend: str = ""


def some(names: Sequence[str]) -> str:
    """The first three, and whether there are more."""
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
