"""Collections in files and under other names: read as they stand, written as they come. Reached as `Store.transfer`."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

from embedq_store import importing, renaming, snapshot
from embedq_store.access import Access
from embedq_store.importing import Beside
from embedq_store.snapshot import Snapshot, StoredEntry
from embedq_store.standing import CollectionInfo
from embedq_store.writes import Target


class Transfer:
    """`wrote` is told the collection and the bytes of vectors that were written; `sweep` removes what is left of
    collections that were deleted.
    """

    def __init__(self, access: Access, wrote: Callable[[str, int], None], sweep: Callable[[], Awaitable[None]]) -> None:
        self._access = access
        self._wrote = wrote
        self._sweep = sweep

    def snapshot(self, info: CollectionInfo, prefix: str = "") -> AbstractAsyncContextManager[Snapshot]:
        """The entries of a collection as they stand now, for an export."""
        return snapshot.snapshot(self._access.path, info, prefix)

    async def compare(self, collection: str, entries: Sequence[StoredEntry]) -> Beside:
        """What entries of a file are to a collection."""
        return await self._access.read(partial(importing.compare, collection=collection, entries=entries))

    async def write(self, target: Target, entries: Sequence[StoredEntry], *, replace: bool = False) -> tuple[int, int]:
        """Write entries of a file that come with their vectors: see `importing.write_entries`.

        Then others may write for a moment.
        """
        writing = partial(importing.write_entries, target=target, entries=entries, replace=replace)
        written = await self._access.writer.transact_in_turn(writing)
        self._wrote(target.collection, sum(len(entry.vector) for entry in entries))
        return written

    async def rename(self, old: str, new: str) -> None:
        """Give a collection another name, in one transaction: see `renaming.rename`."""
        await self._access.change(partial(renaming.rename, old=old, new=new))

    async def copy(
        self, source: CollectionInfo, name: str, progress: Callable[[int], None]
    ) -> tuple[CollectionInfo, int]:
        """Copy a collection to a new `name`: see `renaming.copy`."""
        return await renaming.copy(self._access.writer, source, name, progress, self._sweep)
