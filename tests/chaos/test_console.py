"""The chaos test of the operator's console in short: one seed, few acts, each of them once at least.

`make chaos` is the long form, with eight seeds and 160 acts each.
"""

import pytest

from chaos.console_driver import run
from chaos.console_plan import Act, ConsolePlan

SHORT = ConsolePlan(
    seed=5,
    steps=26,
    workers=2,
    longest_pause=0.03,
    most_chunks=3,
    lease_seconds=0.5,
    call_seconds=0.002,
    settle_seconds=25.0,
    each_once=True,
)


@pytest.mark.timeout(90)
async def test_whatever_an_operator_does_and_whatever_dies_every_item_is_accounted_for_once() -> None:
    verdict, events = await run(SHORT)
    assert "none lost, none counted twice, no mix" in verdict
    assert set(Act) <= set(events)
