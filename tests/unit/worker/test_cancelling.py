"""Cancelling that can't be missed."""

import asyncio

from embedq_worker.cancelling import cancel


async def test_a_task_that_misses_a_cancellation_is_cancelled_again() -> None:
    missed = 0

    async def deaf() -> None:
        nonlocal missed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                missed += 1
                if missed == 2:
                    raise

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await cancel([task])
    assert task.cancelled()
    assert missed == 2


async def test_it_returns_when_all_have_ended_whatever_they_ended_with() -> None:
    async def failing() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError

    async def done() -> None:
        return

    tasks = [asyncio.create_task(failing()), asyncio.create_task(done())]
    await asyncio.sleep(0)
    await cancel(tasks)
    assert isinstance(tasks[0].exception(), ValueError)
    assert not tasks[1].cancelled()
