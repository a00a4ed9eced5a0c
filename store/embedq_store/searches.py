"""Searches in collections, and what they keep between them: vectors, mapped copies, indexes. Reached as `Store.search`.

What does the work is imported by the first search: with numpy it takes longer than all else that a command does.
"""

import asyncio
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from embedq_core.parts import belongs_to
from embedq_store.access import Access
from embedq_store.budget import SearchBytes
from embedq_store.connection import translated

if TYPE_CHECKING:
    from embedq_core.vectors import Vector
    from embedq_store.copying import CopyFolder
    from embedq_store.filters import Where
    from embedq_store.graph import Built, Report
    from embedq_store.search import CollectionIndex, Entry


class Searches:
    """The collections of a database as they are searched; each is told by its key."""

    def __init__(self, access: Access, search_bytes: SearchBytes) -> None:
        self._access = access
        self._search_bytes = search_bytes
        self._indexes: dict[int, CollectionIndex] = {}

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
        with translated(self._access.path):
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
        with translated(self._access.path):
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

        with translated(self._access.path):
            many = await self._index(collection_id).refresh()
        built = Built.NO_COPY
        if self._copies is not None:
            built = await build_meanwhile(self._access.path, collection_id, report)
        return built if many or built is not Built.NO_COPY else Built.SMALL

    async def forget(self, collection_id: int) -> None:
        """Let go of what is held of a collection that is gone, and remove its copy."""
        self._indexes.pop(collection_id, None)
        if self._copies is not None:
            await asyncio.to_thread(self._copies.remove, collection_id)

    # --- private

    @cached_property
    def _copies(self) -> "CopyFolder | None":
        if self._access.in_memory:
            return None
        from embedq_store.copying import CopyFolder

        return CopyFolder(self._access.path)

    async def _document(self, collection_id: int, entry_id: str) -> str:
        """The id of the document that an entry belongs to."""
        rows = await self._access.rows(
            "SELECT metadata FROM embeddings WHERE collection_id = ? AND id = ?", collection_id, entry_id
        )
        return belongs_to(entry_id, rows[0][0]) if rows else entry_id

    def _index(self, collection_id: int) -> "CollectionIndex":
        index = self._indexes.get(collection_id)
        if index is None:
            from embedq_store.search import CollectionIndex

            search_bytes = self._search_bytes() if callable(self._search_bytes) else self._search_bytes
            index = self._indexes[collection_id] = CollectionIndex(
                self._access.reader, collection_id, self._copies, search_bytes
            )
        return index
