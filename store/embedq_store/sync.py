"""The synchronous face: the asynchronous collection, run on an event loop of its own thread."""

import asyncio
import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Coroutine, Iterable
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Final, Self, TypeVar

from embedq_core.model import Model
from embedq_core.vectors import Vector
from embedq_store.collection import AsyncCollection, slices
from embedq_store.embedding import DEFAULT_BATCH_SIZE, Metadata, Value
from embedq_store.filters import Where
from embedq_store.opened import database_path
from embedq_store.search import Entry

_EXIT_SECONDS: Final = 10

_T = TypeVar("_T")


class _LoopThread:
    """An event loop in a daemon thread, started when it is first used. One serves all collections."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Be as new."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._collections: set[AsyncCollection] = set()

    def everything(self) -> list[object]:
        """The loop, the collections that are open on it, and its tasks."""
        if self._loop is None:
            return []
        return [self._loop, *self._collections, *asyncio.all_tasks(self._loop)]

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run `coroutine` there and return what it returns; works inside a running event loop as well."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._started()).result()

    def open(self, collection: AsyncCollection) -> None:
        """Open `collection`, which is closed when the program ends, if it wasn't before."""
        self.run(collection.open())
        self._collections.add(collection)

    def close(self, collection: AsyncCollection) -> None:
        """Close `collection`, if it was opened by this process and isn't closed."""
        if collection in self._collections:
            self._collections.discard(collection)
            self.run(collection.close())

    def drop(self, collection: AsyncCollection) -> None:
        """Close `collection` soon. For the garbage collector: it may run in any thread, in the loop's too."""
        if collection in self._collections and self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._discard(collection), self._loop)

    async def _discard(self, collection: AsyncCollection) -> None:
        self._collections.discard(collection)
        await collection.close()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="embedq-loop", daemon=True)
                self._thread.start()
            return self._loop

    def end(self) -> None:
        """Close what is open and stop, when the interpreter exits."""
        if self._loop is None or self._thread is None:
            return
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._close_all(), self._loop).result(_EXIT_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1)
        if not self._thread.is_alive():
            self._loop.close()

    async def _close_all(self) -> None:
        for collection in list(self._collections):
            await self._discard(collection)
        # Collections that were dropped just before are on their way.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)


_loop_thread = _LoopThread()
atexit.register(_loop_thread.end)


def _after_fork(inherited: list[object]) -> None:
    # The child has none of the parent's threads, and must not touch what it shares with the parent: neither the
    # loop's selector nor the connections. It gets a loop of its own when it needs one. Nor may the parent's be
    # collected as garbage here: tasks and connections that go on there would be reported as given up.
    inherited.extend(_loop_thread.everything())
    _loop_thread.forget()


if hasattr(os, "register_at_fork"):
    # The list is the interpreter's alone: one of the module's would be cleared with it, while the interpreter ends.
    os.register_at_fork(after_in_child=partial(_after_fork, []))


