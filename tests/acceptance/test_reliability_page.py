"""docs/reliability.md names tests that are there, and numbers that are so."""

import re
from pathlib import Path

from chaos.console_plan import Act, ConsolePlan
from chaos.plan import COLLECTIONS, Fault, Plan
from embedq_worker.failures import PATIENCE
from embedq_worker.leases import LEASE_SECONDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()


def test_every_test_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`(tests/[\w/.]+)`", PAGE))
    assert len(named) > 10
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_the_figures_of_the_chaos_test_are_those_of_its_plan() -> None:
    plan, flat = Plan(1), " ".join(PAGE.split())
    faults = plan.faults
    for words in (
        f"{plan.items:,} items in {plan.parts * len(COLLECTIONS)} files to {len(COLLECTIONS)} collections",
        f"{len(set(COLLECTIONS.values()))} models, with {plan.producers} producers and {plan.workers} worker processes",
        f"kill -9 of a worker {faults[Fault.WORKER_KILL]:.0%}".replace("%", " %"),
        f"SIGTERM {faults[Fault.WORKER_TERM]:.0%}".replace("%", " %"),
        f"Redis {faults[Fault.REDIS_KILL] + faults[Fault.REDIS_TERM]:.0%}".replace("%", " %"),
        f"Of the items {plan.poisoned:.0%} are".replace("%", " %"),
        f"one model {plan.transient:.0%} lose".replace("%", " %"),
        f"{plan.producers_killed:.0%} of the producers".replace("%", " %"),
        f"above {plan.recovery_seconds:.0f} seconds it fails",
        f"leases live {LEASE_SECONDS} seconds",
    ):
        assert words in flat, words
    assert PATIENCE == 5
    assert "tried five times" in flat


def test_the_figures_of_the_chaos_test_of_the_console_are_those_of_its_plan() -> None:
    plan, flat = ConsolePlan(1), " ".join(PAGE.split())
    shares = plan.shares
    assert sum(shares.values()) == 100
    assert set(shares) == set(Act)
    for words in (
        f"{plan.steps} acts, up to {plan.longest_pause} s after each other",
        f"{shares[Act.SEND]} send a run of up to {plan.most_chunks} chunks",
        f"{shares[Act.AGAIN]} send all of one again",
        f"{shares[Act.CANCEL]} cancel one of the latest runs; {shares[Act.PAUSE]} pause something,",
        f"{shares[Act.RESUME]} resume all; {shares[Act.REEMBED]} re-embed",
        f"{shares[Act.END]} cancel that, {shares[Act.ROLL_BACK]} roll back",
        f"{shares[Act.KILL]} kill -9 one of {plan.workers} workers, {shares[Act.TERM]} send it SIGTERM",
        f"{shares[Act.DRAIN]} drain it, {shares[Act.STALL]} have it stall",
        f"than its leases; {shares[Act.REDIS_KILL]} kill -9 Redis",
    ):
        assert words in flat, words
