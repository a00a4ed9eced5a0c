"""A worker in a forked process whose model is slow, and writes down what it was given before it answers."""

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import embedq_worker.pipeline
import embedq_worker.service
from embedq_core.settings import Settings, load_settings
from embedq_jobs import open_queue
from embedq_plugins import EmbeddingModel
from embedq_store import Store
from embedq_worker.service import ServiceOptions, serve, stop_on_signals
from support import forked
from support.command_line import TESTS
from support.models import RecordingModel


class _Slow(RecordingModel):
    def __init__(self, log: Path, seconds: float) -> None:
        super().__init__("recording", batch_size=4)
        self._log = log
        self._seconds = seconds

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterable[list[float]]:
        batch = list(items)
        with self._log.open("a") as file:
            file.writelines(f"{item!s}\n" for item in batch)
        time.sleep(self._seconds)
        return super().embed_batch(batch)


def start_slow_worker(settings: Settings, log: Path, seconds: float, lease_seconds: float) -> ForkServerProcess:
    """Start one that takes `seconds` for each batch; SIGTERM stops it."""
    assert settings.redis_url is not None
    environment = {
        **os.environ,
        "EMBEDQ_DATABASE": str(settings.database),
        "EMBEDQ_REDIS_URL": str.__str__(settings.redis_url),
        # For chunks that so many workers died with that they are embedded apart.
        "EMBEDQ_PLUGINS": str(TESTS / "support" / "plugin.py"),
    }
    return forked.call(_work, environment, log, seconds, lease_seconds)


def _work(environment: Mapping[str, str], log: Path, seconds: float, lease_seconds: float) -> None:
    os.environ.clear()
    os.environ.update(environment)
    model: EmbeddingModel = _Slow(log, seconds)
    embedq_worker.service.get_embedding_model = lambda _: model  # type: ignore[assignment,attr-defined]
    embedq_worker.pipeline.FLUSH_SECONDS = 0  # type: ignore[misc]
    asyncio.run(_serve(lease_seconds))


async def _serve(lease_seconds: float) -> None:
    settings, stop = load_settings(), asyncio.Event()
    with stop_on_signals(stop):
        async with open_queue(settings) as queue, await Store.open(settings.database) as store:
            await serve(settings, ServiceOptions(lease_seconds=lease_seconds), queue, store, stop)
