"""Whether processes live that have the turns of re-embeddings: a worker that ends by itself looks before it goes."""

import time

from embedq_jobs import Queue
from embedq_jobs.turns import sign_of_life


class Holders:
    """What was seen of turns that others have. `seconds` is how long after a sign of life its process counts as living:
    longer than it takes until the next sign.
    """

    def __init__(self, queue: Queue, seconds: float) -> None:
        self._queue = queue
        self._seconds = seconds
        self._signs: dict[str, bytes] = {}
        self._lived: dict[str, float] = {}

    async def is_living(self, collection: str) -> bool:
        """Whether who has the turn for a collection has been seen to live. To be asked again and again: one look tells
        nothing, and of a process that was killed nothing will be seen before its turn is free. Raises QueueError.
        """
        sign = await sign_of_life(self._queue.redis, self._queue.names.turn(collection), self._queue.where)
        before = self._signs.pop(collection, None)
        if sign is None:
            self._lived.pop(collection, None)
            return False
        self._signs[collection] = sign
        if before not in (None, sign):
            self._lived[collection] = time.monotonic()
        return time.monotonic() - self._lived.get(collection, -self._seconds) < self._seconds