class Collection:
    """A collection of embeddings: see `AsyncCollection`, whose every member it has, without the `await`.

    `database` is a path, a `sqlite3.Connection` or `sqlite_utils.Database` on a file, or None for a database
    in memory. What a call has returned from is committed; the file is closed by `close`, or soon after the object
    is dropped, at the latest when the program ends.
    """

    DoesNotExist = AsyncCollection.DoesNotExist

    # Set by the face of the package: the asynchronous class that knows where models come from.
    asynchronous: ClassVar[type[AsyncCollection]] = AsyncCollection

    def __init__(
        self,
        name: str,
        database: object = None,
        *,
        model: Model | None = None,
        model_id: str | None = None,
        create: bool = True,
        search_bytes: int | None = None,
    ) -> None:
        self._collection = self.asynchronous(
            name, database, model=model, model_id=model_id, create=create, search_bytes=search_bytes
        )
        _loop_thread.open(self._collection)
        weakref.finalize(self, _loop_thread.drop, self._collection).atexit = False

    def __repr__(self) -> str:
        return repr(self._collection).replace("AsyncCollection", "Collection")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database. Closing twice is closing once."""
        _loop_thread.close(self._collection)

    @property
    def id(self) -> int:
        """Primary key of the collection's row."""
        return self._collection.id

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._collection.name

    @property
    def model_id(self) -> str:
        """Full id of the model that the collection is embedded with."""
        return self._collection.model_id

    def model(self) -> Model:
        """The live model of this collection. Raises UnknownModel where no plugin has it."""
        return self._collection.model()

    def count(self) -> int:
        """The number of entries."""
        return _loop_thread.run(self._collection.count())

    def embed(self, id: str, value: Value, metadata: Metadata = None, store: bool = False) -> None:  # noqa: A002
        """Embed and keep one value: see `AsyncCollection.embed`."""
        _loop_thread.run(self._collection.embed(id, value, metadata, store))

    def embed_multi(
        self, entries: Iterable[tuple[str, Value]], store: bool = False, batch_size: int = DEFAULT_BATCH_SIZE
    ) -> None:
        """Embed many `(id, value)` pairs: see `AsyncCollection.embed_multi_with_metadata`."""
        self.embed_multi_with_metadata(((id_, value, None) for id_, value in entries), store, batch_size)

    def embed_multi_with_metadata(
        self,
        entries: Iterable[tuple[str, Value, Metadata]],
        store: bool = False,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        """Embed many `(id, value, metadata)` triples: see `AsyncCollection.embed_multi_with_metadata`."""
        # The caller's iterable is followed in the caller's thread: it may read from a database of its own.
        for batch in slices(entries, max(batch_size, 1)):
            _loop_thread.run(self._collection.embed_multi_with_metadata(batch, store, batch_size))

    def similar(
        self,
        value: Value,
        number: int = 10,
        prefix: str | None = None,
        where: Where | None = None,
        *,
        ann: bool = False,
        group: bool = False,
    ) -> list[Entry]:
        """The `number` entries most similar to `value`: see `AsyncCollection.similar`."""
        return _loop_thread.run(self._collection.similar(value, number, prefix, where, ann=ann, group=group))

    def similar_by_id(
        self,
        id: str,  # noqa: A002
        number: int = 10,
        prefix: str | None = None,
        where: Where | None = None,
        *,
        ann: bool = False,
        group: bool = False,
    ) -> list[Entry]:
        """The `number` entries most similar to the entry `id`. Raises DoesNotExist."""
        return _loop_thread.run(self._collection.similar_by_id(id, number, prefix, where, ann=ann, group=group))

    def similar_by_vector(
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
        """The `number` entries nearest to `vector`: see `AsyncCollection.similar_by_vector`."""
        return _loop_thread.run(
            self._collection.similar_by_vector(vector, number, skip_id, prefix, where, ann=ann, group=group)
        )

    def similar_many(
        self,
        values: Iterable[Value],
        number: int = 10,
        prefix: str | None = None,
        where: Where | None = None,
        *,
        ann: bool = False,
        group: bool = False,
    ) -> list[list[Entry]]:
        """The answer of `similar` to each of `values`: see `AsyncCollection.similar_many`."""
        # The caller's iterable is followed in the caller's thread: it may read from a database of its own.
        return _loop_thread.run(
            self._collection.similar_many(list(values), number, prefix, where, ann=ann, group=group)
        )

    def similar_many_by_id(
        self,
        ids: Iterable[str],
        number: int = 10,
        prefix: str | None = None,
        where: Where | None = None,
        *,
        ann: bool = False,
        group: bool = False,
    ) -> list[list[Entry]]:
        """The answer of `similar_by_id` to each of `ids`. Raises DoesNotExist."""
        return _loop_thread.run(
            self._collection.similar_many_by_id(list(ids), number, prefix, where, ann=ann, group=group)
        )

    def similar_many_by_vector(
        self,
        vectors: Iterable[Vector],
        number: int = 10,
        prefix: str | None = None,
        where: Where | None = None,
        *,
        ann: bool = False,
        group: bool = False,
    ) -> list[list[Entry]]:
        """The answer of `similar_by_vector` to each of `vectors`: see `AsyncCollection.similar_many_by_vector`."""
        return _loop_thread.run(
            self._collection.similar_many_by_vector(list(vectors), number, prefix, where, ann=ann, group=group)
        )

    def build_index(self) -> None:
        """Build the index for searches with `ann`: see `AsyncCollection.build_index`."""
        _loop_thread.run(self._collection.build_index())

    def delete(self) -> None:
        """Delete the collection and all its entries. Nothing happens where there is none of this name any more."""
        _loop_thread.run(self._collection.delete())

    @classmethod
    def exists(cls, database: object, name: str) -> bool:
        """Whether `database` holds a collection called `name`."""
        # A connection answers in the thread that made it.
        return _loop_thread.run(cls.asynchronous.exists(database_path(database), name))
