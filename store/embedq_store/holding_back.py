"""Writers to a collection are held back for some seconds, so that there is a moment in which nothing new is missing.

A collection that is written to without a pause would never be switched: what comes while the latecomers are embedded
is late, too. So a row in `embedq_holds` says until when writes of rows to a collection wait. Searches don't wait, nor
do writes to other collections, nor does it hold the database's lock. It is a request, and nothing rests on it: a
program that knows nothing of it writes on, and the switch is refused once more.
"""

import sqlite3
import time
from typing import Final

from embedq_core.errors import EmbedqError

# A write waits no longer, whatever the table says: a clock may be put back.
MOST_SECONDS: Final = 4.0
# How often a write that waits looks whether it need not any more.
LOOK_SECONDS: Final = 0.02


class HeldBack(EmbedqError):  # noqa: N818 - reads as a sentence where it is caught
    """The collection takes no rows for a moment. `embedq_store.writer` waits then; nobody else sees this."""


def hold_back(db: sqlite3.Connection, collection: str) -> None:
    """Have writes of rows to a collection wait until `let_go`, or for MOST_SECONDS."""
    db.execute("INSERT OR REPLACE INTO embedq_holds VALUES (?, ?)", (collection, time.time() + MOST_SECONDS))


def let_go(db: sqlite3.Connection, collection: str) -> None:
    """Have writes to a collection wait no longer."""
    db.execute("DELETE FROM embedq_holds WHERE collection = ?", (collection,))


def held_back(db: sqlite3.Connection) -> set[str]:
    """The collections to which writes of rows are to wait now."""
    return {str(row[0]) for row in db.execute("SELECT collection FROM embedq_holds WHERE until > ?", (time.time(),))}
