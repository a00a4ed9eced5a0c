"""A named group of embeddings in a database, for Python programs: the asynchronous face."""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from embedq_core.configuration import check_writing
from embedq_core.errors import EntryMissing, ModelMismatch
from embedq_core.items import Item
from embedq_core.model import query_count
from embedq_core.vectors import Matrix, Vector
from embedq_store.connection import MEMORY
from embedq_store.embedding import DEFAULT_BATCH_SIZE, Metadata, Value, checked_item, embed_into
from embedq_store.filters import Where
from embedq_store.opened import OpenCollection, database_path
from embedq_store.querying import query_vectors
from embedq_store.search import Entry
from embedq_store.standing import CollectionInfo
from embedq_store.store import Store

# Queries whose vectors are held at once.
_QUERIES = 1024


class AsyncCollection(OpenCollection):
    """A collection of embeddings: entries with an id each, made by one model.

    `database` is a path, a `sqlite3.Connection` or `sqlite_utils.Database` on a file, or None for a database
    in memory. The collection is made if it isn't there, which needs `model` or `model_id`; with `create=False`
    it must be there, and `DoesNotExist` is raised if it isn't. `search_bytes` of its vectors may be mapped at a time by
    a search; None: as the settings say.

    Await it, or use it as an asynchronous context manager, before anything else:

        async with AsyncCollection("phrases", "embeddings.db", model_id="hashing") as phrases:
            await phrases.embed("hound", "my happy hound")

    Where another program exchanges its vectors for those of another model (`embedq reembed`), whatever is called next
    uses these and that model; where the model was named here, ModelMismatch is raised instead.
    """

    async def count(self) -> int:
        """The number of entries."""
        return await self._open_store().count((await self._current()).id)

    async def embed(self, id: str, value: Value, metadata: Metadata = None, store: bool = False) -> None:  # noqa: A002
        """Embed `value` and keep the vector under `id`; with `store`, keep the value beside it.

        Where `id` holds this value already, nothing happens, except that metadata or content that is missing
        or different is brought up to date. Where another id holds it, the vector is copied. The model is
        called in neither case. Raises ValueError for a value that the model can't take.
        """
        await self.embed_multi_with_metadata([(id, value, metadata)], store=store)

    async def embed_multi(
        self, entries: Iterable[tuple[str, Value]], store: bool = False, batch_size: int = DEFAULT_BATCH_SIZE
    ) -> None:
        """Embed many `(id, value)` pairs: see `embed_multi_with_metadata`."""
        await self.embed_multi_with_metadata(((id_, value, None) for id_, value in entries), store, batch_size)

    async def embed_multi_with_metadata(
        self,
        entries: Iterable[tuple[str, Value, Metadata]],
        store: bool = False,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        """Embed many `(id, value, metadata)` triples, `batch_size` at a time, each batch one transaction.

        Equal values are embedded once, and values that the collection knows not at all. Of two entries with
        one id the last wins. Raises ValueError for a value that the model can't take, BadVectors for vectors
        that can't be stored; the batches before are kept.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        for batch in slices(entries, batch_size):
            await self._embed_batch([checked_item(*entry) for entry in batch], store=store, batch_size=batch_size)

    async def _embed_batch(self, items: list[Item], *, store: bool, batch_size: int) -> None:
        while True:
            found = await self._current()
            try:
                return await self._embed_into(found, items, store=store, batch_size=batch_size)
            except ModelMismatch:
                # It may have been exchanged meanwhile: then the model is the new one's.
                if await self._current() == found:
                    raise

    async def _embed_into(self, found: CollectionInfo, items: list[Item], *, store: bool, batch_size: int) -> None:
        database, model = self._open_store(), self._model_called(found.model_id)
        # Before the model is paid.
        recorded = await database.configuration(found.id)
        if recorded is not None:
            check_writing(self.name, found.model_id, recorded, model.configuration)
        if await embed_into(database, self.name, model, items, store=store, batch_size=batch_size):
            # A collection that was deleted, here or by another program, has been made anew under another key.
            await self._current()

    async def vector(self, id: str) -> tuple[float, ...]:  # noqa: A002
        """The stored vector of the entry `id`. Raises DoesNotExist."""
        return await self._steadily(lambda found: self._vector(found, id))

    async def _vector(self, found: CollectionInfo, id_: str) -> tuple[float, ...]:
        try:
            return await self._open_store().vector(found.id, id_)
        except EntryMissing as error:
            raise self.DoesNotExist(f"the collection {self.name!r} has no entry {id_!r}") from error

    async def similar(
        self,
        value: Value,
        number: int = 10,
        prefix: str | None = None,
        where: Where | None = None,
        *,
        ann: bool = False,
        group: bool = False,
    ) -> list[Entry]:
        """The `number` entries most similar to `value`, which the model embeds; ids under `prefix` only.

        `where` maps keys of the metadata to the value that must stand there, or to several, of which one must:
        `where={"lang": "en", "year": [2023, 2024]}`. Dots lead into objects: `"author.name"`. Text is told from
        numbers, and true from 1. With `group`, documents that are stored in parts are answered, each once, by the
        best of its parts: under the id of the document, with score, content and metadata of that part.

        With `ann` (approximate nearest neighbours) a large collection answers many times as fast, and may miss one
        of a hundred. It needs `usearch`, and an index, which is built in the background when it is first asked for;
        until it is there, and where a filter keeps few entries, the answer is exact. See `build_index`.
        """

        async def search(found: CollectionInfo) -> list[Entry]:
            vectors = await self._query_vectors(found, [value])
            return await self._open_store().search.similar(
                found.id, vectors[0], number, prefix=prefix, where=where, ann=ann, group=group
            )

        return await self._steadily(search)

    async def _query_vectors(self, found: CollectionInfo, values: list[Value]) -> Matrix:
        return await query_vectors(self._open_store(), found.id, self.name, self._model_called(found.model_id), values)

    async def similar_by_id(
        self,
        id: str,  # noqa: A002
        number: int = 10,
        prefix: str | None = None,
        where: Where | None = None,
        *,
        ann: bool = False,
        group: bool = False,
    ) -> list[Entry]:
        """The `number` entries most similar to the entry `id`, itself left out. Raises DoesNotExist."""

        async def search(found: CollectionInfo) -> list[Entry]:
            vector = await self._vector(found, id)
            return await self._open_store().search.similar(
                found.id, vector, number, skip_id=id, prefix=prefix, where=where, ann=ann, group=group
            )

        return await self._steadily(search)

    async def similar_by_vector(
        self,
        vector: Vector,
        number: int = 10,
        skip_id: str | None = None,
        prefix: str | None = None,
        where: Where | None = None,
        *,
        ann: bool = False,
        group: bool = False,
    ) -> list[Entry]:
        """The `number` entries nearest to `vector` by cosine similarity, best first, `skip_id` left out.

        It must be of the model that the collection has now. Raises ValueError for a vector of another dimension than
        the collection's.
        """

        async def search(found: CollectionInfo) -> list[Entry]:
            return await self._open_store().search.similar(
                found.id, vector, number, skip_id=skip_id, prefix=prefix, where=where, ann=ann, group=group
            )

        return await self._steadily(search)

    async def similar_many(
        self,
        values: Iterable[Value],
        number: int = 10,
        prefix: str | None = None,
        where: Where | None = None,
        *,
        ann: bool = False,
        group: bool = False,
    ) -> list[list[Entry]]:
        """The answer of `similar` to each of `values`, in their order, in a fraction of the time for each.

        They are embedded in batches of the model's own size, equal ones once.
        """
        asked = list(values)

        async def search(found: CollectionInfo) -> list[list[Entry]]:
            answers: list[list[Entry]] = []
            for some in slices(asked, query_count(self._model_called(found.model_id))):
                vectors = await self._query_vectors(found, some)
                answers += await self._open_store().search.similar_many(
                    found.id, vectors, number, prefix=prefix, where=where, ann=ann, group=group
                )
            return answers

        return await self._steadily(search)

    async def similar_many_by_id(
        self,
        ids: Iterable[str],
        number: int = 10,
        prefix: str | None = None,
        where: Where | None = None,
        *,
        ann: bool = False,
        group: bool = False,
    ) -> list[list[Entry]]:
        """The answer of `similar_by_id` to each of `ids`, in their order. Raises DoesNotExist."""
        asked = list(ids)

        async def search(found: CollectionInfo) -> list[list[Entry]]:
            answers: list[list[Entry]] = []
            for some in slices(asked, _QUERIES):
                vectors = await self._open_store().vectors(found.id, some)
                for id_ in some:
                    if id_ not in vectors:
                        raise self.DoesNotExist(f"the collection {self.name!r} has no entry {id_!r}")
                answers += await self._open_store().search.similar_many(
                    found.id,
                    [vectors[id_] for id_ in some],
                    number,
                    skip_ids=some,
                    prefix=prefix,
                    where=where,
                    ann=ann,
                    group=group,
                )
            return answers

        return await self._steadily(search)

    async def similar_many_by_vector(
        self,
        vectors: Iterable[Vector],
        number: int = 10,
        prefix: str | None = None,
        where: Where | None = None,
        *,
        ann: bool = False,
        group: bool = False,
    ) -> list[list[Entry]]:
        """The answer of `similar_by_vector` to each of `vectors`, in their order.

        A matrix of shape (queries, dimension) will do. Raises ValueError where one has another dimension.
        """
        asked = list(vectors)

        async def search(found: CollectionInfo) -> list[list[Entry]]:
            answers: list[list[Entry]] = []
            for some in slices(asked, _QUERIES):
                answers += await self._open_store().search.similar_many(
                    found.id, some, number, prefix=prefix, where=where, ann=ann, group=group
                )
            return answers

        return await self._steadily(search)

    async def build_index(self) -> None:
        """Build the index for searches with `ann`, or add to it what it lacks, and return when it is there.

        It takes minutes for a million entries. A small collection gets none: it is searched exactly as fast. Raises
        UsageError where usearch isn't installed, OSError.
        """
        await self._open_store().search.build_index((await self._current()).id)

    async def delete(self) -> None:
        """Delete the collection and all its entries. Nothing happens where there is none of this name any more."""
        # Another program may have deleted it, and the next collection may have been given its key.
        store, current = self._open_store(), await self._current()
        if await store.find_collection(self.name) == current:
            await store.delete_collection(current.id)

    @classmethod
    async def exists(cls, database: object, name: str) -> bool:
        """Whether `database` (as in the constructor) holds a collection called `name`."""
        path = database_path(database)
        if path != MEMORY and not await asyncio.to_thread(Path(path).exists):
            return False
        async with await Store.open(path, read_only=path != MEMORY) as store:
            return await store.find_collection(name) is not None


def slices(entries: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """`entries` in lists of `size`, the last one shorter."""
    iterator = iter(entries)
    while batch := list(islice(iterator, size)):
        yield batch
