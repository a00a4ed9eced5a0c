"""Looking through the rows of a collection for what should not be there, and clearing what is found.

A row that is cleared has no hash any more. So the next item with its id is new to `embedq_store.decide`, whatever its
content, and its vector is found by nobody who looks for a content; a vector that can't be compared with the others is
zeros then, which resembles nothing. Content and metadata stay. A row with content and no hash is itself found by the
next audit: whoever clears rows and then dies has lost nothing.
"""

import random
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from embedq_core.digests import content_hash
from embedq_core.items import Item
from embedq_store.standing import scanned

# What is read at a time: so many rows, or so many bytes.
SLICE_ROWS: Final = 2048
SLICE_BYTES: Final = 8 * 1024 * 1024

# Of each problem, so many ids are told.
EXAMPLES: Final = 5

# No row has it.
BEFORE_ALL: Final = -(2**63)

_FLOAT_BYTES: Final = 4


class Problem(StrEnum):
    """What is wrong with a row; of several, the first."""

    EMPTY = "empty"
    DIMENSION = "dimension"
    NOT_FINITE = "not_finite"
    HASH = "hash"
    CLEARED = "cleared"

    @property
    def words(self) -> str:
        """For people."""
        return {
            Problem.EMPTY: "no vector",
            Problem.DIMENSION: "a vector of another dimension",
            Problem.NOT_FINITE: "a vector with NaN or infinity",
            Problem.HASH: "a hash that is not the content's",
            Problem.CLEARED: "no hash: cleared by a repair, and not embedded anew yet",
        }[self]


class AuditRow(NamedTuple):
    """A row as it is read: `content` as bytes, None where it was not kept."""

    rowid: int
    id: str
    vector: bytes
    content: bytes | None
    is_text: bool
    digest: bytes | None


class Verdict(NamedTuple):
    """What is to be said of a row."""

    problem: Problem | None
    zero: bool


@dataclass(frozen=True, slots=True)
class Sampled:
    """A row without problems, with which the model can be tried."""

    id: str
    content: str | bytes
    digest: bytes
    vector: bytes


@dataclass(slots=True)
class Flawed:
    """The rows with one problem: how many, how many of them without content, and the ids of the first."""

    entries: int = 0
    without_content: int = 0
    ids: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Findings:
    """What was found in a collection. `dimension` is that of most vectors, None where there is no vector at all.

    `unchecked` are rows without content, whose hash can be compared with nothing; `zeros` are vectors of zeros.
    """

    dimension: int | None
    entries: int = 0
    unchecked: int = 0
    zeros: int = 0
    problems: dict[Problem, Flawed] = field(default_factory=dict)
    sample: list[Sampled] = field(default_factory=list)


def judge(rows: Sequence[AuditRow], dimension: int) -> list[Verdict]:
    """What is wrong with each of `rows`, in a collection of this dimension."""
    import numpy as np

    from embedq_core.vectors import STORED_DTYPE

    whole = [place for place, row in enumerate(rows) if len(row.vector) == _FLOAT_BYTES * dimension > 0]
    blob = b"".join([rows[place].vector for place in whole])
    matrix = np.frombuffer(blob, dtype=STORED_DTYPE).reshape(len(whole), dimension)
    found = [Verdict(Problem.DIMENSION if row.vector else Problem.EMPTY, zero=False) for row in rows]
    infinite = set(np.flatnonzero(~np.isfinite(matrix).all(axis=1)).tolist())
    zeros = set(np.flatnonzero(~matrix.any(axis=1)).tolist())
    for number, place in enumerate(whole):
        zero = number in zeros
        found[place] = Verdict(Problem.NOT_FINITE if number in infinite else _misnamed(rows[place], zero=zero), zero)
    return found


def _misnamed(row: AuditRow, *, zero: bool) -> Problem | None:
    """What is wrong with the hash of a row whose vector is one."""
    if row.digest is None:
        # llm's oldest rows have neither content nor hash, but a vector.
        return Problem.CLEARED if zero or row.content is not None else None
    return Problem.HASH if row.content is not None and row.digest != content_hash(row.content) else None


class Auditor:
    """Looks at rows as they come, and keeps a random sample of `size` of the good ones; the same for the same seed."""

    def __init__(self, dimension: int | None, size: int, seed: int) -> None:
        self.findings = Findings(dimension)
        self._size = size
        self._good = 0
        self._random = random.Random(seed)  # noqa: S311 - it picks a sample, and shall pick it again

    def take(self, rows: Sequence[AuditRow]) -> None:
        """Look at some more rows."""
        found = self.findings
        for row, verdict in zip(rows, judge(rows, found.dimension or 0), strict=True):
            found.entries += 1
            found.unchecked += row.content is None
            found.zeros += verdict.zero and verdict.problem is None
            if verdict.problem is not None:
                flawed = found.problems.setdefault(verdict.problem, Flawed())
                flawed.entries += 1
                flawed.without_content += row.content is None
                if len(flawed.ids) < EXAMPLES:
                    flawed.ids.append(row.id)
            elif row.content is not None and row.digest is not None:
                self._offer(row)

    def _offer(self, row: AuditRow) -> None:
        """Each good row is in the sample with equal chance, however many there are: reservoir sampling."""
        self._good += 1
        place = len(self.findings.sample) if self._good <= self._size else self._random.randrange(self._good)
        if place >= self._size or (content := _content(row)) is None or row.digest is None:
            return
        self.findings.sample[place : place + 1] = [Sampled(row.id, content, row.digest, row.vector)]


