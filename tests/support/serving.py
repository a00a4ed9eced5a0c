"""A worker in a forked process, as `embedq worker` runs one, with a lease as short as a test needs it."""

import asyncio
import os
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess

from embedq_core.settings import Settings, load_settings
from embedq_jobs import open_queue
from embedq_store import Store
from embedq_worker.service import ServiceOptions, serve, stop_on_signals
from support import forked


def start_worker(settings: Settings, lease_seconds: float, **environment: str) -> ForkServerProcess:
    """Start a worker; SIGTERM stops it."""
    assert settings.redis_url is not None
    given = {
        **os.environ,
        "EMBEDQ_DATABASE": str(settings.database),
        "EMBEDQ_REDIS_URL": str.__str__(settings.redis_url),
        **environment,
    }
    return forked.call(_work, given, lease_seconds)


def _work(environment: Mapping[str, str], lease_seconds: float) -> None:
    os.environ.clear()
    os.environ.update(environment)
    asyncio.run(_serve(lease_seconds))


async def _serve(lease_seconds: float) -> None:
    settings, stop = load_settings(), asyncio.Event()
    with stop_on_signals(stop):
        async with open_queue(settings) as queue, await Store.open(settings.database) as store:
            await serve(settings, ServiceOptions(lease_seconds=lease_seconds), queue, store, stop)
