"""A worker as `embedq worker` runs it, but with leases of its own length: the test suite can't wait for long ones."""

import asyncio
import logging
import sys

from embedq_core.settings import load_settings
from embedq_jobs import open_queue
from embedq_store import Store
from embedq_worker.service import ServiceOptions, serve, stop_on_signals


def worker() -> None:
    """The program: `worker LEASE_SECONDS`."""
    asyncio.run(_work(float(sys.argv[1])))


async def _work(lease_seconds: float) -> None:
    settings, stop = load_settings(), asyncio.Event()
    logging.basicConfig(level=settings.log_level.upper())
    with stop_on_signals(stop):
        async with open_queue(settings) as queue, await Store.open(settings.database) as store:
            await serve(settings, ServiceOptions(lease_seconds=lease_seconds), queue, store, stop)
