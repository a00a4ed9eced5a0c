"""What a chaos test does: how much, to whom, and when. The same for the same seed."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

# Collection → model.
COLLECTIONS: Final = {"alpha": "steady", "beta": "shaky", "gamma": "steady"}

CAST_SECONDS: Final = 0.25

Row: TypeAlias = dict[str, Any]


class Fault(StrEnum):
    """What the die may bring."""

    WORKER_KILL = "worker kill -9"
    WORKER_TERM = "worker SIGTERM"
    REDIS_KILL = "Redis kill -9"
    REDIS_TERM = "Redis restart"


@dataclass(frozen=True)
class Plan:
    """How much is done, and what goes wrong. Shares are probabilities: of a cast, an item, a call, a producer."""

    seed: int
    items: int = 24_000
    workers: int = 3
    producers: int = 2
    parts: int = 4
    """Files of each collection: each is submitted as a run of its own."""
    chunk_items: int = 256
    faults: dict[Fault, float] = field(
        default_factory=lambda: {
            Fault.WORKER_KILL: 0.08,
            Fault.WORKER_TERM: 0.05,
            Fault.REDIS_KILL: 0.01,
            Fault.REDIS_TERM: 0.01,
        }
    )
    each_once: bool = False
    """Each fault happens at least once, early, whatever the die says."""
    poisoned: float = 0.02
    transient: float = 0.05
    producers_killed: float = 0.15
    call_seconds: float = 0.0
    """How long each call of a model takes."""
    lease_seconds: float | None = None
    """None: `embedq worker`, with the lease that it has."""
    recovery_seconds: float = 20.0
    """The longest that a killed worker's chunk may wait for its next holder."""
    max_seconds: float = 600.0


class Cast(NamedTuple):
    """One cast of the die. `victim` is a place among the workers."""

    fault: Fault | None
    victim: int


class Part(NamedTuple):
    """A file of a collection, and what is in it."""

    collection: str
    number: int
    rows: list[Row]


def casts(plan: Plan) -> Iterator[Cast]:
    """What the die brings, for ever."""
    dice = random.Random(f"{plan.seed} faults")
    certain = list(Fault) if plan.each_once else []
    dice.shuffle(certain)
    for number in itertools.count():
        roll, victim = dice.random(), dice.randrange(plan.workers)
        if certain and number % 3 == 0:
            yield Cast(certain.pop(), victim)
        else:
            yield Cast(_fault(plan, roll), victim)


def _fault(plan: Plan, roll: float) -> Fault | None:
    for fault, share in plan.faults.items():
        if roll < share:
            return fault
        roll -= share
    return None


def ends_of_producers(plan: Plan) -> Iterator[float | None]:
    """For each producer in turn, after how many seconds it is killed, if it is."""
    dice = random.Random(f"{plan.seed} producers")
    for number in itertools.count():
        roll, seconds = dice.random(), dice.uniform(0.8, 2.0)
        yield seconds if roll < plan.producers_killed or (plan.each_once and number == 1) else None


def corpus(plan: Plan) -> list[Part]:
    """What is sent: contents that repeat at times, metadata on some, poison in some."""
    dice = random.Random(f"{plan.seed} corpus")
    rows: dict[str, list[Row]] = {name: [] for name in COLLECTIONS}
    for number in range(plan.items):
        name = list(COLLECTIONS)[number % len(COLLECTIONS)]
        text = f"text {number if dice.random() < 0.95 else number // 50} of {name} é\n"
        if dice.random() < plan.poisoned:
            text += "poison"
        row: Row = {"id": f"{name}/{number}", "content": text}
        if dice.random() < 0.3:
            row["metadata"] = {"number": number, "half": number / 2, "name": name}
        rows[name].append(row)
    return [
        Part(name, part, of_collection[part :: plan.parts])
        for name, of_collection in rows.items()
        for part in range(plan.parts)
    ]
