"""When the queues of a worker that ends by itself are worked off: they are empty, or what is left can't be done now."""

import logging
from collections.abc import Mapping

from embedq_core.errors import ModelMisconfigured
from embedq_core.text import plural
from embedq_jobs import Queue, holding
from embedq_worker.lane import Lane

_log = logging.getLogger("embedq.worker")


def unmended(model_id: str, trouble: str, chunks: int) -> ModelMisconfigured:
    """What to say where a model was not mended in time, and `chunks` are left."""
    left = plural(chunks, "chunk stays", "chunks stay")
    return ModelMisconfigured(f"{model_id}: {trouble}; {left} queued until that is mended")


class Burst:
    """Looks at the queues that are served, and says what is left in them."""

    def __init__(self, queue: Queue, lanes: Mapping[str, Lane]) -> None:
        self._queue = queue
        self._lanes = lanes
        self._said: dict[str, int] = {}
        self.left: Mapping[str, int] = {}
        """Of each model, how many chunks were left when it was over: paused, or of a model that is out of order."""
        self._troubles: dict[str, str] = {}

    async def is_over(self) -> bool:
        """Whether nothing is left to do here. What is paused is left, and said; so is what waits for a model that
        somebody has to mend, which is a `problem`. Raises QueueError.
        """
        left = {model_id: jobs for model_id, jobs in (await self._queue.lengths(self._lanes)).items() if jobs}
        self.left, self._troubles = left, {}
        if any(lane.jobs_in_hand for lane in self._lanes.values()):
            return False
        if not left:
            return True
        pauses = await self._queue.pauses()
        troubles: dict[str, str] = {}
        for model_id in left:
            # Of what is not set aside, something may still be paused: then it will be set aside when it is met.
            if holding(pauses, model_id) is None and await self._queue.to_do(model_id):
                trouble = self._lanes[model_id].unmended
                if trouble is None:
                    return False
                troubles[model_id] = trouble
            # Who has lifted a pause may not have made all due yet, or may have died before.
            elif await self._queue.pausing.release(model_id):
                return False
        self._troubles = troubles
        paused = {model_id: jobs for model_id, jobs in left.items() if model_id not in troubles}
        for model_id, jobs in paused.items() - self._said.items():
            _log.warning("%s: %s left, paused: see 'embedq pause --list'", model_id, plural(jobs, "chunk"))
        self._said = paused
        return True

    def problem(self) -> ModelMisconfigured | None:
        """Why something was left that nobody has paused, when it was over."""
        told = [str(unmended(model_id, trouble, self.left[model_id])) for model_id, trouble in self._troubles.items()]
        return ModelMisconfigured("; ".join(told)) if told else None
