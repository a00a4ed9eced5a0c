"""What `embedq ingest` does when all is stored: searches are prepared, and Ctrl-C leaves that to the first one."""

import asyncio

import pytest

from embedq import ingesting
from embedq_core.items import Item
from embedq_core.settings import Settings
from embedq_core.vectors import encode
from embedq_jobs import Queue
from embedq_producer.terminal import Figures
from embedq_store import Incoming, Row, Store, Target, Write, rows
from support.waiting import BOUND_SECONDS


class Lines:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def show(self, figures: Figures) -> None:
        raise AssertionError(figures)

    def line(self, text: str) -> None:
        self.lines.append(text)


async def test_an_interruption_ends_it_at_once(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def without_end(_: rows.CollectionRows) -> bool:
        begun.set()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    monkeypatch.setattr(rows, "RESIDENT_BYTES", 10)
    monkeypatch.setattr(rows.CollectionRows, "extend_copy", without_end)
    monkeypatch.setattr(ingesting, "QUIET_SECONDS", 0.0)
    opened: list[Store] = []

    async def serving(_settings: Settings, _options: object, _queue: Queue, store: Store, stop: asyncio.Event) -> None:
        opened.append(store)
        await stop.wait()

    monkeypatch.setattr(ingesting, "serve", serving)
    stop, shown_on = asyncio.Event(), Lines()
    async with asyncio.timeout(BOUND_SECONDS), ingesting.working(settings, queue, shown_on, stop):
        await asyncio.sleep(0)
        (incoming,) = Incoming.of([Item("a", "hound")])
        await opened[0].write(Write(Target("pets", "recording"), [Row(*incoming, encode([1.0] * 8))]))

        async def interrupt() -> None:
            await begun.wait()
            stop.set()

        interrupting = asyncio.create_task(interrupt())
    await interrupting
    assert ["preparing" in line for line in shown_on.lines] == [True]
