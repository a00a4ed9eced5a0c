"""What a worker has done when it ends: for the JSON that `embedq worker --json` prints then.

It is heard of as metrics are, by `embedq_worker.telemetry`. A process that dies says nothing; the ledger of runs has
what it did.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Self

import msgspec

from embedq_core.counts import Counts
from embedq_core.errors import EmbedqError
from embedq_core.settings import Settings
from embedq_worker.failures import Decision
from embedq_worker.telemetry import ModelTelemetry, Telemetry


@contextmanager
def told_at_the_end(settings: Settings, then: Telemetry) -> Iterator["WorkDone"]:
    """Print what is done in the block, as the telemetry that it is given hears of it, which passes on to `then`.

    Where an error of ours ends the block, that is done, too, if it had come so far that a model was served.
    """
    began = time.time()
    done = WorkDone(then)
    try:
        yield done
    except EmbedqError:
        report = done.report(settings, began)
        if report.models:
            tell(report)
        raise
    tell(done.report(settings, began))


def tell(report: "WorkReport") -> None:
    """Print it."""
    # The process may end without Python's putting its house in order.
    print(json.dumps(report.as_object()), flush=True)


class Work(msgspec.Struct, frozen=True):
    """What was done with one model, or with all: `chunks` that were done, and of items, calls and `inputs` what the
    ledger of runs has of them, in the words of `embedq runs`. `failed_calls` are all that failed, also those that were
    tried again and then went well.
    """

    chunks: int = 0
    embedded: int = 0
    reused: int = 0
    unchanged: int = 0
    updated: int = 0
    removed: int = 0
    dead: int = 0
    calls: int = 0
    inputs: int = 0
    failed_calls: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(getattr(self, name) + getattr(other, name) for name in self.__struct_fields__))

    @classmethod
    def of(cls, counts: Counts) -> "Work":
        """The work that these counts tell of."""
        return cls(
            embedded=counts.embedded,
            reused=counts.reused,
            unchanged=counts.unchanged,
            updated=counts.updated,
            removed=counts.removed,
            dead=counts.failed,
            calls=counts.calls,
            inputs=counts.inputs,
        )

    def as_object(self) -> dict[str, int]:
        """For JSON."""
        done = self.embedded + self.reused + self.unchanged + self.dead
        return {"done": done, **msgspec.structs.asdict(self)}


class WorkReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker, of one process or several, did from when it began to when it ended, in seconds since the epoch.

    `processes` have told of their work; `silent` ones died before they could.
    """

    host: str
    pid: int
    database: str
    began: float
    ended: float
    models: dict[str, Work]
    processes: int = 1
    silent: int = 0

    def as_object(self) -> dict[str, object]:
        """For JSON: the figures of all models together, and of each."""
        return {
            "host": self.host,
            "pid": self.pid,
            "database": self.database,
            "processes": self.processes,
            "silent": self.silent,
            "began": self.began,
            "ended": self.ended,
            "seconds": round(self.ended - self.began, 3),
            **sum(self.models.values(), Work()).as_object(),
            "models": {model_id: work.as_object() for model_id, work in sorted(self.models.items())},
        }

    def with_parts(self, told: Iterable[bytes]) -> Self:
        """This one with the work of its processes, of each of which `told` has all that it printed."""
        models = dict(self.models)
        processes = silent = 0
        for output in told:
            try:
                # Above it there may be what a library saw fit to print.
                part = msgspec.json.decode((output.splitlines() or [b""])[-1], type=WorkReport)
            except msgspec.MsgspecError:
                silent += 1
                continue
            processes += 1
            for model_id, work in part.models.items():
                models[model_id] = models.get(model_id, Work()) + work
        return msgspec.structs.replace(self, models=models, processes=processes, silent=silent)


class WorkDone:
    """Adds up what this process does. It is the process's `Telemetry`, and passes on to another what it hears."""

    def __init__(self, then: Telemetry) -> None:
        self._then = then
        self._lock = threading.Lock()
        self._models: dict[str, Work] = {}

    def report(self, settings: Settings, began: float) -> WorkReport:
        """All of it until now, since `began`, in seconds since the epoch."""
        with self._lock:
            models = dict(self._models)
        return WorkReport(
            host=socket.gethostname(),
            pid=os.getpid(),
            database=str(settings.database),
            began=began,
            ended=time.time(),
            models=models,
        )

    def add(self, model_id: str, work: Work) -> None:
        """Note that this, too, was done with a model."""
        with self._lock:
            self._models[model_id] = self._models.get(model_id, Work()) + work

    def of_model(self, model_id: str) -> ModelTelemetry:
        """As `embedq_worker.telemetry.Telemetry.of_model`."""
        self.add(model_id, Work())
        return _ModelWork(self, model_id, self._then.of_model(model_id))

    def committed(self, rows: int, seconds: float) -> None:
        """As `embedq_worker.telemetry.Telemetry.committed`."""
        self._then.committed(rows, seconds)

    def draining(self) -> None:
        """As `embedq_worker.telemetry.Telemetry.draining`."""
        self._then.draining()


class _ModelWork:
    """Adds up what is done with one model."""

    def __init__(self, done: WorkDone, model_id: str, then: ModelTelemetry) -> None:
        self._done = done
        self._model_id = model_id
        self._then = then

    def settled(self, counts: Counts) -> None:
        self._done.add(self._model_id, Work.of(counts))
        self._then.settled(counts)

    def chunk_done(self) -> None:
        self._done.add(self._model_id, Work(chunks=1))
        self._then.chunk_done()

    def call_failed(self, error: BaseException, decision: Decision) -> None:
        self._done.add(self._model_id, Work(failed_calls=1))
        self._then.call_failed(error, decision)

    def in_hand(self, items: int) -> AbstractContextManager[object]:
        return self._then.in_hand(items)

    def batch_formed(self, contents: int, batch_size: int | None) -> None:
        self._then.batch_formed(contents, batch_size)

    def call_returned(self, contents: int, seconds: float) -> None:
        self._then.call_returned(contents, seconds)

    def in_trouble(self, trouble: bool) -> None:
        self._then.in_trouble(trouble)

    def waited(self, seconds: float) -> None:
        self._then.waited(seconds)

    def died(self, error: str, letters: int) -> None:
        self._then.died(error, letters)
