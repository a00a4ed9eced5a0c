"""A database of embeddings: the one door to everything in this room."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import aiosqlite

from embedq_core.collection_names import is_being_removed
from embedq_core.configuration import Configuration
from embedq_core.counts import Counts
from embedq_core.errors import CollectionMissing, EntryMissing, StoreError
from embedq_core.text import shown, suggestion
from embedq_store.access import Access
from embedq_store.budget import DEFAULT_SEARCH_BYTES, SearchBytes
from embedq_store.configurations import configuration_in_force
from embedq_store.connection import MEMORY, check_file, connect, prepare, translated
from embedq_store.deadletters import DeadLetters
from embedq_store.lookup import look_up
from embedq_store.outcomes import Incoming, Known
from embedq_store.pruning import Prunable
from embedq_store.schedules import Schedules
from embedq_store.schema import check_schema
from embedq_store.searches import Searches
from embedq_store.standing import (
    CollectionFigures,
    CollectionInfo,
    Standing,
    chunk_mark,
    dimension_of,
    figures_of,
    find_collection,
    standing,
)
from embedq_store.transaction import ensure_collection
from embedq_store.upkeep import Upkeep
from embedq_store.writes import Target, Write

# What few commands need is imported by those that do.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embedq_store.audits import Audits
    from embedq_store.reembeddings import Reembeddings
    from embedq_store.transfer import Transfer

DEFAULT_BUSY_SECONDS = 30.0

# Ids that are asked for in one statement.
_IDS = 512

_T = TypeVar("_T")


class Store:
    """An open database. Made by `Store.open`; use it as an asynchronous context manager, or close it."""

    def __init__(
        self, path: str, reader: aiosqlite.Connection, writer: aiosqlite.Connection | None, search_bytes: SearchBytes
    ) -> None:
        self.path = path
        self._access = Access(path, reader, writer)
        self._search_bytes = search_bytes
        self._upkeep = None if path == MEMORY else Upkeep(path)

    @classmethod
    async def open(
        cls,
        path: str | Path = MEMORY,
        *,
        read_only: bool = False,
        must_exist: bool = False,
        busy_seconds: float = DEFAULT_BUSY_SECONDS,
        search_bytes: SearchBytes = DEFAULT_SEARCH_BYTES,
    ) -> "Store":
        """Open the database at `path`, or one in memory; made if it isn't there, unless `must_exist`.

        Nothing can be written to a read-only store; but where the file can be, a search may note in it that it has
        made a mapped copy of a collection: see `embedq_store.copying`. Raises DatabaseMissing, DatabaseUnusable,
        DatabaseReadOnly, DatabaseLocked (after `busy_seconds`), each naming the file.
        """
        path = str(path)
        await asyncio.to_thread(check_file, path, must_exist=must_exist or read_only, writing=not read_only)
        if read_only:
            reader = await connect(path, read_only=True, busy_seconds=busy_seconds)
            try:
                with translated(path):
                    await check_schema(reader, path)
            except BaseException:
                await reader.close()
                raise
            return cls(path, reader, None, search_bytes)
        writer = await connect(path, read_only=False, busy_seconds=busy_seconds)
        try:
            await prepare(writer, path)
            # Two connections to a database in memory would be two databases.
            reader = writer if path == MEMORY else await connect(path, read_only=True, busy_seconds=busy_seconds)
        except BaseException:
            await writer.close()
            raise
        return cls(path, reader, writer, search_bytes)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Commit what is waiting and close the file."""
        await self._access.close()

    # --- collections

    async def collection(self, name: str) -> CollectionInfo:
        """The collection called `name`. Raises CollectionMissing, with close names."""
        found = await self.find_collection(name)
        if found is None:
            known = [info.name for info in await self.collections()]
            raise CollectionMissing(
                f"there is no collection {name!r} in {self.path}.{suggestion(name, known)}"
                if known
                else f"there is no collection {name!r} in {self.path}: it holds none"
            )
        return found

    async def find_collection(self, name: str) -> CollectionInfo | None:
        """The collection called `name`, or None."""
        return await self._access.read(lambda db: find_collection(db, name))

    async def is_being_removed(self, collection_id: int) -> bool:
        """Whether a collection was deleted, and rows of it are left."""
        rows = await self._access.rows("SELECT name FROM collections WHERE id = ?", collection_id)
        return bool(rows) and is_being_removed(rows[0][0])

    async def collections(self) -> list[CollectionInfo]:
        """All collections, by name."""
        if not await self._access.has_table("collections"):
            return []
        rows = await self._access.rows("SELECT id, name, model FROM collections ORDER BY name")
        return [CollectionInfo(*row) for row in rows]

    async def create_collection(self, name: str, model_id: str) -> CollectionInfo:
        """The collection called `name`, made for `model_id` if it isn't there, whatever its model if it is."""

        async def ensure(db: aiosqlite.Connection) -> CollectionInfo:
            key, model = await ensure_collection(db, Target(name, model_id))
            return CollectionInfo(key, name, model)

        return await self._access.transact(ensure)

    async def delete_collection(self, collection_id: int) -> int:
        """Delete a collection and all its entries, and what stood beside it.

        Returns how many entries these were. Raises UsageError where what stood beside it holds entries that are nowhere
        else: see `Reembeddings.drop`.
        """
        deleted = await self.part_with(collection_id)
        await self.reembeddings.sweep()
        return deleted

    async def part_with(self, collection_id: int) -> int:
        """Delete a collection, in one transaction; of its rows, `Reembeddings.sweep` removes those that are left.

        Returns how many entries it had. Raises UsageError as `delete_collection` does.
        """
        from embedq_store import removing
        from embedq_store.beginning import part_with

        def delete(db: sqlite3.Connection) -> int:
            part_with(db, collection_id)
            ((entries,),) = db.execute("SELECT count(*) FROM embeddings WHERE collection_id = ?", (collection_id,))
            removing.begin(db, collection_id)
            return int(entries)

        deleted = await self._access.change(delete)
        await self.search.forget(collection_id)
        return deleted

    def prunable(self, info: CollectionInfo, prefix: str = "") -> Prunable:
        """The entries of a collection whose ids start with `prefix`, for removing what their source no longer has."""
        return Prunable(self._access, info, prefix)

    async def count(self, collection_id: int) -> int:
        """The number of entries of a collection."""
        rows = await self._access.rows("SELECT count(*) FROM embeddings WHERE collection_id = ?", collection_id)
        return int(rows[0][0])

    async def describe(self, collection_id: int) -> CollectionFigures:
        """The figures of a collection: reads all of its rows."""
        return await self._access.read(lambda db: figures_of(db, collection_id))

    # --- entries

    async def known(self, collection: str, incoming: Sequence[Incoming]) -> Known:
        """What is committed that bears on `incoming`; nothing where the collection isn't there."""

        def look(db: sqlite3.Connection) -> Known:
            found = find_collection(db, collection)
            return Known() if found is None else look_up(db, found.id, incoming)

        return await self._access.read(look)

    async def dimension(self, collection: str) -> int | None:
        """The dimension of a collection's vectors; None while it has none."""

        def look(db: sqlite3.Connection) -> int | None:
            found = find_collection(db, collection)
            return None if found is None else dimension_of(db, found.id)

        return await self._access.read(look)

    async def configuration(self, collection_id: int) -> Configuration | None:
        """What the vectors of a collection were made with, beside its model; None while it has none."""
        return await self._access.read(lambda db: configuration_in_force(db, collection_id))

    async def write(self, write: Write) -> int:
        """Commit `write` together with whatever else is waiting: see `Writer.write`."""
        removed = await self._access.writer.write(write)
        if write.rows:
            self._wrote(write.target.collection, len(write.rows) * len(write.rows[0].vector))
        return removed

    def observe_commits(self, on_commit: Callable[[int, float], object]) -> None:
        """Have `on_commit` called after each transaction, with its rows, about, and the seconds that it took.

        It must not raise.
        """
        if self._access.writable:
            self._access.writer.on_commit = on_commit

    async def vector(self, collection_id: int, entry_id: str) -> tuple[float, ...]:
        """The stored vector of an entry. Raises EntryMissing, and StoreError where another tool has stored none."""
        rows = await self._access.rows(
            "SELECT embedding FROM embeddings WHERE collection_id = ? AND id = ?", collection_id, entry_id
        )
        if not rows:
            raise EntryMissing(f"the collection has no entry {shown(entry_id)!r}")
        if not rows[0][0]:
            raise StoreError(f"the entry {shown(entry_id)!r} has no vector: see 'embedq collections audit'")
        from embedq_core.vectors import decode

        return decode(rows[0][0])

    async def vectors(self, collection_id: int, ids: Sequence[str]) -> dict[str, "npt.NDArray[np.float32]"]:
        """The stored vectors of those of the entries that are there, by their ids; each of shape (dimension,).

        Where another tool has stored none, it is (0,).
        """
        import numpy as np

        from embedq_core.vectors import STORED_DTYPE

        found: dict[str, npt.NDArray[np.float32]] = {}
        for start in range(0, len(ids), _IDS):
            some = ids[start : start + _IDS]
            rows = await self._access.rows(
                "SELECT id, embedding FROM embeddings WHERE collection_id = ?"  # noqa: S608 - only question marks
                f" AND id IN ({','.join('?' * len(some))})",
                collection_id,
                *some,
            )
            found |= {row[0]: np.frombuffer(row[1] or b"", dtype=STORED_DTYPE) for row in rows}
        return found

    @property
    def copies_due(self) -> bool:
        """Whether so much was written here that `refresh_copies` would save the next search a good deal."""
        return self._upkeep is not None and self._upkeep.due

    async def refresh_copies(self, go_on: Callable[[], bool]) -> None:
        """Bring mapped copies of collections up to date that much was written to, while `go_on` says so.

        It is asked before each step of well under a second. Never raises: what isn't done, a search does.
        """
        if self._upkeep is not None:
            await self._upkeep.run(go_on)

    async def data_version(self) -> int:
        """A number that is another one whenever somebody else has changed the file."""
        return int((await self._access.rows("PRAGMA data_version"))[0][0])

    # --- chunks

    async def chunk_mark(self, run: str, chunk: int) -> tuple[Counts, bool] | None:
        """What a chunk had come to when it was last written, and whether it was finished then."""
        return await self._access.read(lambda db: chunk_mark(db, run, chunk))

    async def standing(self, run: str, chunk: int, collection: str, model_id: str) -> Standing:
        """What a worker asks about a chunk for `collection` and `model_id` before its items, at one go."""
        return await self._access.read(lambda db: standing(db, run, chunk, collection, model_id))

    # --- doors to what is a matter of its own

    @cached_property
    def search(self) -> Searches:
        """Searches in collections."""
        return Searches(self._access, self._search_bytes)

    @cached_property
    def dead(self) -> DeadLetters:
        """Dead letters."""
        return DeadLetters(self._access)

    @cached_property
    def reembeddings(self) -> "Reembeddings":
        """Collections that are embedded anew beside themselves."""
        from embedq_store.reembeddings import Reembeddings

        return Reembeddings(self._access, self.collection, self.search.forget)

    @cached_property
    def schedules(self) -> Schedules:
        """Commands that workers run at times, and what became of them."""
        return Schedules(self._access)

    @cached_property
    def transfer(self) -> "Transfer":
        """Collections in files and under other names."""
        from embedq_store.transfer import Transfer

        return Transfer(self._access, self._wrote, self.reembeddings.sweep)

    @cached_property
    def audits(self) -> "Audits":
        """What is wrong in collections."""
        from embedq_store.audits import Audits

        return Audits(self._access)

    # --- for this room alone

    async def look(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        """What `function` reads, in one journey: nobody else knows SQL."""
        return await self._access.read(function)

    def _wrote(self, collection: str, size: int) -> None:
        if self._upkeep is not None and size:
            self._upkeep.wrote(collection, size)
