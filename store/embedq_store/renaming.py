"""Collections under another name: renamed in one transaction, or copied beside, and named when the copy is whole."""

import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from embedq_core.collection_names import COPYING, NEXT, PREVIOUS, check_collection_name, is_being_removed
from embedq_core.errors import CollectionExists, StoreError
from embedq_core.text import shown
from embedq_store import removing
from embedq_store.bulk import in_thread
from embedq_store.ranges import with_prefix
from embedq_store.reembedding import Role
from embedq_store.reembedding_records import roles
from embedq_store.standing import CollectionInfo, find_collection
from embedq_store.writer import Writer

# Each in a transaction of its own: workers write between them, and the write-ahead log stays small.
_AT_ONCE: Final = 8192


def rename(db: sqlite3.Connection, old: str, new: str) -> None:
    """Give a collection another name; its dead letters go with it. Call it in a transaction.

    Raises UsageError, CollectionExists; StoreError while there is something beside it from being embedded anew, which
    is found by its name, and for what stands beside another.
    """
    check_collection_name(new)
    _check_stays(old)
    _check_free(db, new)
    present = roles(db)
    if old in present:
        raise StoreError(
            f"{shown(old)!r} stands beside {shown(present[old].collection)!r}, and is found by its name: it is not "
            "renamed. 'embedq collections copy' gives you its entries under another"
        )
    for ending in (NEXT, PREVIOUS):
        if find_collection(db, old + ending) is not None:
            way = _way_out(old, old + ending, present.get(old + ending))
            raise StoreError(
                f"{shown(old)!r} is being embedded anew, or was, and can be taken back ({shown(old + ending)!r}): {way}"
            )
    db.execute("UPDATE collections SET name = ? WHERE name = ?", (new, old))
    db.execute("UPDATE embedq_dead SET collection = ? WHERE collection = ?", (new, old))
    # Where late chunks and dead letters of its models before belong. What is being removed is found by the old name.
    sql = "UPDATE embedq_reembeddings SET collection = ? WHERE collection = ? AND removing IS NULL"
    db.execute(sql, (new, old))


def _way_out(name: str, beside: str, role: Role | None) -> str:
    """How somebody gets rid of what stands beside a collection."""
    if role is None:
        return f"'embedq collections delete {shown(beside)}' removes it"
    if role.state in ("embedding", "stopped"):
        return f"'embedq reembed {shown(name)} --cancel' ends that"
    return f"'embedq collections drop-old {shown(name)}' removes it"


async def copy(
    writer: Writer,
    source: CollectionInfo,
    name: str,
    progress: Callable[[int], None],
    sweep: Callable[[], Awaitable[None]],
) -> tuple[CollectionInfo, int]:
    """Copy a collection, all but its dead letters, to a new `name`; the copy, and how many entries it has.

    It grows under another name, which ends with COPYING, and takes its own when it is whole; what a copy that was
    killed has left is removed before. Entries that are written to the source meanwhile may be in it or not. `progress`
    is told how many are done; `sweep` removes what is left of deleted collections. A copy that is interrupted leaves
    that to whoever sweeps next, since it may take as long as the copying did. Raises UsageError, CollectionExists;
    StoreError where source or copy go meanwhile.
    """
    check_collection_name(name)
    _check_stays(source.name)
    beside = name + COPYING
    key = await writer.transact(lambda db: in_thread(db, partial(_begin, source=source, name=name, beside=beside)))
    try:
        await sweep()
        done = 0
        last: str | None = None
        while True:
            copying = partial(_copy_page, source=source, key=key, beside=beside, last=last)
            count, last = await writer.transact_in_turn(
                lambda db, copying=copying: in_thread(db, copying)  # type: ignore[misc]
            )
            if not count:
                break
            done += count
            progress(done)
        ending = partial(_end, source=source, key=key, name=name, beside=beside)
        await writer.transact(lambda db: in_thread(db, ending))
    except BaseException as error:
        await writer.transact(lambda db: in_thread(db, partial(_give_up, key=key, beside=beside)))
        if isinstance(error, Exception):
            await sweep()
        raise
    return CollectionInfo(key, name, source.model_id), done


def _begin(db: sqlite3.Connection, source: CollectionInfo, name: str, beside: str) -> int:
    _check_free(db, name)
    # Another than that of a copy which is there: whoever may be making that one still is to see that it is gone.
    key = int(db.execute("SELECT max(id) + 1 FROM collections").fetchone()[0] or 1)
    found = find_collection(db, beside)
    if found is not None:
        removing.begin(db, found.id)
    db.execute("INSERT INTO collections (id, name, model) VALUES (?, ?, ?)", (key, beside, source.model_id))
    db.execute(
        "INSERT OR REPLACE INTO embedq_configurations (collection_id, configuration)"
        " SELECT ?, configuration FROM embedq_configurations WHERE collection_id = ?",
        (key, source.id),
    )
    return key


def _copy_page(
    db: sqlite3.Connection, source: CollectionInfo, key: int, beside: str, last: str | None
) -> tuple[int, str | None]:
    """Copy the next entries after the id `last`; how many, and the last of them."""
    _check_there(db, source, key, beside)
    condition, bounds = with_prefix("", last)
    page = f"SELECT id FROM embeddings WHERE collection_id = ? AND {condition} ORDER BY id LIMIT ?"  # noqa: S608
    end = db.execute(f"SELECT max(id) FROM ({page})", (source.id, *bounds, _AT_ONCE)).fetchone()[0]  # noqa: S608
    if end is None:
        return 0, last
    copied = db.execute(
        "INSERT INTO embeddings (collection_id, id, embedding, content, content_blob, content_hash, metadata, updated)"  # noqa: S608
        " SELECT ?, id, embedding, content, content_blob, content_hash, metadata, updated FROM embeddings"
        f" WHERE collection_id = ? AND {condition} AND id <= ? ORDER BY id",
        (key, source.id, *bounds, end),
    )
    return copied.rowcount, str(end)


def _end(db: sqlite3.Connection, source: CollectionInfo, key: int, name: str, beside: str) -> None:
    _check_free(db, name)
    _check_there(db, source, key, beside)
    db.execute("UPDATE collections SET name = ? WHERE id = ?", (name, key))


def _give_up(db: sqlite3.Connection, key: int, beside: str) -> None:
    """Delete a copy, unless it is another's by now."""
    if _is_called(db, key, beside):
        removing.begin(db, key)


def _check_there(db: sqlite3.Connection, source: CollectionInfo, key: int, beside: str) -> None:
    for collection_id, name in ((source.id, source.name), (key, beside)):
        if not _is_called(db, collection_id, name):
            raise StoreError(f"{shown(name)!r} was deleted or renamed while it was copied: copy again")


def _is_called(db: sqlite3.Connection, key: int, name: str) -> bool:
    return db.execute("SELECT 1 FROM collections WHERE id = ? AND name = ?", (key, name)).fetchone() is not None


def _check_stays(name: str) -> None:
    if is_being_removed(name):
        raise StoreError(f"{shown(name)!r} is being removed: nothing can be done with it any more")


def _check_free(db: sqlite3.Connection, name: str) -> None:
    if find_collection(db, name) is not None:
        raise CollectionExists(
            f"there is a collection {shown(name)!r} already: choose another name, or delete it first "
            "('embedq collections delete')"
        )
    if db.execute("SELECT 1 FROM embedq_dead WHERE collection = ? LIMIT 1", (name,)).fetchone() is not None:
        raise CollectionExists(
            f"there are dead letters for a collection {shown(name)!r}: purge them first, or choose another name"
        )
