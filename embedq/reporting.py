"""What `status` shows."""

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedq.dead_letters import dead_summary
from embedq.inspecting import size
from embedq.running import print_runs
from embedq.tables import print_fields, print_table
from embedq_core.settings import Settings, load_settings
from embedq_core.text import plural
from embedq_jobs import QueueLoad, RunSummary, open_queue, queue_exists
from embedq_producer.summary import summary_object
from embedq_producer.terminal import duration
from embedq_store import DeadLetterSummary

LATEST_RUNS = 5


@dataclass(frozen=True, slots=True)
class Status:
    """Everything there is to say, at one moment."""

    where: str
    database: str
    queue_bytes: int
    """Bytes in the queue of a model at which producers, those with these settings, hold back."""
    loads: list[QueueLoad]
    items_per_second: float
    workers: list[dict[str, Any]]
    runs: list[RunSummary]
    dead: list[DeadLetterSummary]

    @property
    def items(self) -> int:
        """Items that are queued or in hand."""
        return sum(load.items for load in self.loads)

    @property
    def seconds_left(self) -> float | None:
        """How long they take at the present speed; None where nothing moves, or nobody is there to move it."""
        moving = self.items_per_second > 0 and self.items and self.workers
        return self.items / self.items_per_second if moving else None


async def read_status(settings: Settings) -> Status:
    """Ask the queue and the database. Raises RedisUnreachable."""
    if not queue_exists(settings):
        return Status(
            "none yet", str(settings.database), settings.queue_bytes, [], 0.0, [], [], await dead_summary(settings)
        )
    async with open_queue(settings) as queue:
        return Status(
            where=queue.where,
            database=str(settings.database),
            queue_bytes=settings.queue_bytes,
            loads=await queue.loads(),
            items_per_second=await queue.items_per_second(),
            workers=sorted(await queue.live_workers(), key=lambda report: (report["host"], report["pid"])),
            runs=await queue.runs.latest(LATEST_RUNS),
            dead=await dead_summary(settings),
        )


def print_status(database: Path | None, *, as_json: bool) -> None:
    """Print it for people, or as JSON."""
    status = asyncio.run(read_status(load_settings(database=database)))
    print(json.dumps(_object(status))) if as_json else _print(status)


def _object(status: Status) -> dict[str, Any]:
    return {
        "redis": status.where,
        "database": status.database,
        "queues": [asdict(load) | {"queued": load.queued, "bytes_limit": status.queue_bytes} for load in status.loads],
        "items": status.items,
        "items_per_second": status.items_per_second,
        "seconds_left": status.seconds_left,
        "workers": status.workers,
        "runs": [summary_object(run) for run in status.runs],
        "dead": [part._asdict() for part in status.dead],
    }


def _print(status: Status) -> None:
    left = status.seconds_left
    print_fields(
        [
            ("redis", status.where),
            ("database", status.database),
            ("workers", _workers(status)),
            *_troubles(status.workers),
            ("to do", plural(status.items, "item")),
            ("speed", f"{status.items_per_second:,.1f} items/s over the last minute"),
            *([("time left", duration(left))] if left is not None else []),
            ("dead letters", f"{sum(part.letters for part in status.dead):,}"),
        ]
    )
    if any(load.jobs for load in status.loads):
        print()
        print_table(
            ["queue", "queued", "in_progress", "deferred", "items", "size", "oldest"],
            [
                [
                    load.model_id,
                    f"{load.queued:,}",
                    f"{load.in_progress:,}",
                    f"{load.deferred:,}",
                    f"{load.items:,}",
                    f"{size(load.bytes)} of {size(status.queue_bytes)}",
                    "-" if load.oldest is None else duration(max(time.time() - load.oldest, 0)),
                ]
                for load in status.loads
            ],
            right={1, 2, 3, 4, 5, 6},
        )
    if status.runs:
        print()
        print_runs(status.runs)
    if status.dead:
        print()
        print_table(
            ["dead of", "error", "items"],
            [[part.collection, part.error, f"{part.letters:,}"] for part in status.dead],
            right={2},
        )


def _workers(status: Status) -> str:
    if not status.workers:
        return "none: 'embedq worker' runs one" if status.items else "none"
    return ", ".join(map(_worker, status.workers))


def _troubles(workers: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Why a model can't be used just now, once for all workers that say so."""
    told = [f"{model}: {why}" for report in workers for model, why in report.get("troubles", {}).items()]
    return [("trouble", text) for text in dict.fromkeys(told)]


def _worker(report: dict[str, Any]) -> str:
    """Where it is, and how much it has in hand of what it may; one of an earlier version doesn't say."""
    place = f"{report['host']}:{report['pid']}"
    in_hand, limit = report.get("in_hand_bytes"), report.get("in_hand_bytes_limit")
    return f"{place} (in hand {size(in_hand)} of {size(limit)})" if in_hand is not None and limit else place
