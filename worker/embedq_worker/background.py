"""What goes on beside the lanes for as long as a worker runs: if it fails, that is said, and it begins again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

# Less than the time between two renewals of leases: one that is missed is nothing.
AGAIN_SECONDS: Final = 1.0

_log = logging.getLogger("embedq.worker")


async def kept_up(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do `work`, which goes on until it is cancelled, and begin it anew whenever it ends otherwise.

    Nobody waits for such tasks: one that failed would be gone unseen, and with it the leases, say.
    """
    while True:
        try:
            await work()
        except Exception:  # whatever it was, the work is wanted still
            _log.exception("%s failed in embedq itself; beginning again", what)
        await asyncio.sleep(AGAIN_SECONDS)
