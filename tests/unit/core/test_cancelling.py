"""Cancelling that can't be missed, and work that is not broken off by it."""

import asyncio
import gc

import pytest

from embedq_core.cancelling import cancel, to_its_end


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


async def test_whoever_is_cancelled_while_cancelling_others_has_seen_them_end() -> None:
    go_on = asyncio.Event()

    async def tidying_up() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await to_its_end(go_on.wait())

    task = asyncio.create_task(tidying_up())
    await asyncio.sleep(0)
    cancelling = asyncio.create_task(cancel([task]))
    for _ in range(3):
        await asyncio.sleep(0)
        cancelling.cancel()
    await asyncio.sleep(0)
    assert not cancelling.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await cancelling
    assert task.cancelled()


async def test_it_gives_what_the_work_gives_and_raises_what_it_raises() -> None:
    async def seven() -> int:
        return 7

    async def failing() -> None:
        raise ValueError("no")

    assert await to_its_end(seven()) == 7
    with pytest.raises(ValueError, match="no"):
        await to_its_end(failing())


@pytest.mark.parametrize("fails", [False, True])
async def test_the_work_ends_first_however_often_who_waits_is_cancelled(fails: bool) -> None:
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    go_on, ended = asyncio.Event(), False

    async def work() -> None:
        nonlocal ended
        await go_on.wait()
        ended = True
        if fails:
            raise ValueError

    waiting = asyncio.create_task(to_its_end(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended
    gc.collect()
    assert complaints == []
