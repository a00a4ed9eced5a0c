"""A worker as `embedq worker` runs it, but with leases of its own length: the test suite can't wait for long ones."""

import asyncio
import logging
import os
import sys
from collections.abc import Mapping

from embedq_core.settings import load_settings
from embedq_jobs import open_queue
from embedq_store import Store
from embedq_worker.service import ServiceOptions, serve, stop_on_signals


def worker() -> None:
    """The program: `worker LEASE_SECONDS`."""
    asyncio.run(_serve(float(sys.argv[1])))


def work(environment: Mapping[str, str], lease_seconds: float, log: str) -> None:
    """In a process that was forked: with an environment of its own, and a log."""
    os.environ.clear()
    os.environ.update(environment)
    opened = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(opened, 2)
    os.close(opened)
    asyncio.run(_serve(lease_seconds))


async def _serve(lease_seconds: float) -> None:
    settings, stop = load_settings(), asyncio.Event()
    logging.basicConfig(level=settings.log_level.upper())
    with stop_on_signals(stop):
        async with open_queue(settings) as queue, await Store.open(settings.database) as store:
            await serve(settings, ServiceOptions(lease_seconds=lease_seconds), queue, store, stop)
