"""Running worker processes from the command line."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

from embedq_core.errors import UsageError
from embedq_core.settings import Settings, load_settings
from embedq_core.text import plural
from embedq_jobs import open_queue
from embedq_jobs.checks import server_warnings
from embedq_plugins import plugin_problems
from embedq_store import Store
from embedq_worker.service import ServiceOptions, serve, stop_on_signals

_log = logging.getLogger("embedq.worker")

# A worker process that ends at once is started again, but not in a busy loop.
RESTART_SECONDS: Final = 1.0


def run_worker(
    models: tuple[str, ...], *, burst: bool, processes: int, grace_seconds: float, database: Path | None
) -> None:
    """Run a worker in this process, or `processes` of them below it."""
    settings = load_settings(database=database)
    _log_to_stderr(settings)
    if processes > 1:
        sys.exit(_run_processes(processes, settings))
    asyncio.run(_run(settings, ServiceOptions(models, burst, grace_seconds, schedules=True)))
    logging.shutdown()
    if threading.active_count() > 1:
        # A call of a model that did not end within the grace can't be stopped, and Python would wait for it.
        os._exit(0)


def _log_to_stderr(settings: Settings) -> None:
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )


async def _run(settings: Settings, options: ServiceOptions) -> None:
    for problem in plugin_problems():
        _log.warning("plugin %s: %s", problem.plugin, problem.message)
    stop = asyncio.Event()
    with stop_on_signals(stop):
        async with (
            open_queue(settings) as queue,
            await Store.open(settings.database, busy_seconds=settings.busy_seconds) as store,
        ):
            for warning in await server_warnings(queue):
                _log.warning("%s", warning)
            _log.info("worker %d: queue at %s, database %s", os.getpid(), queue.where, settings.database)
            await serve(settings, options, queue, store, stop)
    _log.info("worker %d: stopped", os.getpid())


def _run_processes(count: int, settings: Settings) -> int:
    """Keep `count` worker processes running until a signal says stop, or in a burst until each has ended."""
    arguments = _without_processes(sys.argv[1:])
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    _log.info("%s, database %s", plural(count, "worker process", "worker processes"), settings.database)
    children = [_start(arguments) for _ in range(count)]
    failed = False
    while children:
        stopped = stopping.wait(0.1)
        if stopped:
            break
        for child in [child for child in children if child.poll() is not None]:
            children.remove(child)
            if child.returncode == UsageError.exit_code:
                # Another one would end the same way; it has said why.
                failed = True
                stopping.set()
            elif child.returncode != 0:
                _log.warning("worker %d ended with %d; starting another", child.pid, child.returncode)
                time.sleep(RESTART_SECONDS)
                children.append(_start(arguments))
    for child in children:
        child.send_signal(signal.SIGTERM)
    for child in children:
        # One that was still starting has died of the signal.
        failed = child.wait() not in (0, -signal.SIGTERM) or failed
    return int(failed)


def _start(arguments: list[str]) -> "subprocess.Popen[bytes]":
    # A process group of its own: Ctrl-C reaches the workers once, from us.
    return subprocess.Popen([sys.executable, "-m", "embedq", *arguments], start_new_session=True)  # noqa: S603


def _without_processes(arguments: list[str]) -> list[str]:
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--processes":
            next(rest, None)
        elif not argument.startswith("--processes="):
            kept.append(argument)
    return kept
