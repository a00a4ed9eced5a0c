"""Counting dead letters time and again, without reading a million of them each second."""

import time
from typing import Final

from embedq.status.open_database import OpenDatabase
from embedq_store import DeadLetterSummary, Store

# Counting takes no more than this share of the time of who looks on.
MOST_OF_TIME: Final = 0.05


def due(*, changed: bool, since_last: float, last_took: float) -> bool:
    """Whether to count again: the file has changed, and the last time, which took `last_took` seconds and ended
    `since_last` seconds ago, was long enough ago for what it cost.
    """
    return changed and last_took <= since_last * MOST_OF_TIME


class DeadCounter:
    """How many dead letters there are of each collection and error class."""

    def __init__(self, database: OpenDatabase) -> None:
        self._database = database
        self._store: Store | None = None
        self._version: int | None = None
        self._counted: list[DeadLetterSummary] = []
        self._ended = 0.0
        self._took = 0.0

    async def count(self) -> list[DeadLetterSummary]:
        """The counts, which may be some seconds old where they take long. None where there is no database yet."""
        store = await self._database.store()
        if store is None:
            return []
        if store is not self._store:
            self._store, self._version, self._took = store, None, 0.0
        version = await store.data_version()
        began = time.monotonic()
        if due(changed=version != self._version, since_last=began - self._ended, last_took=self._took):
            # The version was read before: what is written meanwhile is counted the next time.
            self._counted = await store.dead.summary()
            self._version = version
            self._ended = time.monotonic()
            self._took = self._ended - began
        return self._counted
