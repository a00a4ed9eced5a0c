"""How far a shadow covers its collection, and what of the one differs from the other: read page by page.

SQLite compares, on the index of ids, so that a page of some thousand entries is one row in Python; and no statement
takes long, so that others that share the connection get their turns.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from embedq_core.digests import content_hash
from embedq_core.items import Item
from embedq_store.bulk import marks, steps
from embedq_store.reembedding import Coverage
from embedq_store.reembedding_records import is_recorded

# Entries that are compared in one statement: some ten milliseconds.
PAGE: Final = 2048

_SIZE: Final = "coalesce(length(CAST(s.content AS BLOB)), length(s.content_blob), 0)"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two collections by their keys: what `source` holds, `shadow` is to hold, with vectors of `model_id`.

    `letters` is the collection under whose name dead letters of the shadow stand, `new` the key of that one of the two
    that has the vectors of the newer model: it is that of `embedq_reembedding_ids`.
    """

    source: int
    shadow: int
    letters: str
    model_id: str
    new: int

    @property
    def values(self) -> dict[str, object]:
        """For the statements here."""
        return {
            "source": self.source,
            "shadow": self.shadow,
            "letters": self.letters,
            "model": self.model_id,
            "new": self.new,
        }


# `s` is the row of the source, `n` that of the shadow. A hash that another program left wrong is not what the shadow's
# row will have: then contents are compared. What stands in `embedq_reembedding_ids` with the hash that the source has
# still came to the shadow after the source was in use: the shadow's is the newer. A row without hash has been cleared
# by an audit: in the shadow it covers nothing, as its vector may be anything; in the source it is no newer than it was.
_BARE: Final = "s.content IS NULL AND s.content_blob IS NULL"
_SAME_CONTENT: Final = "n.content IS s.content AND n.content_blob IS s.content_blob"
_KNOWN_ID: Final = "SELECT 1 FROM embedq_reembedding_ids i WHERE i.shadow = :new AND i.id = c.id"
# What the one in use had, and has no more, was deleted since.
_NEVER_THERE: Final = f"{_KNOWN_ID} AND i.held IS NULL"
_HELD: Final = "(i.held IS s.content_hash OR s.content_hash IS NULL)"
_CLASS: Final = f"""CASE
    WHEN s.rowid IS NULL THEN CASE WHEN n.rowid IS NULL OR EXISTS ({_NEVER_THERE}) THEN 'gone' ELSE 'extra' END
    WHEN n.content_hash = s.content_hash THEN CASE
        WHEN n.metadata IS s.metadata AND (({_BARE}) OR n.content IS NOT NULL OR n.content_blob IS NOT NULL)
        THEN 'covered' ELSE 'outdated' END
    WHEN n.rowid IS NOT NULL AND EXISTS ({_KNOWN_ID} AND {_HELD}) THEN 'covered'
    WHEN {_BARE} THEN 'bare'
    WHEN n.content_hash IS NOT NULL AND {_SAME_CONTENT} THEN CASE
        WHEN n.metadata IS s.metadata THEN 'covered' ELSE 'outdated' END
    WHEN EXISTS (SELECT 1 FROM embedq_dead d WHERE d.collection = :letters AND d.id = c.id AND d.model = :model
        AND d.content IS s.content AND d.content_blob IS s.content_blob) THEN 'dead'
    ELSE 'missing' END"""  # noqa: S608 - put together from constants

# What is noted as held: for a row that an audit has cleared, the hash that it gets again when it is repaired.
HELD_HASH: Final = (
    "coalesce(n.content_hash, CASE WHEN n.content IS NOT NULL OR n.content_blob IS NOT NULL"
    " THEN embedq_content_hash(coalesce(n.content, n.content_blob)) END)"
)


def with_hashes(db: sqlite3.Connection) -> None:
    """Have the connection know the function in `HELD_HASH`."""
    db.create_function("embedq_content_hash", 1, content_hash, deterministic=True)


