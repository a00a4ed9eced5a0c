"""Watching what is being queued."""

import asyncio

from embedq_core.cancelling import cancel
from embedq_producer.submitting import watch
from embedq_producer.terminal import Figures


class Blind:
    """A display that nobody looks at."""

    def show(self, figures: Figures) -> None:
        """Show nothing."""

    def line(self, text: str) -> None:
        """Print nothing."""


async def test_what_nobody_watches_any_more_has_ended() -> None:
    begun = asyncio.Event()

    async def queueing() -> None:
        begun.set()
        await asyncio.sleep(3600)

    sending = asyncio.create_task(queueing())
    watching = asyncio.create_task(watch(sending, Blind(), lambda: Figures(0, None)))
    await begun.wait()
    await cancel([watching])
    assert sending.cancelled()
