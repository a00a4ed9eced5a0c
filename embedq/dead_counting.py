"""Counting dead letters time and again, without reading a million of them each second."""

import time
from typing import Final

from embedq_core.settings import Settings
from embedq_store import DeadLetterSummary, Store

# Counting takes no more than this share of the time of who looks on.
MOST_OF_TIME: Final = 0.05


def due(*, changed: bool, since_last: float, last_took: float) -> bool:
    """Whether to count again: the file has changed, and the last time, which took `last_took` seconds and ended
    `since_last` seconds ago, was long enough ago for what it cost.
    """
    return changed and last_took <= since_last * MOST_OF_TIME


class DeadCounter:
    """How many dead letters there are of each collection and error class; the database stays open between."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: Store | None = None
        self._file: tuple[int, int] | None = None
        self._version: int | None = None
        self._counted: list[DeadLetterSummary] = []
        self._ended = 0.0
        self._took = 0.0

    async def count(self) -> list[DeadLetterSummary]:
        """The counts, which may be some seconds old where they take long. None where there is no database yet."""
        store = await self._opened()
        if store is None:
            return []
        version = await store.data_version()
        began = time.monotonic()
        if due(changed=version != self._version, since_last=began - self._ended, last_took=self._took):
            # The version was read before: what is written meanwhile is counted the next time.
            self._counted = await store.dead_summary()
            self._version = version
            self._ended = time.monotonic()
            self._took = self._ended - began
        return self._counted

    async def close(self) -> None:
        """Close the database."""
        store, self._store = self._store, None
        if store is not None:
            await store.close()

    async def _opened(self) -> Store | None:
        """The database, opened anew where another file has taken its place."""
        try:
            stat = self._settings.database.stat()
        except FileNotFoundError:
            await self.close()
            return None
        if self._store is None or self._file != (stat.st_dev, stat.st_ino):
            await self.close()
            self._store = await Store.open(self._settings.database, read_only=True)
            self._file, self._version, self._took = (stat.st_dev, stat.st_ino), None, 0.0
        return self._store