# With a place for the query that says which ids are compared.
_COMPARED: Final = f"""SELECT c.id AS id, {_CLASS} AS class, s.rowid AS source_row, n.rowid AS shadow_row
    FROM ({{candidates}}) c
    LEFT JOIN embeddings s ON s.collection_id = :source AND s.id = c.id
    LEFT JOIN embeddings n ON n.collection_id = :shadow AND n.id = c.id"""  # noqa: S608

_OF_SOURCE: Final = "SELECT id FROM embeddings WHERE collection_id = :source AND id {after} ORDER BY id LIMIT :page"
_OF_SHADOW: Final = "SELECT id FROM embeddings WHERE collection_id = :shadow AND id {after} ORDER BY id LIMIT :page"


def compared(candidates: str) -> str:
    """The statement that compares the ids that `candidates`, a query, gives: id, class, both rowids."""
    return _COMPARED.format(candidates=candidates)


# In front of a statement for a file without embedq's tables, which other tools make, and which was opened for reading.
_NO_TABLES: Final = """WITH
    embedq_reembedding_ids (shadow, id, held) AS (SELECT NULL, NULL, NULL WHERE 0),
    embedq_dead (collection, id, model, content, content_blob) AS (SELECT NULL, NULL, NULL, NULL, NULL WHERE 0)
    """


def _tables(db: sqlite3.Connection) -> str:
    return "" if is_recorded(db) else _NO_TABLES


def _after(after: str | None) -> str:
    return ">= ''" if after is None else "> :after"


def covered_page(db: sqlite3.Connection, pair: Pair, after: str | None) -> tuple[Coverage, int, str | None]:
    """Compare the entries of the source that follow `after` in the order of ids.

    Returns what they come to, how many of the covered ones have other metadata or lack the content, and the last id;
    None at the end.
    """
    sql = compared(_OF_SOURCE.format(after=_after(after)))
    row = db.execute(
        f"{_tables(db)}SELECT count(*), sum(class IN ('covered', 'outdated')), sum(class = 'dead'),"  # noqa: S608
        " sum(class = 'missing'),"
        f" sum(class = 'bare'), sum(class = 'outdated'), max(id) FROM ({sql})",
        pair.values | {"after": after, "page": PAGE},
    ).fetchone()
    if not row[0]:
        return Coverage(), 0, None
    return Coverage(*row[:5]), int(row[5]), row[6]


_EXTRA: Final = (
    "NOT EXISTS (SELECT 1 FROM embeddings WHERE collection_id = :source AND id = c.id)"  # noqa: S608
    f" AND NOT EXISTS ({_NEVER_THERE})"
)


def extra_page(db: sqlite3.Connection, pair: Pair, after: str | None) -> tuple[list[str], str | None]:
    """Which of the shadow's entries that follow `after` the source has no more, and the last id of all
    that were looked at; None at the end.
    """
    values = pair.values | {"after": after, "page": PAGE}
    some, last = db.execute(
        f"{_tables(db)}SELECT sum({_EXTRA}), max(id) FROM ({_OF_SHADOW.format(after=_after(after))}) c",  # noqa: S608
        values,
    ).fetchone()
    if not some:
        return [], last
    rows = db.execute(
        f"{_tables(db)}SELECT id FROM embeddings c WHERE collection_id = :shadow AND id {_after(after)}"  # noqa: S608
        f" AND id <= :last AND {_EXTRA}",
        values | {"last": last},
    )
    return [str(row[0]) for row in rows], last


def missing_page(db: sqlite3.Connection, pair: Pair, after: str | None) -> tuple[list[tuple[str, int]], str | None]:
    """Ids and bytes of those of the next entries of the source that are missing, and the last id that was looked at."""
    sql = compared(_OF_SOURCE.format(after=_after(after)))
    return _sized(db, f"SELECT * FROM ({sql}) WHERE class = 'missing'", pair, after)  # noqa: S608


