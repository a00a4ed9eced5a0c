"""What an ingest waits for, and what it does not."""

import asyncio

import pytest

from embedq.ingesting import first_of
from embedq_core.errors import ModelMisconfigured
from support.waiting import BOUND_SECONDS


async def test_a_worker_that_breaks_off_ends_an_ingest_that_misses_its_cancellation() -> None:
    """As waiting for Redis may, up to Python 3.11: what was asked came together with the cancellation."""
    missed = 0

    async def ingesting() -> None:
        nonlocal missed
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                missed += 1
                if missed == 2:
                    raise

    async def serving() -> None:
        await asyncio.sleep(0)
        raise ModelMisconfigured("the key is wrong")

    async with asyncio.timeout(BOUND_SECONDS):
        with pytest.raises(ModelMisconfigured, match="the key is wrong"):
            await first_of(asyncio.create_task(ingesting()), asyncio.create_task(serving()), asyncio.Event())
    assert missed == 2
