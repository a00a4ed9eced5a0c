"""The write-ahead log, kept short where several processes write at the same time.

SQLite copies the log into the file after a commit, and begins it anew when a writer finds it copied whole. Where
others write all the time, there is always something that came since, and the log grows by all that is written. Then
somebody has to keep the others from writing while the rest is copied.
"""

import contextlib
import os
import sqlite3
from typing import Final

from embedq_store.connection import LOG_BYTES, PAGE_BYTES

# Far beyond what one writer makes of it, which is a transaction more than `LOG_BYTES`.
LONG_BYTES: Final = 4 * LOG_BYTES

# Others wait no longer for somebody who reads in the log still.
_PATIENCE_MS: Final = 500


class Log:
    """The log of the database at `path`: a writer asks before each commit whether to shorten it right after."""

    def __init__(self, path: str) -> None:
        self._file = path + "-wal"
        self._limit = LONG_BYTES

    @property
    def is_long(self) -> bool:
        """Whether it is time to shorten it. Cheap."""
        try:
            return os.stat(self._file).st_size >= self._limit  # noqa: PTH116 - after each transaction
        except OSError:
            return False

    def hold_back(self, db: sqlite3.Connection) -> None:
        """Have the next commit copy nothing: meanwhile another would take the lock, that `shorten` needs at once.

        Both are called in the connection's thread, and neither raises: the log is a matter of room alone.
        """
        with contextlib.suppress(sqlite3.Error):
            db.execute("PRAGMA wal_autocheckpoint = 0").fetchall()

    def shorten(self, db: sqlite3.Connection) -> None:
        """Copy it whole and cut it off; where a reader needs it still, when it is twice as long."""
        try:
            # Another may have done it while this one waited for the lock.
            if self.is_long:
                self._limit = LONG_BYTES if _cut_off(db) else 2 * self._limit
        except sqlite3.Error:
            self._limit *= 2
        with contextlib.suppress(sqlite3.Error):
            db.execute(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // PAGE_BYTES}").fetchall()


def _cut_off(db: sqlite3.Connection) -> bool:
    """Whether nobody needed it any more."""
    ((patience,),) = db.execute("PRAGMA busy_timeout").fetchall()
    db.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}").fetchall()
    try:
        ((is_busy, _, _),) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        db.execute(f"PRAGMA busy_timeout = {patience}").fetchall()
    return not is_busy