# What came to the new vectors, which are the shadow here, while they were in use: not here as it is there, not dead
# here, and not changed here since. One that an audit has cleared here has not changed.
_NEWCOMERS: Final = f"""SELECT i.id AS id, s.rowid AS source_row FROM
    (SELECT id, held FROM embedq_reembedding_ids WHERE shadow = :new AND id {{after}} ORDER BY id LIMIT :page) i
    JOIN embeddings s ON s.collection_id = :source AND s.id = i.id
    LEFT JOIN embeddings n ON n.collection_id = :shadow AND n.id = i.id
    WHERE (n.content_hash IS i.held OR (n.rowid IS NOT NULL AND n.content_hash IS NULL))
    AND (n.content_hash IS NULL OR (n.content_hash IS NOT s.content_hash AND (({_BARE}) OR NOT ({_SAME_CONTENT}))))
    AND NOT EXISTS (SELECT 1 FROM embedq_dead d WHERE d.collection = :letters AND d.id = i.id AND d.model = :model
        AND d.content IS s.content AND d.content_blob IS s.content_blob)"""  # noqa: S608 - put together from constants


def newcomers_page(db: sqlite3.Connection, pair: Pair, after: str | None) -> tuple[list[tuple[str, int]], str | None]:
    """Ids and bytes of entries that came to the pair's source and are yet to come to its shadow, after a rollback.

    Those without content have -1 bytes.
    """
    sql = _NEWCOMERS.format(after=_after(after))
    values = pair.values | {"after": after, "page": PAGE}
    last = db.execute(
        "SELECT max(id) FROM (SELECT id FROM embedq_reembedding_ids"  # noqa: S608
        f" WHERE shadow = :new AND id {_after(after)} ORDER BY id LIMIT :page)",
        values,
    ).fetchone()[0]
    rows = db.execute(
        f"SELECT p.id, CASE WHEN {_BARE} THEN -1 ELSE {_SIZE} END FROM ({sql}) p"  # noqa: S608
        " JOIN embeddings s ON s.rowid = p.source_row ORDER BY p.id",
        values,
    )
    return [(str(row[0]), int(row[1])) for row in rows], last


def _sized(db: sqlite3.Connection, sql: str, pair: Pair, after: str | None) -> tuple[list[tuple[str, int]], str | None]:
    values = pair.values | {"after": after, "page": PAGE}
    last = db.execute(f"SELECT max(id) FROM ({_OF_SOURCE.format(after=_after(after))})", values).fetchone()[0]  # noqa: S608
    rows = db.execute(
        f"{_tables(db)}SELECT p.id, {_SIZE} FROM ({sql}) p JOIN embeddings s ON s.rowid = p.source_row ORDER BY p.id",  # noqa: S608
        values,
    )
    return [(str(row[0]), int(row[1])) for row in rows], last


def fitting(sized: list[tuple[str, int]], max_items: int, max_bytes: int) -> list[str]:
    """The first of ids with their sizes: one at least, and as many as both limits leave room for."""
    chosen: list[str] = []
    for id_, size in sized[:max_items]:
        max_bytes -= size
        if max_bytes < 0 and chosen:
            break
        chosen.append(id_)
    return chosen


def items(db: sqlite3.Connection, collection_id: int, ids: list[str]) -> list[Item]:
    """The entries with these ids as items, in their order; those that have gone, or have no content, are left out."""
    found: dict[str, Item] = {}
    for some in steps(ids):
        rows = db.execute(
            "SELECT id, coalesce(content, content_blob), metadata FROM embeddings"  # noqa: S608 - only question marks
            f" WHERE collection_id = ? AND id IN ({marks(len(some))})",
            (collection_id, *some),
        )
        found.update((str(row[0]), Item(row[0], row[1], row[2])) for row in rows if row[1] is not None)
    return [found[id_] for id_ in ids if id_ in found]


def bare_ids(db: sqlite3.Connection, pair: Pair, limit: int) -> Iterator[str]:
    """Some ids of the source whose contents are needed and were not stored."""
    rows = db.execute(
        f"SELECT id FROM embeddings s WHERE collection_id = ? AND {_BARE}"  # noqa: S608 - put together from constants
        " AND NOT EXISTS (SELECT 1 FROM embeddings n WHERE n.collection_id = ? AND n.id = s.id"
        " AND n.content_hash = s.content_hash) LIMIT ?",
        (pair.source, pair.shadow, limit),
    )
    return (str(row[0]) for row in rows)
