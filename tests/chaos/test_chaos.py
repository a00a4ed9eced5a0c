"""The chaos test in short: fewer items, shorter leases, and every kind of fault at least once.

`make chaos` is the long form, with three seeds, 24,000 items each and the leases of `embedq worker`.
"""

import pytest

from chaos.driver import run
from chaos.plan import Fault, Plan

SHORT = Plan(
    seed=8,
    items=1_200,
    workers=2,
    parts=1,
    chunk_items=100,
    faults={Fault.WORKER_KILL: 0.08, Fault.WORKER_TERM: 0.05, Fault.REDIS_KILL: 0.02, Fault.REDIS_TERM: 0.02},
    each_once=True,
    call_seconds=0.01,
    lease_seconds=2.0,
    recovery_seconds=7.0,
    max_seconds=50.0,
)


@pytest.mark.timeout(120)
def test_whatever_happens_to_processes_and_redis_every_item_is_stored_or_dead_once() -> None:
    verdict, tally = run(SHORT)
    assert "1,200 accepted" in verdict
    assert set(Fault) <= set(tally.events)
    assert tally.events["producer sent again"] >= 1
