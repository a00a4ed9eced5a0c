"""The metrics of a worker, where Prometheus fetches them: a small HTTP server, in threads of its own."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from prometheus_client import start_http_server

from embedq_core.cancelling import cancel
from embedq_core.errors import UsageError
from embedq_core.settings import Settings
from embedq_jobs import Queue, QueueLoad
from embedq_store import DeadLetterSummary, Store
from embedq_worker.heartbeat import HEARTBEAT_SECONDS
from embedq_worker.metrics import Seen, WorkerMetrics

_log = logging.getLogger("embedq.worker")

# What was seen longer ago is not told any more.
FRESH_SECONDS: Final = 3 * HEARTBEAT_SECONDS


@contextmanager
def exposed(host: str, port: int, settings: Settings) -> Iterator[WorkerMetrics]:
    """Metrics that can be fetched from `host` and `port` while the block runs; port 0 is any that is free.

    Raises UsageError where it can't be listened there.
    """
    metrics = WorkerMetrics(queue_bytes=settings.queue_bytes, fresh_seconds=FRESH_SECONDS)
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except OSError as error:
        raise UsageError(
            f"metrics can't be served at {where(host, port)}: {(error.strerror or str(error)).lower()}; "
            "name another place with --metrics-port (0: any port that is free) and --metrics-host"
        ) from None
    try:
        _log.info("metrics at http://%s/metrics", where(host, server.server_port))
        yield metrics
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def where(host: str, port: int) -> str:
    """Host and port, as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@asynccontextmanager
async def watched(metrics: WorkerMetrics, queue: Queue, store: Store) -> AsyncIterator[None]:
    """Look at the queue and the dead letters every few seconds while the block runs, so that `metrics` tell of them."""
    store.observe_commits(metrics.committed)
    watching = asyncio.create_task(_watch(metrics, queue, store), name="embedq-metrics")
    try:
        yield
    finally:
        await cancel([watching])


async def _watch(metrics: WorkerMetrics, queue: Queue, store: Store) -> None:
    while True:
        await look(metrics, queue, store)
        await asyncio.sleep(HEARTBEAT_SECONDS)


async def look(metrics: WorkerMetrics, queue: Queue, store: Store) -> None:
    """Look once. What can't be read now, for whatever reason, is not told."""
    loads: tuple[QueueLoad, ...] | None = None
    dead: tuple[DeadLetterSummary, ...] | None = None
    try:
        async with asyncio.timeout(HEARTBEAT_SECONDS):
            loads = tuple(await queue.loads())
    except Exception as error:
        _log.debug("the metrics of the queue can't be read: %s", error)
    try:
        dead = tuple(await store.dead.summary())
    except Exception as error:
        _log.debug("the dead letters can't be counted: %s", error)
    metrics.surroundings.see(Seen(time.time(), loads, dead))
