"""Which ids a submission has sent already, and in which chunk; or which contents were met before. The latest are in
memory, the others on disk, so that memory stays what it is.
"""

import json
import sqlite3
from collections.abc import Hashable, Iterable, Sequence
from itertools import compress
from operator import itemgetter
from types import TracebackType
from typing import Final, Self

# Memory in all: 24 MiB of ids, and for a corpus of more of them 16 MiB of marks and 8 of SQLite's cache.
_IN_MEMORY: Final = 1 << 18
_MARKS: Final = 1 << 24
_CACHE_KIB: Final = 8 * 1024

# Many ids with one statement: Python's sqlite3 lets go of the global lock for each row that it takes or gives, and
# beside a busy thread it waits for it each time.
_AT_ONCE: Final = 8192
_FIND: Final = "SELECT group_concat(chunk) FROM seen WHERE hash IN (SELECT value FROM json_each(?))"
_WHICH: Final = "SELECT group_concat(hash) FROM seen WHERE hash IN (SELECT value FROM json_each(?))"
_KEEP: Final = "INSERT OR REPLACE INTO seen SELECT key, value FROM json_each(?)"


class SeenIds:
    """Ids by a 64-bit hash: `in_memory` of them or a few more, the others in a temporary database that only this
    process sees and that spills to disk.

    Two ids with one hash (one chance in 50,000 for a corpus of 25 million) would count as one duplicate too
    many and cost an order that was not needed: nothing worse.
    """

    def __init__(self, in_memory: int = _IN_MEMORY) -> None:
        self._in_memory = in_memory
        self._latest: dict[int, int] = {}
        self._older: _Older | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._older is not None:
            self._older.close()

    def unseen(self, keys: Sequence[Hashable]) -> list[bool]:
        """Note `keys`, no two of them equal; say of each whether it is the first time."""
        hashes = list(map(hash, keys))
        known = self._latest.keys() & hashes
        if self._older is not None:
            known |= self._older.which(set(hashes) - known)
        self._keep(hashes, 0)
        return [value not in known for value in hashes]

    def note(self, ids: Sequence[Hashable], chunk: int) -> tuple[list[int], int]:
        """Note that `chunk` holds `ids`; return the earlier chunks that hold some of them, and how many ids."""
        # Python's own hash is keyed anew in each process: nobody can prepare ids that collide.
        hashes = set(map(hash, ids))
        latest = self._latest
        known = latest.keys() & hashes
        earlier = [latest[value] for value in known]
        if self._older is not None:
            earlier += self._older.find(hashes - known)
        self._keep(hashes, chunk)
        return sorted(set(earlier)), len(earlier)

    def _keep(self, hashes: Iterable[int], chunk: int) -> None:
        latest = self._latest
        latest.update(dict.fromkeys(hashes, chunk))
        if len(latest) >= self._in_memory:
            self._older = self._older or _Older()
            self._older.add(latest)
            latest.clear()


class _Older:
    """Hashes on disk. A mark in memory for what is there spares most of those that are not the search."""

    def __init__(self) -> None:
        self._marks = bytearray(_MARKS)
        # The empty name is a private file that SQLite deletes; it spills there once the cache is full.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("CREATE TABLE seen (hash INTEGER PRIMARY KEY, chunk INTEGER NOT NULL)")

    def find(self, hashes: Iterable[int]) -> list[int]:
        """The chunks of those of `hashes` that are here."""
        return self._ask(_FIND, hashes)

    def which(self, hashes: Iterable[int]) -> set[int]:
        """Those of `hashes` that are here."""
        return set(self._ask(_WHICH, hashes))

    def _ask(self, statement: str, hashes: Iterable[int]) -> list[int]:
        asked = list(hashes)
        # Twice the first, so that there are always several and the answer is a tuple.
        places = [value % _MARKS for value in asked[:1] + asked]
        likely = list(compress(asked, itemgetter(*places)(self._marks)[1:])) if asked else []
        if not likely:
            return []
        (found,) = self._db.execute(statement, (json.dumps(likely),)).fetchone()
        return list(map(int, found.split(","))) if found else []

    def add(self, chunks: dict[int, int]) -> None:
        """Keep the chunk of each hash, in the place of an earlier one. In order, as a tree likes to get them."""
        marks = self._marks
        for value in chunks:
            marks[value % _MARKS] = 1
        ordered = sorted(chunks)
        for start in range(0, len(ordered), _AT_ONCE):
            some = {value: chunks[value] for value in ordered[start : start + _AT_ONCE]}
            self._db.execute(_KEEP, (json.dumps(some),))

    def close(self) -> None:
        """Let the database go, and its file."""
        self._db.close()
