"""Running worker processes from the command line."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO, Final

from embedq_core.errors import EmbedqError, UsageError
from embedq_core.settings import MOST_PORT, Settings
from embedq_core.text import plural
from embedq_jobs import Queue, open_queue
from embedq_jobs.checks import server_warnings
from embedq_plugins import plugin_problems
from embedq_store import Store
from embedq_worker.logs import endings_logged, log_to_stderr
from embedq_worker.service import ServiceOptions, serve, stop_on_signals
from embedq_worker.telemetry import NOBODY, Telemetry
from embedq_worker.work_done import WorkDone, tell, told_at_the_end

if TYPE_CHECKING:
    # Imported by those who are asked for metrics.
    from embedq_worker.metrics import WorkerMetrics

_log = logging.getLogger("embedq.worker")

# A worker process that ends at once is started again, but not in a busy loop.
RESTART_SECONDS: Final = 1.0


def run_worker(settings: Settings, options: ServiceOptions, *, processes: int, as_json: bool) -> None:
    """Run a worker in this process, or `processes` of them below it; with `as_json`, print what was done at the end.

    Raises UsageError for a port that is taken.
    """
    log_to_stderr(settings)
    with endings_logged(settings):
        if processes > 1:
            sys.exit(_run_processes(processes, settings, burst=options.burst, as_json=as_json))
        with _metrics(settings) as metrics:
            measured: Telemetry = metrics or NOBODY
            with told_at_the_end(settings, measured) if as_json else nullcontext(measured) as telemetry:
                asyncio.run(_run(settings, options, metrics, telemetry))
    logging.shutdown()
    if threading.active_count() > 1:
        # A call of a model that did not end within the grace can't be stopped, and Python would wait for it.
        os._exit(0)


@contextmanager
def _metrics(settings: Settings) -> Iterator["WorkerMetrics | None"]:
    if settings.metrics_port is None:
        yield None
        return
    from embedq_worker.exposition import exposed

    with exposed(settings.metrics_host, settings.metrics_port, settings) as metrics:
        yield metrics


async def _run(
    settings: Settings, options: ServiceOptions, metrics: "WorkerMetrics | None", telemetry: Telemetry
) -> None:
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
            async with _watched(metrics, queue, store):
                await serve(settings, options, queue, store, stop, telemetry)
    _log.info("worker %d: stopped", os.getpid())


def _watched(metrics: "WorkerMetrics | None", queue: Queue, store: Store) -> AbstractAsyncContextManager[None]:
    if metrics is None:
        return contextlib.nullcontext()
    from embedq_worker.exposition import watched

    return watched(metrics, queue, store)


def _run_processes(count: int, settings: Settings, *, burst: bool, as_json: bool) -> int:
    """Keep processes running as `_keep_running` does; with `as_json`, print what they have done, all together."""
    began = time.time()
    outputs = _Outputs(kept=as_json)
    code = _keep_running(count, settings, outputs, burst=burst)
    if as_json and code != UsageError.exit_code:
        tell(WorkDone(NOBODY).report(settings, began).with_parts(outputs.told))
    return code


class _Outputs:
    """What the processes print: `kept` from whoever reads what this one prints, or printed where it prints."""

    def __init__(self, *, kept: bool) -> None:
        self._kept = kept
        self._files: dict[subprocess.Popen[bytes], BinaryIO] = {}
        self.told: list[bytes] = []
        """What each of those that have ended has printed."""

    def start(self, arguments: list[str]) -> "subprocess.Popen[bytes]":
        """Start a process. What is kept goes to a file: nobody would read a pipe while the process lives."""
        if not self._kept:
            return _start(arguments, None)
        file = TemporaryFile()  # noqa: SIM115 - it is there for as long as the process
        child = _start(arguments, file)
        self._files[child] = file
        return child

    def take(self, child: "subprocess.Popen[bytes]") -> None:
        """Take what a process has printed that has ended."""
        if not self._kept:
            return
        with self._files.pop(child) as file:
            file.seek(0)
            self.told.append(file.read())


def _keep_running(count: int, settings: Settings, outputs: _Outputs, *, burst: bool) -> int:
    """Keep `count` worker processes running until a signal says stop, or in a burst until each has ended.

    Return the exit code: that of a usage error, where one of them had one. In a burst, a process that ends with an
    error has said what it left, and why: another one would do the same.
    """
    commands = [_without_processes(sys.argv[1:]) + port for port in _metrics_ports(count, settings)]
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    _log.info("%s, database %s", plural(count, "worker process", "worker processes"), settings.database)
    children = {outputs.start(command): command for command in commands}
    failed = misused = False
    while children:
        stopped = stopping.wait(0.1)
        if stopped:
            break
        for child in [child for child in children if child.poll() is not None]:
            command = children.pop(child)
            outputs.take(child)
            if child.returncode == UsageError.exit_code:
                # Another one would end the same way; it has said why.
                misused = True
                stopping.set()
            elif burst and child.returncode == EmbedqError.exit_code:
                failed = True
            elif child.returncode != 0:
                _log.warning("worker %d ended with %d; starting another", child.pid, child.returncode)
                time.sleep(RESTART_SECONDS)
                children[outputs.start(command)] = command
    for child in children:
        child.send_signal(signal.SIGTERM)
    for child in children:
        # One that was still starting has died of the signal.
        failed = child.wait() not in (0, -signal.SIGTERM) or failed
        outputs.take(child)
    return UsageError.exit_code if misused else int(failed)


def _metrics_ports(count: int, settings: Settings) -> list[list[str]]:
    """The option with which each process gets a port of its own: this one and those after it; or any, of 0."""
    port = settings.metrics_port
    if port is None:
        return [[]] * count
    if port + count - 1 > MOST_PORT:
        raise UsageError(
            f"{count} processes take as many ports for their metrics, and there are none after {MOST_PORT}: "
            f"name one of up to {MOST_PORT - count + 1} with --metrics-port"
        )
    if port:
        _log.info("metrics at %s, ports %d to %d", settings.metrics_host, port, port + count - 1)
    return [[f"--metrics-port={port + number if port else 0}"] for number in range(count)]


def _start(arguments: list[str], output: BinaryIO | None) -> "subprocess.Popen[bytes]":
    # A process group of its own: Ctrl-C reaches the workers once, from us.
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "embedq", *arguments], stdout=output, start_new_session=True
    )


def _without_processes(arguments: list[str]) -> list[str]:
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--processes":
            next(rest, None)
        elif not argument.startswith("--processes="):
            kept.append(argument)
    return kept
