"""Building the approximate index of a collection's mapped copy: `python -m embedq_store.indexing DATABASE ID`.

It needs the copy's files alone. So it disturbs nobody who writes to the database, and nobody waits for it: the index
is put in place whole. Who builds holds a lock, which the system releases for the dead; what they have left is removed
by the next. When the copy is made anew under another name, what was built of its index is given up; when it is removed,
building ends.
"""

import asyncio
import contextlib
import os
import sys
import threading
from typing import Final

from embedq_store.copying import INDEX_LOCK, CopyFolder, CopyLock
from embedq_store.graph import Built, Graph, Report, discard
from embedq_store.mapped import Head, MappedRows

# Rows added in one step: Ctrl-C waits for no more than one.
_STEP_ROWS: Final = 4096
_POLL_SECONDS: Final = 0.1
_NICENESS: Final = 10


class _CopyGoneError(Exception):
    """The copy was made anew, or removed."""


class _StoppedError(Exception):
    """Nobody waits for the index any more."""


def build(
    database: str, collection_id: int, report: Report | None = None, *, wait: threading.Event | None = None
) -> Built:
    """Have all rows of a collection's copy in its index.

    `report` is told how many of how many rows are in it; what it raises ends the building, and leaves nothing behind.
    With `wait`, wait for another process that is building it, until that is set. Takes minutes for a million rows.
    Raises OSError.
    """
    folder = CopyFolder(database)
    if folder.read_head(collection_id) is None:
        return Built.NO_COPY
    with contextlib.closing(CopyLock(folder, collection_id, INDEX_LOCK)) as lock:
        while not lock.take():
            if wait is None or wait.wait(_POLL_SECONDS):
                return Built.BUSY
        while (copy := folder.read_head(collection_id)) is not None:
            try:
                return Built.DONE if _bring_up_to(folder, copy, report) else Built.NO_COPY
            except _CopyGoneError:
                continue
        return Built.NO_COPY


async def build_meanwhile(database: str, collection_id: int, report: Report | None) -> Built:
    """As `build`, waiting for others, in a thread: it ends soon after this is cancelled."""
    stopped = threading.Event()

    def tell(done: int, rows: int) -> None:
        if stopped.is_set():
            raise _StoppedError
        if report is not None:
            report(done, rows)

    try:
        return await asyncio.to_thread(build, database, collection_id, tell, wait=stopped)
    except asyncio.CancelledError:
        stopped.set()
        raise


def _bring_up_to(folder: CopyFolder, copy: Head, report: Report | None) -> bool:
    """Have the rows of `copy` in its index; False where its files are not those that its head describes."""
    rows = MappedRows.open(folder.path, copy, verify=True)
    if rows is None:
        if _is_current(folder, copy):
            return False
        raise _CopyGoneError
    graph = Graph.open(folder.path, copy, to_add=True) or Graph.empty(copy.dimension)
    if graph.size >= copy.rows:
        return True
    for first, block in rows.blocks(copy.rows, _STEP_ROWS, graph.size):
        if not _is_current(folder, copy):
            raise _CopyGoneError
        graph.add(block)
        if report is not None:
            report(first + len(block), copy.rows)
    graph.save(folder.path, copy)
    # Whoever makes the copy anew removes what belongs to the old one, but may have done so just before.
    if not _is_current(folder, copy):
        discard(folder.path, copy)
        raise _CopyGoneError
    return True


def _is_current(folder: CopyFolder, copy: Head) -> bool:
    now = folder.read_head(copy.collection_id)
    return now is not None and now.name == copy.name


def main() -> None:
    """Build in the background: for others first."""
    database, collection_id = sys.argv[1:]
    os.nice(_NICENESS)
    # A disk that is full, say: whoever asks next has another try.
    with contextlib.suppress(OSError):
        build(database, int(collection_id))


if __name__ == "__main__":
    main()
