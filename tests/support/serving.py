"""A worker in a forked process, as `embedq worker` runs one, with a lease as short as a test needs it."""

import asyncio
import os
import resource
import signal
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from multiprocessing.context import ForkServerProcess
from typing import Any, TypeAlias

import embedq_worker.outbox
from embedq_core.settings import Settings, load_settings
from embedq_jobs import Chunk, open_queue
from embedq_jobs.forwarding import Forwarding
from embedq_store import Store
from embedq_worker.service import ServiceOptions, serve, stop_on_signals
from support import forked
from support.clocks import MovedClock
from support.command_line import TESTS

_Forward: TypeAlias = Callable[[Forwarding, Chunk, str], Coroutine[Any, Any, bool]]


def start_worker(
    settings: Settings,
    lease_seconds: float,
    *,
    kill_at: str | None = None,
    kill_after_handing_on: bool = False,
    file_size: int | None = None,
    clock_at: float | None = None,
    **environment: str,
) -> ForkServerProcess:
    """Start a worker with the tests' models; SIGTERM stops it.

    It kills itself when it begins the SQL statement `kill_at`, or when Redis has answered that a chunk is in the queue
    of another model. The system refuses to let its files grow beyond `file_size`, until it is sent SIGUSR1. With
    `clock_at` it runs what schedules owe by a clock that stands there.
    """
    assert settings.redis_url is not None
    given = {
        "EMBEDQ_PLUGINS": str(TESTS / "support" / "plugin.py"),
        **os.environ,
        "EMBEDQ_DATABASE": str(settings.database),
        "EMBEDQ_REDIS_URL": str.__str__(settings.redis_url),
        **environment,
    }
    return forked.call(_work, given, lease_seconds, kill_at, kill_after_handing_on, file_size, clock_at)


def _work(
    environment: Mapping[str, str],
    lease_seconds: float,
    kill_at: str | None,
    kill_after_handing_on: bool,
    file_size: int | None,
    clock_at: float | None,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    if file_size is not None:
        _bound_files(file_size)
    options = ServiceOptions(lease_seconds=lease_seconds)
    if clock_at is not None:
        options = replace(options, schedules=True, clock=MovedClock.at(clock_at))
    if kill_after_handing_on:
        Forwarding.forward = _forwarding_and_dying(Forwarding.forward)  # type: ignore[assignment,method-assign]
    asyncio.run(_serve(options, kill_at))


def _forwarding_and_dying(forward: _Forward) -> _Forward:
    async def forwarding(self: Forwarding, chunk: Chunk, from_model: str) -> bool:
        await forward(self, chunk, from_model)
        os.kill(os.getpid(), signal.SIGKILL)
        return True

    return forwarding


def _bound_files(size: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGUSR1, lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))
    # The signal that comes with the refusal is ignored, as Python does by itself.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    embedq_worker.outbox.WRITE_AGAIN_SECONDS = 0.05  # type: ignore[misc]


async def _serve(options: ServiceOptions, kill_at: str | None) -> None:
    settings, stop = load_settings(), asyncio.Event()
    with stop_on_signals(stop):
        async with open_queue(settings) as queue, await Store.open(settings.database) as store:
            if kill_at is not None:
                await _kill_at(kill_at, store)
            await serve(settings, options, queue, store, stop)


async def _kill_at(statement: str, store: Store) -> None:
    def trace(begun: str) -> None:
        if begun.startswith(statement):
            os.kill(os.getpid(), signal.SIGKILL)

    assert store._access.writing is not None
    await store._access.writing.set_trace_callback(trace)
