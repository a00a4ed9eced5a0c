"""What a collection is to a Python program before anything is done with it: found or made, followed, closed."""

import contextlib
import os
import sqlite3
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from embedq_core.errors import CollectionMissing, EntryMissing, ModelMismatch, NoModel, UnknownModel, UsageError
from embedq_core.model import Model
from embedq_store.budget import DEFAULT_SEARCH_BYTES
from embedq_store.connection import MEMORY
from embedq_store.standing import CollectionInfo
from embedq_store.steady import steadily
from embedq_store.store import Store

# No collection has this key.
_NOBODY: Final = -1

_T = TypeVar("_T")


class OpenCollection:
    """A collection that is open in this program, and the model that it has now: see `AsyncCollection`."""

    class DoesNotExist(CollectionMissing, EntryMissing):
        """The collection, or the id in it, does not exist."""

    id: int
    """Primary key of the collection's row."""
    name: str
    model_id: str
    """Full id of the model that the collection is embedded with."""

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
        if search_bytes is not None and search_bytes < 1:
            raise UsageError(f"search_bytes must be at least 1, not {search_bytes}")
        self.name = name
        self._search_bytes = search_bytes
        self._path = database_path(database)
        self._model = model
        self._asked_model_id = model_id if model is None else model.model_id
        self._create = create
        self._store: Store | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} in {self._path}>"

    def __await__(self) -> Generator[Any, None, Self]:
        return self.open().__await__()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> Self:
        """Open the database and find or make the collection. Opening twice is opening once.

        Raises DoesNotExist, NoModel (a ValueError), ModelMismatch (a ValueError), UnknownModel, StoreError.
        """
        if self._store is not None:
            return self
        # The settings are read by the first search: who only writes needs none.
        store = await Store.open(self._path, search_bytes=self._search_bytes or type(self).default_search_bytes)
        try:
            await self._find_or_create(store)
        except BaseException:
            await store.close()
            raise
        self._store = store
        return self

    async def _find_or_create(self, store: Store) -> None:
        found = await store.find_collection(self.name)
        if found is None:
            if not self._create:
                raise self.DoesNotExist(f"there is no collection {self.name!r} in {self._path}")
            found = await store.create_collection(self.name, self._model_for_new().model_id)
        self._adopt(found)

    def _model_for_new(self) -> Model:
        if self._model is None:
            if self._asked_model_id is None:
                raise NoModel(f"model= or model_id= must be given: the collection {self.name!r} is new")
            self._model = type(self).resolve_model(self._asked_model_id)
        return self._model

    def _adopt(self, found: CollectionInfo) -> None:
        """Be the collection that was found: the one that was opened, or the one that has taken its place since."""
        asked = self._asked_model_id
        if asked is not None and asked != found.model_id:
            if self._model is None:
                self._model = type(self).resolve_model(asked)  # it may be an alias
            if self._model.model_id != found.model_id:
                raise ModelMismatch(
                    f"the collection {self.name!r} was embedded with {found.model_id}, not with {self._model.model_id}"
                )
        elif self._model is not None and self._model.model_id != found.model_id:
            self._model = None
        self.id, self.model_id = found.id, found.model_id

    async def _current(self) -> CollectionInfo:
        """The collection as it is now: another program may have exchanged its vectors for those of another model.

        Raises ModelMismatch where this object was told its model, and that is another.
        """
        store = self._open_store()
        found = await store.find_collection(self.name)
        if found is None:  # deleted, by another program perhaps: what is written next makes it anew
            # Or it has another name now. Rows that are left of what was deleted are nobody's.
            going = await store.is_being_removed(self.id)
            return CollectionInfo(_NOBODY if going else self.id, self.name, self.model_id)
        if (found.id, found.model_id) != (self.id, self.model_id):
            self._adopt(found)
        return found

    async def _steadily(self, use: Callable[[CollectionInfo], Awaitable[_T]]) -> _T:
        return await steadily(self._open_store(), self._current, use)

    async def close(self) -> None:
        """Close the database. Everything that was awaited is committed."""
        if self._store is not None:
            store, self._store = self._store, None
            await store.close()

    @classmethod
    def resolve_model(cls, name: str) -> Model:
        """The model called `name`. The face of the package says where models come from: this room knows none."""
        raise UnknownModel(f"no model {name!r}: this class knows no plugins, use embedq.{cls.__name__}")

    @classmethod
    def default_search_bytes(cls) -> int:
        """The `search_bytes` of a collection that was given none. The face of the package knows the settings."""
        return DEFAULT_SEARCH_BYTES

    def _open_store(self) -> Store:
        if self._store is None:
            raise UsageError(f"{self!r} is not open: await it first, or use 'async with'")
        return self._store

    def model(self) -> Model:
        """The live model of this collection. Raises UnknownModel where no plugin has it."""
        return self._model_called(self.model_id)

    def _model_called(self, model_id: str) -> Model:
        if self._model is None or self._model.model_id != model_id:
            self._model = type(self).resolve_model(model_id)
        return self._model


def database_path(database: object) -> str:
    """The path of the database that `database` names: a path, a connection to a file, or None for memory.

    Raises UsageError for a connection to a database in memory: no other connection can reach it.
    """
    if database is None:
        return MEMORY
    if isinstance(database, str | os.PathLike):
        return str(database)
    connection = getattr(database, "conn", database)  # sqlite_utils.Database has it as .conn
    if isinstance(connection, sqlite3.Connection):
        with contextlib.closing(connection.execute("PRAGMA database_list")) as rows:
            path = next(str(row[2]) for row in rows if row[1] == "main")
        if not path:
            raise UsageError(
                "a database in memory can't be shared with embedq: pass the path of a file, or nothing at all "
                "for a database in memory of the collection's own"
            )
        return path
    raise UsageError(f"the database must be a path or a connection, not {type(database).__name__}")
