"""When the queues of a worker that ends by itself are worked off: they are empty, or hold only what is paused."""

import logging
from collections.abc import Mapping

from embedq_core.text import plural
from embedq_jobs import Queue, holding
from embedq_worker.lane import Lane

_log = logging.getLogger("embedq.worker")


class Burst:
    """Looks at the queues that are served, and says what is left in them."""

    def __init__(self, queue: Queue, lanes: Mapping[str, Lane]) -> None:
        self._queue = queue
        self._lanes = lanes
        self._said: dict[str, int] = {}

    async def is_over(self) -> bool:
        """Whether nothing is left to do here; what is paused is left, and said. Raises QueueError."""
        left = {model_id: jobs for model_id, jobs in (await self._queue.lengths(self._lanes)).items() if jobs}
        if any(lane.jobs_in_hand for lane in self._lanes.values()):
            return False
        if not left:
            return True
        pauses = await self._queue.pauses()
        for model_id in left:
            # Of what is not set aside, something may still be paused: then it will be set aside when it is met.
            if holding(pauses, model_id) is None and await self._queue.to_do(model_id):
                return False
            # Who has lifted a pause may not have made all due yet, or may have died before.
            if await self._queue.pausing.release(model_id):
                return False
        for model_id, jobs in left.items() - self._said.items():
            _log.warning("%s: %s left, paused: see 'embedq pause --list'", model_id, plural(jobs, "chunk"))
        self._said = left
        return True
