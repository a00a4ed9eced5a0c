"""What a worker says of itself every few seconds, for `status` and `doctor`."""

from collections.abc import Iterable
from typing import TypedDict

from embedq_worker.lane import Lane
from embedq_worker.tally import Recent


class ModelReport(TypedDict):
    """One model of a worker: `calls` and `inputs` since it was opened, `recent` those of the last ten minutes."""

    batch_size: int | None
    in_hand: int
    in_hand_items: int
    in_hand_bytes: int
    calls: int
    inputs: int
    recent: Recent


class WorkerReport(TypedDict):
    """A worker process. Times are in seconds since the epoch; jobs are chunks.

    `draining`: it takes nothing new, and ends. `troubles` says of each model that can't be used just now why. `serving`
    has what each of `models` does.
    """

    host: str
    pid: int
    database: str
    models: list[str]
    since: float
    seen: float
    in_hand: int
    in_hand_items: int
    in_hand_bytes: int
    in_hand_bytes_limit: int
    done: int
    draining: bool
    troubles: dict[str, str]
    serving: dict[str, ModelReport]


def worker_report(
    host: str,
    pid: int,
    lanes: Iterable[Lane],
    *,
    since: float,
    now: float,
    inflight_bytes: int,
    draining: bool,
    database: str,
) -> WorkerReport:
    """What a worker with these lanes says at `now`; each lane takes `inflight_bytes` in hand at most."""
    lanes = sorted(lanes, key=lambda lane: lane.model_id)
    return {
        "host": host,
        "pid": pid,
        "database": database,
        "models": [lane.model_id for lane in lanes],
        "since": since,
        "seen": now,
        "in_hand": sum(lane.jobs_in_hand for lane in lanes),
        "in_hand_items": sum(lane.items_in_hand for lane in lanes),
        "in_hand_bytes": sum(lane.bytes_in_hand for lane in lanes),
        "in_hand_bytes_limit": inflight_bytes * len(lanes),
        "done": sum(lane.jobs_done for lane in lanes),
        "draining": draining,
        "troubles": {lane.model_id: lane.runner.trouble for lane in lanes if lane.runner.trouble},
        "serving": {lane.model_id: _model_report(lane) for lane in lanes},
    }


def _model_report(lane: Lane) -> ModelReport:
    tally = lane.runner.tally
    return {
        "batch_size": lane.runner.model.batch_size,
        "in_hand": lane.jobs_in_hand,
        "in_hand_items": lane.items_in_hand,
        "in_hand_bytes": lane.bytes_in_hand,
        "calls": tally.calls,
        "inputs": tally.inputs,
        "recent": tally.recent(),
    }
