"""Which ids and contents a source has, and what of a collection it no longer has: on disk, since both may be many."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from embedq_core.digests import content_hash
from embedq_core.items import Item
from embedq_core.parts import belongs_to
from embedq_store import Candidate

_CACHE_KIB: Final = 8 * 1024
_AT_ONCE: Final = 8192


class SourceIds:
    """The ids and contents of a source, by 64-bit hashes, and the entries that it lacks: in a temporary database that
    only this process sees and that spills to disk.

    Two texts with one hash make an entry stay that could go: never the reverse. It may be used in one thread after the
    other, not in two at once.
    """

    def __init__(self) -> None:
        self.items = 0
        """How many items the source has given."""
        self._hashes: list[int] = []
        self._db = _private_database()
        self._db.execute("CREATE TABLE had (hash INTEGER NOT NULL)")
        self._db.execute("CREATE TABLE gone (id TEXT PRIMARY KEY, digest BLOB, stays INTEGER DEFAULT 0) WITHOUT ROWID")
        self._db.execute("CREATE INDEX gone_digest ON gone (digest) WHERE digest IS NOT NULL")

    def close(self) -> None:
        """Let the database go, and its file."""
        self._db.close()

    def note(self, item: Item, parts: Iterable[Item]) -> None:
        """Note an item, and the parts that were made of it: itself, where it was not split."""
        self.items += 1
        self._hashes += [hash(item.id), hash(belongs_to(item.id, item.metadata))]
        self._hashes += [_of_content(content_hash(part.content)) for part in parts]
        if len(self._hashes) >= _AT_ONCE:
            self._put_down()

    def complete(self) -> None:
        """Say that the source was read to its end. Only then it may be asked."""
        self._put_down()
        # One sort of all is faster by far than keeping them in order while they come.
        self._db.execute("CREATE INDEX had_hash ON had (hash)")

    def set_aside_lacking(self, page: Sequence[Candidate]) -> int:
        """Keep those of `page` that the source doesn't have, neither the entry nor the document that it is a part of:
        they are to go. How many.
        """
        own = [(hash(each.id), hash(belongs_to(each.id, each.metadata))) for each in page]
        known = self._known({value for pair in own for value in pair})
        gone = [each for each, pair in zip(page, own, strict=True) if known.isdisjoint(pair)]
        contents = {each.digest: _of_content(each.digest) for each in gone if each.digest is not None}
        moved = self._known(set(contents.values()))
        self._db.executemany(
            "INSERT OR IGNORE INTO gone (id, digest) VALUES (?, ?)",
            [
                (each.id, each.digest if each.digest is not None and contents[each.digest] in moved else None)
                for each in gone
            ],
        )
        return len(gone)

    def moved(self, beyond: bytes | None, count: int) -> list[bytes]:
        """The next of the contents that the source has, under other ids than those that are to go, by their hashes."""
        rows = self._db.execute(
            "SELECT DISTINCT digest FROM gone WHERE digest > coalesce(?, x'') ORDER BY digest LIMIT ?", (beyond, count)
        )
        return [row[0] for row in rows]

    def going(self, ids: Iterable[str]) -> set[str]:
        """Those of `ids` that are to go."""
        return {
            id_ for id_ in ids if self._db.execute("SELECT 1 FROM gone WHERE id = ?", (id_,)).fetchone() is not None
        }

    def let_stay(self, digests: Iterable[bytes]) -> int:
        """Have entries with these contents stay after all; how many."""
        sql = "UPDATE gone SET stays = 1 WHERE digest = ?"
        return sum(self._db.execute(sql, (digest,)).rowcount for digest in digests)

    def next_gone(self, beyond: str, count: int) -> list[str]:
        """The next of the ids that are to go, in their order."""
        sql = "SELECT id FROM gone WHERE id > ? AND NOT stays ORDER BY id LIMIT ?"
        return [row[0] for row in self._db.execute(sql, (beyond, count))]

    def _put_down(self) -> None:
        for start in range(0, len(self._hashes), _AT_ONCE):
            some = json.dumps(self._hashes[start : start + _AT_ONCE])
            self._db.execute("INSERT INTO had SELECT value FROM json_each(?)", (some,))
        self._hashes.clear()

    def _known(self, hashes: set[int]) -> set[int]:
        sql = "SELECT DISTINCT hash FROM had WHERE hash IN (SELECT value FROM json_each(?))"
        return {row[0] for row in self._db.execute(sql, (json.dumps(list(hashes)),))}


class RepeatedIds:
    """Whether ids come more than once, by 64-bit hashes, in a temporary database as well."""

    def __init__(self) -> None:
        self._db = _private_database()
        self._db.execute("CREATE TABLE had (hash INTEGER NOT NULL)")

    def close(self) -> None:
        """Let the database go, and its file."""
        self._db.close()

    def note(self, ids: Iterable[str]) -> None:
        """Note some ids."""
        self._db.execute("INSERT INTO had SELECT value FROM json_each(?)", (json.dumps(list(map(hash, ids))),))

    def count(self) -> int:
        """How many ids came more than once."""
        sql = "SELECT count(*) FROM (SELECT 1 FROM had GROUP BY hash HAVING count(*) > 1)"
        return int(self._db.execute(sql).fetchone()[0])


def _private_database() -> sqlite3.Connection:
    # The empty name is a private file that SQLite deletes; it spills there once the cache is full.
    db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    db.execute("PRAGMA journal_mode = OFF")
    db.execute("PRAGMA synchronous = OFF")
    return db


def _of_content(digest: bytes) -> int:
    return hash(("content", digest))
