"""Keeping mapped copies up to date for those who write, so that the first query need not.

Bytes of vectors that are written are counted for each collection; when they are more than a search holds in memory, it
pays to put them into the copy. That is done in steps of well under a second, on a connection of its own: whoever
has something better to do is asked before each. Several processes may be at it: a lock decides whose turn it is.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from embedq_core.errors import StoreError
from embedq_store.connection import connect, translated

_BUSY_SECONDS: Final = 1.0

_log = logging.getLogger("embedq.search")


class Upkeep:
    """What a process has written that no copy holds, as far as it knows, and the bringing up to date of copies."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._written: Counter[str] = Counter()
        self._lock = asyncio.Lock()

    def wrote(self, collection: str, size: int) -> None:
        """Take note of `size` bytes of vectors that were committed."""
        self._written[collection] += size

    @property
    def due(self) -> bool:
        """Whether so much was written to a collection that its copy should be brought up to date."""
        return bool(self._collections_due())

    async def run(self, go_on: Callable[[], bool]) -> None:
        """Bring the copies that are due up to date, while `go_on` says so before each step. Never raises."""
        async with self._lock:
            for collection in self._collections_due():
                if not go_on():
                    return
                written = self._written[collection]
                try:
                    done = await self._extend(collection, go_on)
                except (StoreError, OSError) as error:
                    # A full disk, or one that is locked: the next query will try again, and do without.
                    _log.info("%r: its copy for searching is not brought up to date: %s", collection, error)
                    done = True
                if done:
                    self._written[collection] -= written

    def _collections_due(self) -> list[str]:
        if not self._written:
            return []
        from embedq_store.rows import RESIDENT_BYTES

        return [name for name, size in self._written.items() if size > RESIDENT_BYTES]

    async def _extend(self, collection: str, go_on: Callable[[], bool]) -> bool:
        """Whether there is nothing more to do."""
        from embedq_store.copying import CopyFolder
        from embedq_store.rows import CollectionRows

        copies = CopyFolder(self._path)
        db = await connect(self._path, read_only=True, busy_seconds=_BUSY_SECONDS)
        try:
            with translated(self._path):
                found = await db.execute_fetchall("SELECT id FROM collections WHERE name = ?", (collection,))
                for (collection_id,) in found:
                    held = CollectionRows(db, collection_id, copies, search=False)
                    while await held.extend_copy():
                        if not go_on():
                            return False
            return True
        finally:
            with contextlib.suppress(StoreError):
                await db.close()
