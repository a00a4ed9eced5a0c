"""What goes on beside the lanes, though it fails."""

import asyncio
import logging

import pytest

from embedq_core.cancelling import cancel
from embedq_worker import background
from embedq_worker.background import kept_up
from support.waiting import BOUND_SECONDS


@pytest.mark.parametrize("ends", ["well", "with an error"])
async def test_what_ends_is_begun_again_until_it_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ends: str
) -> None:
    monkeypatch.setattr(background, "AGAIN_SECONDS", 0)
    begun, goes_on = 0, asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 3:
            goes_on.set()
            await asyncio.sleep(BOUND_SECONDS)
        if ends == "with an error":
            raise ZeroDivisionError(f"number {begun}")

    working = asyncio.create_task(kept_up("the leases", work))
    async with asyncio.timeout(BOUND_SECONDS):
        await goes_on.wait()
    await cancel([working])
    assert working.cancelled()
    assert begun == 3
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failures) == (2 if ends == "with an error" else 0)
    assert all(record.message == "the leases failed in embedq itself; beginning again" for record in failures)