def _content(row: AuditRow) -> str | bytes | None:
    """The content as it came in; None for text that another tool has stored as something else than UTF-8."""
    if row.content is None or not row.is_text:
        return row.content
    try:
        return row.content.decode()
    except UnicodeDecodeError:
        return None


# --- reading and writing, in the connection's thread


def usual_dimension(db: sqlite3.Connection, collection_id: int) -> int | None:
    """The dimension of most vectors of a collection; None where none has one."""
    row = db.execute(
        f"SELECT length(embedding) / 4 FROM embeddings WHERE {scanned(db, collection_id)}collection_id = ?"  # noqa: S608
        " AND length(embedding) >= 4"
        " GROUP BY 1 ORDER BY count(*) DESC, 1 DESC LIMIT 1",
        (collection_id,),
    ).fetchone()
    return None if row is None else int(row[0])


def last_rowid(db: sqlite3.Connection) -> int:
    """The rowid of the last row of all: what is written later lies beyond."""
    return int(db.execute("SELECT coalesce(max(rowid), 0) FROM embeddings").fetchone()[0])


def read_slice(db: sqlite3.Connection, collection_id: int, after: int, last: int) -> list[AuditRow]:
    """The next rows of a collection in the order of their rowids, beyond `after` and up to `last`; at least one."""
    cursor = db.execute(
        "SELECT rowid, id, coalesce(embedding, x''), coalesce(CAST(content AS BLOB), content_blob),"
        " content IS NOT NULL, content_hash FROM embeddings"
        " WHERE +collection_id = ? AND rowid > ? AND rowid <= ? ORDER BY rowid LIMIT ?",
        (collection_id, after, last, SLICE_ROWS),
    )
    rows: list[AuditRow] = []
    size = 0
    for rowid, entry_id, vector, content, is_text, digest in cursor:
        rows.append(AuditRow(rowid, entry_id, vector, content, bool(is_text), digest))
        size += len(vector) + len(content or b"")
        if size >= SLICE_BYTES:
            break
    cursor.close()
    return rows


def clear_slice(
    db: sqlite3.Connection, collection_id: int, dimension: int, after: int, last: int
) -> tuple[int | None, int]:
    """Clear the bad ones of the next rows, judged as they are now; the last rowid that was looked at, None at the end,
    and how many were bad. Call it inside a transaction.
    """
    rows = read_slice(db, collection_id, after, last)
    cleared = 0
    for row, (problem, _) in zip(rows, judge(rows, dimension), strict=True):
        if problem is None:
            continue
        cleared += 1
        if problem is Problem.HASH:
            db.execute("UPDATE embeddings SET content_hash = NULL WHERE rowid = ?", (row.rowid,))
        elif problem is not Problem.CLEARED:
            sql = "UPDATE embeddings SET content_hash = NULL, embedding = zeroblob(?) WHERE rowid = ?"
            db.execute(sql, (_FLOAT_BYTES * dimension, row.rowid))
    return (rows[-1].rowid if rows else None), cleared


def clear_contents(db: sqlite3.Connection, collection_id: int, digests: Sequence[bytes]) -> int:
    """Clear all rows with these contents: their vectors are equal, and would be copied from one to the other."""
    sql = "UPDATE embeddings SET content_hash = NULL WHERE content_hash = ? AND collection_id = ?"
    return sum(db.execute(sql, (digest, collection_id)).rowcount for digest in digests)


@dataclass(frozen=True, slots=True)
class ClearedPage:
    """Some rows with content and without hash, as items; `after` is where the next page begins, None at the end.

    `unreadable` rows hold text that is no UTF-8.
    """

    items: list[Item]
    unreadable: int
    after: int | None


def cleared_page(
    db: sqlite3.Connection, collection_id: int, after: int, last: int, *, max_items: int, max_bytes: int
) -> ClearedPage:
    """The next rows with content and without hash, up to the rowid `last`: some `max_bytes` of them."""
    cursor = db.execute(
        "SELECT rowid, id, coalesce(CAST(content AS BLOB), content_blob), content IS NOT NULL, metadata"
        " FROM embeddings WHERE +collection_id = ? AND content_hash IS NULL AND rowid > ? AND rowid <= ?"
        " AND (content IS NOT NULL OR content_blob IS NOT NULL) ORDER BY rowid LIMIT ?",
        (collection_id, after, last, max_items),
    )
    items: list[Item] = []
    unreadable, reached, size = 0, None, 0
    for rowid, entry_id, raw, is_text, metadata in cursor:
        reached = rowid
        content = _content(AuditRow(rowid, entry_id, b"", raw, bool(is_text), None))
        if content is None:
            unreadable += 1
        else:
            items.append(Item(entry_id, content, metadata))
        size += len(raw)
        if size >= max_bytes:
            break
    cursor.close()
    return ClearedPage(items, unreadable, reached)
