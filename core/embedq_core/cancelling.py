"""Cancelling that can't be missed, and work that is not to be broken off by it."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

_AGAIN_SECONDS: Final = 0.2


async def cancel(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel `tasks` and wait until they have ended, whatever they end with, and only then be cancelled.

    Up to Python 3.11 `asyncio.wait_for`, which redis-py and arq call at every turn, forgets a cancellation that
    arrives together with its result: so it is sent again until it has been obeyed. Whoever sends it may well be told
    so again himself meanwhile, in the midst of tidying up; nobody would send it on to `tasks` any more.
    """
    left, cancelled = {task for task in tasks if not task.done()}, False
    while left:
        for task in left:
            task.cancel()
        try:
            _, left = await asyncio.wait(left, timeout=_AGAIN_SECONDS)
        except asyncio.CancelledError:
            cancelled = True
            left = {task for task in left if not task.done()}
    if cancelled:
        raise asyncio.CancelledError


async def unless(stop: asyncio.Event, work: Coroutine[object, object, None]) -> None:
    """Do `work`, which is cancelled when `stop` is set. Raises what it raises."""
    doing, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([doing, stopping], return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            await doing
    finally:
        await cancel([doing, stopping])


async def to_its_end(work: Coroutine[object, object, _T]) -> _T:
    """Do `work` whole, and only then be cancelled, however often that is asked meanwhile. Raises what it raises."""
    doing, cancelled = asyncio.create_task(work), False
    while not doing.done():
        try:
            await asyncio.wait([doing])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        if not doing.cancelled():
            # Looked at, or asyncio would print it.
            doing.exception()
        raise asyncio.CancelledError
    return doing.result()
