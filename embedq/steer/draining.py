"""What `drain` does: tell workers to finish what they have in hand and to end, and wait for that."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from embedq_core.errors import WorkerMissing
from embedq_core.settings import Settings, load_settings
from embedq_core.text import plural, shown, suggestion
from embedq_jobs import Queue, open_queue, queue_exists
from embedq_jobs.drains import worker_name
from embedq_jobs.queue import WORKER_FRESH_SECONDS
from embedq_producer.submitting import stop_on_interrupt
from embedq_producer.summary import EXIT_DEAD, EXIT_DONE, EXIT_INTERRUPTED

WATCH_SECONDS: Final = 0.2


def run_drain(worker: str | None, database: Path | None, *, wait: bool, as_json: bool) -> None:
    """Tell workers to finish and end, and with `wait` wait until they have.

    Exits with 0, with 1 where one vanished without a word, with 130 when interrupted. Raises WorkerMissing.
    """
    sys.exit(asyncio.run(_drain(worker, load_settings(database=database), wait=wait, as_json=as_json)))


async def _drain(worker: str | None, settings: Settings, *, wait: bool, as_json: bool) -> int:
    stop = stop_on_interrupt()
    if not queue_exists(settings):
        return _said(_chosen(worker, []), [], as_json=as_json, waited=wait, interrupted=False)
    async with open_queue(settings) as queue:
        reports = _chosen(worker, await queue.live_workers())
        await queue.drains.order(reports)
        if not as_json:
            _announce(reports, wait=wait)
        lost = await _until_ended(reports, queue, stop) if wait else []
    return _said(reports, lost, as_json=as_json, waited=wait, interrupted=stop.is_set())


def _chosen(worker: str | None, reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The reports of the workers that are meant."""
    if worker is None:
        return sorted(reports, key=worker_name)
    names = {worker_name(report): report for report in reports}
    if worker not in names:
        there = f"there are {', '.join(sorted(names))}" if names else "no worker runs"
        raise WorkerMissing(f"there is no worker {shown(worker)!r}.{suggestion(worker, names)} Now {there}")
    return [names[worker]]


def _announce(reports: Sequence[dict[str, Any]], *, wait: bool) -> None:
    for report in reports:
        print(f"draining {shown(worker_name(report))}")
    if reports and not wait:
        print("each ends when it has finished: 'embedq status' shows those that are left", file=sys.stderr)


async def _until_ended(reports: Sequence[dict[str, Any]], queue: Queue, stop: asyncio.Event) -> list[str]:
    """Wait until all these workers have said goodbye, or `stop` is set; those that have vanished without it."""
    since = {worker_name(report): report["since"] for report in reports}
    while not stop.is_set():
        there = {worker_name(report): report for report in map(json.loads, await queue.worker_reports())}
        left = [name for name in since if name in there and there[name]["since"] == since[name]]
        fresh = time.time() - WORKER_FRESH_SECONDS
        if all(there[name]["seen"] < fresh for name in left):
            return left
        await asyncio.wait([waiting := asyncio.create_task(stop.wait())], timeout=WATCH_SECONDS)
        waiting.cancel()
    return []


def _said(
    reports: Sequence[dict[str, Any]], lost: Sequence[str], *, as_json: bool, waited: bool, interrupted: bool
) -> int:
    """Say how it ended, and give the exit code."""
    if as_json:
        print(json.dumps({"workers": [worker_name(report) for report in reports], "lost": lost, "waited": waited}))
    elif not reports:
        print("no worker runs: there is nothing to drain")
    elif waited and not interrupted and not lost:
        print(f"{plural(len(reports), 'worker has', 'workers have')} ended")
    for name in lost:
        print(
            f"embedq: {shown(name)} has not been heard of any more: what it had in hand is free again within seconds",
            file=sys.stderr,
        )
    if interrupted:
        print("interrupted: the workers drain on", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_DEAD if lost else EXIT_DONE
