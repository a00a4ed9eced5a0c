"""A database of embeddings: the one door to everything in this room."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import aiosqlite

from embedq_core.configuration import Configuration
from embedq_core.counts import Counts
from embedq_core.errors import CollectionMissing, DatabaseReadOnly, EntryMissing
from embedq_core.parts import belongs_to
from embedq_core.text import shown, suggestion
from embedq_store import deadletters
from embedq_store.budget import DEFAULT_SEARCH_BYTES, SearchBytes
from embedq_store.bulk import in_thread
from embedq_store.configurations import configuration_in_force
from embedq_store.connection import MEMORY, check_file, connect, prepare, translated
from embedq_store.deadletters import DeadGroup, DeadHeading, DeadLetter, DeadLetterSummary, Selection
from embedq_store.lookup import look_up
from embedq_store.outcomes import Incoming, Known
from embedq_store.schema import check_schema
from embedq_store.standing import (
    CollectionFigures,
    CollectionInfo,
    Standing,
    chunk_mark,
    dimension_of,
    find_collection,
    standing,
)
from embedq_store.upkeep import Upkeep
from embedq_store.writer import Writer, ensure_collection
from embedq_store.writes import Target, Write

# What searches is imported by the first search: with numpy it takes longer than all else that a command does.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embedq_core.vectors import Vector
    from embedq_store.copying import CopyFolder
    from embedq_store.filters import Where
    from embedq_store.graph import Built, Report
    from embedq_store.reembeddings import Reembeddings
    from embedq_store.search import CollectionIndex, Entry

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
        self._search_bytes = search_bytes
        self._upkeep = None if path == MEMORY else Upkeep(path)
        self._reader = reader
        self._writer_connection = writer
        self._writer = None if writer is None else Writer(writer, path)
        self._indexes: dict[int, CollectionIndex] = {}

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
        if self._writer is not None:
            await self._writer.close()
        await self._reader.close()
        if self._writer_connection is not None:
            await self._writer_connection.close()

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
        with translated(self.path):
            return await in_thread(self._reader, lambda db: find_collection(db, name))

    async def collections(self) -> list[CollectionInfo]:
        """All collections, by name."""
        if not await self._has_table("collections"):
            return []
        rows = await self._read("SELECT id, name, model FROM collections ORDER BY name")
        return [CollectionInfo(*row) for row in rows]

    async def create_collection(self, name: str, model_id: str) -> CollectionInfo:
        """The collection called `name`, made for `model_id` if it isn't there, whatever its model if it is."""

        async def ensure(db: aiosqlite.Connection) -> CollectionInfo:
            key, model = await ensure_collection(db, Target(name, model_id))
            return CollectionInfo(key, name, model)

        return await self._writing().transact(ensure)

    async def delete_collection(self, collection_id: int) -> None:
        """Delete a collection and all its entries, in one transaction, and then what stood beside it.

        Raises UsageError where that holds entries that are nowhere else: see `Reembeddings.drop`.
        """
        from embedq_store.beginning import part_with

        async def delete(db: aiosqlite.Connection) -> None:
            await in_thread(db, lambda connection: part_with(connection, collection_id))
            await db.execute("DELETE FROM embeddings WHERE collection_id = ?", (collection_id,))
            await db.execute("DELETE FROM collections WHERE id = ?", (collection_id,))

        await self._writing().transact(delete)
        await self._removed(collection_id)
        await self.reembeddings.sweep()

    async def _removed(self, collection_id: int) -> None:
        self._indexes.pop(collection_id, None)
        if self._copies is not None:
            await asyncio.to_thread(self._copies.remove, collection_id)

    async def count(self, collection_id: int) -> int:
        """The number of entries of a collection."""
        rows = await self._read("SELECT count(*) FROM embeddings WHERE collection_id = ?", collection_id)
        return int(rows[0][0])

    async def describe(self, collection_id: int) -> CollectionFigures:
        """The figures of a collection: reads all of its rows."""
        rows = await self._read(
            "SELECT count(*), sum(content IS NOT NULL OR content_blob IS NOT NULL), sum(metadata IS NOT NULL),"
            " sum(length(embedding)), sum(coalesce(length(CAST(content AS BLOB)), length(content_blob), 0)),"
            " min(updated), max(updated) FROM embeddings WHERE collection_id = ?",
            collection_id,
        )
        with translated(self.path):
            dimension = await in_thread(self._reader, lambda db: dimension_of(db, collection_id))
        return CollectionFigures(rows[0][0], dimension, *(value or 0 for value in rows[0][1:5]), *rows[0][5:])

    # --- entries

    async def known(self, collection: str, incoming: Sequence[Incoming]) -> Known:
        """What is committed that bears on `incoming`; nothing where the collection isn't there."""

        def look(db: sqlite3.Connection) -> Known:
            found = find_collection(db, collection)
            return Known() if found is None else look_up(db, found.id, incoming)

        with translated(self.path):
            return await in_thread(self._reader, look)

    async def dimension(self, collection: str) -> int | None:
        """The dimension of a collection's vectors; None while it has none."""

        def look(db: sqlite3.Connection) -> int | None:
            found = find_collection(db, collection)
            return None if found is None else dimension_of(db, found.id)

        with translated(self.path):
            return await in_thread(self._reader, look)

    async def configuration(self, collection_id: int) -> Configuration | None:
        """What the vectors of a collection were made with, beside its model; None while it has none."""
        with translated(self.path):
            return await in_thread(self._reader, lambda db: configuration_in_force(db, collection_id))

    async def write(self, write: Write) -> int:
        """Commit `write` together with whatever else is waiting: see `Writer.write`."""
        removed = await self._writing().write(write)
        if self._upkeep is not None and write.rows:
            self._upkeep.wrote(write.target.collection, len(write.rows) * len(write.rows[0].vector))
        return removed

    async def vector(self, collection_id: int, entry_id: str) -> tuple[float, ...]:
        """The stored vector of an entry. Raises EntryMissing."""
        rows = await self._read(
            "SELECT embedding FROM embeddings WHERE collection_id = ? AND id = ?", collection_id, entry_id
        )
        if not rows:
            raise EntryMissing(f"the collection has no entry {shown(entry_id)!r}")
        from embedq_core.vectors import decode

        return decode(rows[0][0])

    async def vectors(self, collection_id: int, ids: Sequence[str]) -> dict[str, "npt.NDArray[np.float32]"]:
        """The stored vectors of those of the entries that are there, by their ids; each of shape (dimension,)."""
        import numpy as np

        from embedq_core.vectors import STORED_DTYPE

        found: dict[str, npt.NDArray[np.float32]] = {}
        for start in range(0, len(ids), _IDS):
            some = ids[start : start + _IDS]
            rows = await self._read(
                "SELECT id, embedding FROM embeddings WHERE collection_id = ?"  # noqa: S608 - only question marks
                f" AND id IN ({','.join('?' * len(some))})",
                collection_id,
                *some,
            )
            found |= {row[0]: np.frombuffer(row[1], dtype=STORED_DTYPE) for row in rows}
        return found

    async def similar(
        self,
        collection_id: int,
        vector: "Vector",
        number: int = 10,
        *,
        skip_id: str | None = None,
        prefix: str | None = None,
        where: "Where | None" = None,
        ann: bool = False,
        group: bool = False,
    ) -> "list[Entry]":
        """The `number` entries nearest to `vector` (one float a dimension) by cosine similarity, best first.

        Of those whose ids begin with `prefix` and whose metadata holds what `where` says: see `Filter`. Equal scores
        stand in the order of ids. With `group`, documents are answered, each once, by the best of its parts: id and
        score of the document, content and metadata of that part; one of which `skip_id` is a part is left out.
        Raises ValueError for a vector of another dimension.

        With `ann` a few of them may be missed, for the sake of speed: their places are those of the next. Where there
        is no index yet the search is exact (`why_exact`), and the index is built by a process in the background.
        Raises UsageError where usearch isn't installed.
        """
        from embedq_store.filters import Filter
        from embedq_store.search import Query

        skip = await self._document(collection_id, skip_id) if group and skip_id is not None else skip_id
        query = Query.of(vector, number, skip, Filter.of(prefix, where), ann=ann, group=group)
        with translated(self.path):
            return await self._index(collection_id).search(query)

    async def similar_many(
        self,
        collection_id: int,
        vectors: "Iterable[Vector]",
        number: int = 10,
        *,
        skip_ids: Sequence[str] | None = None,
        prefix: str | None = None,
        where: "Where | None" = None,
        ann: bool = False,
        group: bool = False,
    ) -> "list[list[Entry]]":
        """What `similar` gives for each of `vectors`, in their order, in a fraction of the time.

        `skip_ids` holds the id to leave out for each of them.
        """
        from embedq_store.filters import Filter
        from embedq_store.search import Query

        rows = list(vectors)
        filter_ = Filter.of(prefix, where)
        skips: list[str | None] = [None] * len(rows) if skip_ids is None else list(skip_ids)
        if group:
            skips = [None if skip is None else await self._document(collection_id, skip) for skip in skips]
        queries = [
            Query.of(vector, number, skip, filter_, ann=ann, group=group)
            for vector, skip in zip(rows, skips, strict=True)
        ]
        with translated(self.path):
            return await self._index(collection_id).search_many(queries)

    def why_exact(self, collection_id: int) -> str | None:
        """Why the last search with `ann` was an exact one, where an index would have been of use; else None."""
        return self._index(collection_id).why_exact

    async def build_index(self, collection_id: int, report: "Report | None" = None) -> "Built":
        """Build the index for searches with `ann`, or add what it lacks: see `indexing.build`, in this process.

        Small collections get none. Where another process is building it, wait for that. Raises UsageError where
        usearch isn't installed, OSError.
        """
        from embedq_store.graph import Built, need_usearch
        from embedq_store.indexing import build_meanwhile

        need_usearch()

        with translated(self.path):
            many = await self._index(collection_id).refresh()
        built = Built.NO_COPY
        if self._copies is not None:
            built = await build_meanwhile(self.path, collection_id, report)
        return built if many or built is not Built.NO_COPY else Built.SMALL

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

    # --- chunks and dead letters, re-embeddings

    @cached_property
    def reembeddings(self) -> "Reembeddings":
        """Collections that are embedded anew beside themselves."""
        from embedq_store.reembeddings import Reembeddings

        return Reembeddings(self.path, self._reader, self._writer, self.collection, self._removed)

    async def chunk_mark(self, run: str, chunk: int) -> tuple[Counts, bool] | None:
        """What a chunk had come to when it was last written, and whether it was finished then."""
        with translated(self.path):
            return await in_thread(self._reader, lambda db: chunk_mark(db, run, chunk))

    async def standing(self, run: str, chunk: int, collection: str, model_id: str) -> Standing:
        """What a worker asks about a chunk for `collection` and `model_id` before its items, at one go."""
        with translated(self.path):
            return await in_thread(self._reader, lambda db: standing(db, run, chunk, collection, model_id))

    async def dead_ids(self, run: str, chunk: int) -> set[str]:
        """Ids of the items of a chunk that are dead letters."""
        rows = await self._read("SELECT id FROM embedq_dead WHERE run = ? AND chunk = ?", run, chunk)
        return {row[0] for row in rows}

    async def dead_letters(
        self,
        *,
        ids: Sequence[str] = (),
        keys: Sequence[int] = (),
        collection: str | None = None,
        run: str | None = None,
        error: str | None = None,
        limit: int | None = None,
    ) -> list[DeadLetter]:
        """Dead letters, newest first, at most `limit`; of what is named: see `Selection`."""
        selection = Selection(tuple(ids), tuple(keys), collection, run, error)
        if not await self._has_table("embedq_dead"):
            return []
        with translated(self.path):
            return await deadletters.select(self._reader, selection, limit)

    async def dead_headings(self, selection: Selection, limit: int | None = None) -> list[DeadHeading]:
        """Dead letters without their contents, newest first, at most `limit`."""
        if not await self._has_table("embedq_dead"):
            return []
        with translated(self.path):
            return await deadletters.headings(self._reader, selection, limit)

    async def dead_summary(self) -> list[DeadLetterSummary]:
        """How many dead letters there are of each collection and error class."""
        if not await self._has_table("embedq_dead"):
            return []
        with translated(self.path):
            return await deadletters.summarise(self._reader)

    async def dead_groups(self, selection: Selection) -> list[DeadGroup]:
        """How many dead letters there are of each collection and model."""
        if not await self._has_table("embedq_dead"):
            return []
        with translated(self.path):
            return await deadletters.groups(self._reader, selection)

    async def dead_page(
        self, selection: Selection, after_key: int, last_key: int, *, max_items: int, max_bytes: int
    ) -> list[DeadLetter]:
        """The next dead letters in the order of their keys: see `deadletters.page`."""
        with translated(self.path):
            return await deadletters.page(
                self._reader, selection, after_key, last_key, max_items=max_items, max_bytes=max_bytes
            )

    async def delete_dead(self, selection: Selection, last_key: int) -> int:
        """Delete dead letters whose keys are not beyond `last_key`, in one transaction; return how many."""
        return await self._writing().transact(lambda db: deadletters.delete(db, selection, last_key))

    async def delete_stored_dead(self, selection: Selection) -> int:
        """Delete dead letters whose items the store holds; return how many."""
        return await self._writing().transact(lambda db: deadletters.delete_stored(db, selection))

    async def look(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        """What `function` reads, in one journey. For this room alone: nobody else knows SQL."""
        with translated(self.path):
            return await in_thread(self._reader, function)

    # --- private

    @cached_property
    def _copies(self) -> "CopyFolder | None":
        if self.path == MEMORY:
            return None
        from embedq_store.copying import CopyFolder

        return CopyFolder(self.path)

    async def _document(self, collection_id: int, entry_id: str) -> str:
        """The id of the document that an entry belongs to."""
        rows = await self._read(
            "SELECT metadata FROM embeddings WHERE collection_id = ? AND id = ?", collection_id, entry_id
        )
        return belongs_to(entry_id, rows[0][0]) if rows else entry_id

    def _index(self, collection_id: int) -> "CollectionIndex":
        index = self._indexes.get(collection_id)
        if index is None:
            from embedq_store.search import CollectionIndex

            search_bytes = self._search_bytes() if callable(self._search_bytes) else self._search_bytes
            index = self._indexes[collection_id] = CollectionIndex(
                self._reader, collection_id, self._copies, search_bytes
            )
        return index

    async def _read(self, sql: str, *parameters: object) -> list[Any]:
        with translated(self.path):
            return list(await self._reader.execute_fetchall(sql, parameters))

    def _writing(self) -> Writer:
        if self._writer is None:
            raise DatabaseReadOnly(f"{self.path}: was opened for reading only")
        return self._writer

    async def _has_table(self, name: str) -> bool:
        return bool(await self._read("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", name))
