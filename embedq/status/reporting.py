"""What `status` knows: read from the queue and the database, for people and for programs.

A thing that is to be shown is a field of `Status`, a key of `status_object`, and a section of `embedq.status.sections`.
"""

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from embedq.reembed.figures import ReembeddingRow, reembedding_rows, row_object
from embedq.status.dead_counting import DeadCounter
from embedq.status.open_database import OpenDatabase
from embedq_core.settings import Settings
from embedq_jobs import Pause, Queue, QueueLoad, Rates, RunSummary, holding, open_queue, queue_exists
from embedq_jobs.rates import RATE_SECONDS
from embedq_producer.pausing import pause_object
from embedq_producer.summary import summary_object
from embedq_store import DeadLetterSummary
from embedq_worker.timetable import Upcoming, upcoming

LATEST_RUNS: Final = 5
MINUTE: Final = 60
TEN_MINUTES: Final = 600


@dataclass(frozen=True, slots=True)
class Status:
    """Everything there is to say, at one moment, `at`, in seconds since the epoch."""

    at: float
    where: str
    database: str
    queue_bytes: int
    """Bytes in the queue of a model at which producers, those with these settings, hold back."""
    loads: list[QueueLoad]
    rates: Rates
    """Of the last ten minutes."""
    workers: list[dict[str, Any]]
    """What live workers say of themselves: `embedq_worker.report.WorkerReport`. Earlier versions say less."""
    runs: list[RunSummary]
    """Those that go on, then the latest."""
    dead: list[DeadLetterSummary]
    pauses: list[Pause] = field(default_factory=list)
    schedules: list[Upcoming] = field(default_factory=list)
    """The next that is due first."""
    reembeddings: list[ReembeddingRow] = field(default_factory=list)
    """Those that go on or wait for somebody, and those whose old vectors are kept."""

    @property
    def items(self) -> int:
        """Items that are queued or in hand."""
        return sum(load.items for load in self.loads)

    @property
    def items_per_second(self) -> float:
        """Items done a second over the last minute."""
        return self.rates.per_second(MINUTE)

    @property
    def seconds_left(self) -> float | None:
        """How long they take at the present speed; None where nothing moves, or some of it can't be moved just now."""
        moving = self.items_per_second > 0 and self.items and self.workers
        return self.items / self.items_per_second if moving and not self._held_up else None

    @property
    def _held_up(self) -> bool:
        """Whether there is work that is paused, or whose model can't be used."""
        troubled = {model for report in self.workers for model in report.get("troubles", {})}
        return any(
            load.paused or load.model_id in troubled or holding(self.pauses, load.model_id)
            for load in self.loads
            if load.jobs
        )


class StatusReader:
    """Reads the status time and again; what it needs stays open between. Close it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = OpenDatabase(settings)
        self._dead = DeadCounter(self._database)
        self._stack = AsyncExitStack()
        self._queue: Queue | None = None
        self._runs: list[RunSummary] = []

    async def read(self) -> Status:
        """Ask the queue and the database. Raises RedisUnreachable and what keeps the database from being read."""
        settings, queue, now = self._settings, await self._opened(), time.time()
        where, pauses = "none yet", list[Pause]()
        if queue is None:
            loads, rates, workers = list[QueueLoad](), Rates([]), list[dict[str, Any]]()
        else:
            loads, rates, where = await queue.loads(), await queue.rates(TEN_MINUTES), queue.where
            workers, pauses = await queue.live_workers(), await queue.pauses()
            self._runs = await queue.runs.overview(LATEST_RUNS, {summary.run.id: summary for summary in self._runs})
        return Status(
            at=now,
            where=where,
            database=str(settings.database),
            queue_bytes=settings.queue_bytes,
            loads=loads,
            rates=rates,
            workers=sorted(workers, key=lambda report: (report["host"], report["pid"])),
            runs=self._runs,
            dead=await self._dead.count(),
            pauses=pauses,
            schedules=await self._schedules(now),
            reembeddings=await self._reembeddings(queue),
        )

    async def close(self) -> None:
        """Let go of the queue and the database."""
        await self._stack.aclose()
        await self._database.close()

    async def _schedules(self, now: float) -> list[Upcoming]:
        store = await self._database.store()
        return [] if store is None else upcoming(await store.schedules.all(), now)

    async def _reembeddings(self, queue: Queue | None) -> list[ReembeddingRow]:
        store = await self._database.store()
        rows = [] if store is None else await reembedding_rows(store, queue)
        return [row for row in rows if row.reembedding.open or row.reembedding.keeps_others]

    async def _opened(self) -> Queue | None:
        if self._queue is None and queue_exists(self._settings):
            self._queue = await self._stack.enter_async_context(open_queue(self._settings))
        return self._queue


async def read_status(settings: Settings) -> Status:
    """The status, once. Raises RedisUnreachable and what keeps the database from being read."""
    reader = StatusReader(settings)
    try:
        return await reader.read()
    finally:
        await reader.close()


def status_object(status: Status) -> dict[str, Any]:
    """The status for JSON. Sizes are in bytes, times in seconds since the epoch, shares in [0, 1]."""
    return {
        "at": status.at,
        "redis": status.where,
        "database": status.database,
        "queues": [asdict(load) | {"queued": load.queued, "bytes_limit": status.queue_bytes} for load in status.loads],
        "items": status.items,
        "items_per_second": status.items_per_second,
        "items_per_second_10_minutes": status.rates.per_second(TEN_MINUTES),
        "rates": {"span_seconds": RATE_SECONDS, "items": list(status.rates.items)},
        "seconds_left": status.seconds_left,
        "workers": status.workers,
        "models": [asdict(figures) | {"batch_fill": figures.batch_fill} for figures in model_figures(status.workers)],
        "runs": [summary_object(run) for run in status.runs],
        "dead": [part._asdict() for part in status.dead],
        "pauses": [pause_object(pause) for pause in status.pauses],
        "schedules": [each.as_object() for each in status.schedules],
        "reembeddings": [row_object(row) for row in status.reembeddings],
    }


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """What all workers together say of a model: calls of the last ten minutes, errors by class.

    `calls` succeeded: they were given `inputs` and took `model_seconds`.
    """

    model: str
    batch_size: int | None
    workers: int
    in_hand_items: int
    calls: int
    inputs: int
    model_seconds: float
    errors: dict[str, int]

    @property
    def batch_fill(self) -> float | None:
        """How full the calls were, in [0, 1]; None where nobody can tell."""
        full = self.calls * (self.batch_size or 0)
        return min(self.inputs / full, 1.0) if full else None


def model_figures(reports: Iterable[dict[str, Any]]) -> list[ModelFigures]:
    """The figures of each model that workers serve, added up. Workers of an earlier version don't say."""
    by_model: dict[str, list[dict[str, Any]]] = {}
    for report in reports:
        for model, serving in report.get("serving", {}).items():
            by_model.setdefault(model, []).append(serving)
    return [_added(model, serving) for model, serving in sorted(by_model.items())]


def _added(model: str, serving: list[dict[str, Any]]) -> ModelFigures:
    recent = [each["recent"] for each in serving]
    errors: Counter[str] = Counter()
    for each in recent:
        errors.update(each["errors"])
    return ModelFigures(
        model=model,
        batch_size=serving[0]["batch_size"],
        workers=len(serving),
        in_hand_items=sum(each["in_hand_items"] for each in serving),
        calls=sum(each["calls"] for each in recent),
        inputs=sum(each["inputs"] for each in recent),
        model_seconds=sum(each["model_seconds"] for each in recent),
        errors=dict(errors.most_common()),
    )
