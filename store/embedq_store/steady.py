"""Using a collection while another process may exchange it for new vectors, take it back, or drop what was exchanged.

An exchange leaves the rows of both collections where they are, under their keys, so whoever has looked a key up may go
on with it, and answers from one model alone, though its name be another by now. Only where the rows are being removed
does that not hold. So it is enough to look once more when all is done.
"""

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from embedq_core.errors import EmbedqError, StoreError
from embedq_store.reembedding import next_name, previous_name
from embedq_store.standing import CollectionInfo, find_collection
from embedq_store.store import Store

# Each time the collection must have been exchanged, and what was before removed, while it was being used.
_TRIES: Final = 5

_T = TypeVar("_T")


async def steadily(
    store: Store, resolve: Callable[[], Awaitable[CollectionInfo]], use: Callable[[CollectionInfo], Awaitable[_T]]
) -> _T:
    """What `use` makes of the collection that `resolve` finds; both again where that was removed meanwhile.

    Raises what they raise, and StoreError where it is removed again and again.
    """
    for _ in range(_TRIES):
        found = await resolve()
        try:
            result = await use(found)
        except EmbedqError:
            if await is_whole(store, found):
                raise
        else:
            if await is_whole(store, found):
                return result
    raise StoreError(f"the collection {found.name!r} is exchanged faster than it can be used: try again")


async def is_whole(store: Store, found: CollectionInfo) -> bool:
    """Whether the rows that were `found` are still a collection's, by this name or beside it.

    Also where there is none of that name any more: whoever deletes a collection means it.
    """
    return await store.look(lambda db: _is_whole(db, found))


def _is_whole(db: sqlite3.Connection, found: CollectionInfo) -> bool:
    row = db.execute("SELECT name, model FROM collections WHERE id = ?", (found.id,)).fetchone()
    names = (found.name, previous_name(found.name), next_name(found.name))
    if row is not None and row[0] in names and row[1] == found.model_id:
        return True
    return find_collection(db, found.name) is None
