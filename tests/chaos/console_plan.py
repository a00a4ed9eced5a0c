"""What the chaos test of the operator's console does, act by act. The same for the same seed; a line for each act."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

COLLECTIONS: Final = ("pets", "plants")
CHUNK_ITEMS: Final = 20
# As `embedq_jobs.pauses.Scope.of` reads them. Models have a larger share: while the old one is paused and the new one
# is not, a switch finds chunks that are to be handed on.
SCOPES: Final = (
    *("all", "collection:pets", "collection:plants", "collection:pets@next"),
    *("model:one", "model:two") * 3,
)


class Act(StrEnum):
    """What an operator does, or happens to them."""

    SEND = "send"
    AGAIN = "send again"
    CANCEL = "cancel a run"
    PAUSE = "pause"
    RESUME = "resume"
    REEMBED = "re-embed"
    END = "cancel a re-embedding"
    ROLL_BACK = "roll back"
    KILL = "worker kill -9"
    TERM = "worker SIGTERM"
    DRAIN = "worker drain"
    STALL = "worker stalled"
    REDIS_KILL = "Redis kill -9"


class Step(NamedTuple):
    """One act, so many seconds after the one before. Only the fields that it needs mean anything."""

    act: Act
    after: float
    number: int
    """Which submission it is, or is about; which place among the workers."""
    collection: str
    scope: str
    high: bool
    twice: tuple[bool, ...]
    """Of each chunk that is sent, whether it is sent a second time."""

    def __str__(self) -> str:
        """A line of the printed plan."""
        match self.act:
            case Act.SEND:
                chunks = "".join("2" if twice else "1" for twice in self.twice)
                words = f"{self.number} to {self.collection}, {'high' if self.high else 'normal'}, chunks {chunks}"
            case Act.CANCEL | Act.AGAIN:
                words = f"that of submission {self.number}"
            case Act.PAUSE:
                words = self.scope
            case Act.REEMBED | Act.END | Act.ROLL_BACK:
                words = self.collection
            case Act.KILL | Act.TERM | Act.DRAIN | Act.STALL:
                words = f"in place {self.number}"
            case _:
                words = ""
        return f"+{self.after:.3f} s  {self.act} {words}".rstrip()


@dataclass(frozen=True, slots=True)
class ConsolePlan:
    """How much happens, and how often each act: shares are parts of their sum."""

    seed: int
    steps: int = 160
    workers: int = 3
    longest_pause: float = 0.1
    most_chunks: int = 6
    lease_seconds: float = 1.0
    stall_leases: float = 1.3
    """How long a worker stalls, in leases: others have its chunks by then."""
    call_seconds: float = 0.02
    """How long each call of a model takes, and a producer to think of the next chunk."""
    settle_seconds: float = 45.0
    """What is left at the end of the acts must be done in this time."""
    each_once: bool = False
    """Each act happens at least once, early."""
    shares: dict[Act, float] = field(
        default_factory=lambda: {
            Act.SEND: 41,
            Act.AGAIN: 7,
            Act.CANCEL: 6,
            Act.PAUSE: 7,
            Act.RESUME: 6,
            Act.REEMBED: 9,
            Act.END: 1,
            Act.ROLL_BACK: 6,
            Act.KILL: 7,
            Act.TERM: 3,
            Act.DRAIN: 2,
            Act.STALL: 3,
            Act.REDIS_KILL: 2,
        }
    )


def steps(plan: ConsolePlan) -> list[Step]:
    """Everything that is done, in order."""
    dice = random.Random(f"{plan.seed} console")
    submissions = 0
    found: list[Step] = []
    for act in _acts(plan, dice):
        about = submissions
        if act is Act.SEND:
            submissions += 1
        elif act in (Act.CANCEL, Act.AGAIN):
            # One of the latest: the others are over.
            about = max(submissions - dice.randint(1, 3), 0)
        else:
            about = dice.randrange(plan.workers)
        found.append(
            Step(
                act,
                dice.uniform(0, plan.longest_pause),
                about,
                dice.choice(COLLECTIONS),
                dice.choice(SCOPES),
                high=dice.random() < 0.5,
                twice=tuple(dice.random() < 0.2 for _ in range(dice.randint(1, plan.most_chunks))),
            )
        )
    return found


def _acts(plan: ConsolePlan, dice: random.Random) -> Iterator[Act]:
    certain = [act for act in Act if act is not Act.SEND] if plan.each_once else []
    dice.shuffle(certain)
    for number in range(plan.steps):
        if number == 0 or (certain and number % 2 == 0):
            # There is something to disturb before it is disturbed.
            yield Act.SEND
        elif certain:
            yield certain.pop()
        else:
            yield dice.choices(list(plan.shares), list(plan.shares.values()))[0]
