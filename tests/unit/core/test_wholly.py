"""Work that is not to be broken off in the middle."""

import asyncio
import gc

import pytest

from embedq_core.wholly import to_its_end


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
