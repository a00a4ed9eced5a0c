"""Which ids a submission has sent already, and in which chunk: on disk, so that memory stays what it is."""

import sqlite3
from collections.abc import Hashable, Sequence
from types import TracebackType
from typing import Final, Self

_BOUND: Final = 512
_CACHE_KIB: Final = 16 * 1024


class SeenIds:
    """Ids by a 64-bit hash, in a temporary database that only this process sees.

    Two ids with one hash (one chance in 50,000 for a corpus of 25 million) would count as one duplicate too
    many and cost an order that was not needed: nothing worse.
    """

    def __init__(self) -> None:
        # The empty name is a private file that SQLite deletes; it spills there once the cache is full.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("CREATE TABLE seen (hash INTEGER PRIMARY KEY, chunk INTEGER NOT NULL)")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def note(self, ids: Sequence[Hashable], chunk: int) -> tuple[list[int], int]:
        """Note that `chunk` holds `ids`; return the earlier chunks that hold some of them, and how many ids."""
        # Python's own hash is keyed anew in each process: nobody can prepare ids that collide.
        hashes = [hash(id_) for id_ in ids]
        earlier: list[int] = []
        self._db.execute("BEGIN")
        for start in range(0, len(hashes), _BOUND):
            some = hashes[start : start + _BOUND]
            rows = self._db.execute(
                f"SELECT chunk FROM seen WHERE hash IN ({','.join('?' * len(some))})",  # noqa: S608
                some,
            )
            earlier.extend(row[0] for row in rows)
        self._db.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?)", ((value, chunk) for value in hashes))
        self._db.execute("COMMIT")
        return sorted(set(earlier)), len(earlier)
