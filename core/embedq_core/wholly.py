"""Work that is not to be broken off in the middle, though whoever waits for it is cancelled."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

_T = TypeVar("_T")


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
