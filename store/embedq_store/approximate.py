"""The approximate index of a collection, as those who search use it: opened when it is there, built when it isn't.

It only names candidates among the rows of the mapped copy. Their scores, the rows that it doesn't hold yet, and what
has become of rows since, are looked up as in any search: so what is answered is never stale, and has its exact score.
"""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from embedq_core.vectors import Matrix
from embedq_store.copying import INDEX_LOCK, UNPUBLISHED, CopyFolder, CopyLock
from embedq_store.graph import Graph, graph_head_path, need_usearch
from embedq_store.mapped import Head
from embedq_store.rows import CollectionRows
from embedq_store.shortlist import STEP, Mask, Places

# Rows that an index may lack before it is extended: they are all scored. The larger of a number and a share.
_SPARE_ROWS: Final = 16_384
_SPARE_SHARE: Final = 1 / 32

# So much of a collection is searched as fast without an index.
_SMALL_BYTES: Final = 16 * 1024 * 1024

# Rows that an index is asked for, at first and at most, and how many times as many each time. To score so many rows
# for each of them is as fast.
_NEAR: Final = 64
_NEAR_MOST: Final = 2048
_NEAR_GROWTH: Final = 4
_NEAR_SHARE: Final = 16

_RETRY_SECONDS: Final = 60.0

_BEING_BUILT: Final = "its index is being built, in the background"

_log = logging.getLogger("embedq.search")


class Approximate:
    """The index of one collection. Not safe for concurrent use."""

    def __init__(self, copies: CopyFolder | None, collection_id: int) -> None:
        self._copies = copies
        self._collection_id = collection_id
        self._graph: Graph | None = None
        self._opened: tuple[str, tuple[int, int] | None] | None = None
        self._build_after = 0.0
        self._hindrance: str | None = None
        self.why_exact: str | None = None
        """Why there is no index to search in now, where one would be of use."""

    def of(self, rows: CollectionRows) -> Graph | None:
        """The index of the copy that `rows` have; None where there is none yet: then it is being built.

        May take long: call it in a thread. Raises UsageError where usearch isn't installed.
        """
        need_usearch()
        copy = rows.copy
        if self._copies is None or copy is None:
            self._graph = self._opened = None
            self.why_exact = None if is_small(rows) else "its vectors can't be kept in files beside the database"
            return None
        head, _ = copy
        if head.token == UNPUBLISHED:
            self.why_exact = "the files for searching it could not be put in place: the database was locked"
            return None
        self._look(self._copies, head)
        if is_due(head.rows, None if self._graph is None else self._graph.size):
            self._build(self._copies)
        self.why_exact = None if self._graph is not None else self._hindrance or _BEING_BUILT
        return self._graph

    def _look(self, copies: CopyFolder, head: Head) -> None:
        """Open the index that is there now, if it isn't open."""
        path = graph_head_path(copies.path, head)
        found = (head.name, _state(path))
        if found != self._opened:
            self._opened = found
            self._graph = Graph.open(copies.path, head, to_add=False) if found[1] is not None else None
            if found[1] is not None and self._graph is None:
                _log.warning("%s: the index of a collection is damaged: built anew", copies.database)

    def _build(self, copies: CopyFolder) -> None:
        if time.monotonic() < self._build_after:
            return
        self._build_after = time.monotonic() + _RETRY_SECONDS
        try:
            start_building(copies, self._collection_id)
            self._hindrance = None
        except OSError as error:
            self._hindrance = f"its index can't be built: {error}"


def is_small(rows: CollectionRows) -> bool:
    """Whether rows are so few that an index would be of no use."""
    return 4 * rows.dimension * rows.size <= _SMALL_BYTES


def is_due(rows: int, indexed: int | None) -> bool:
    """Whether an index that holds `indexed` rows (None: there is none) of a copy of `rows` is to be built."""
    return indexed is None or rows - indexed > max(_SPARE_ROWS, indexed * _SPARE_SHARE)


def near_counts(number: int, size: int) -> Iterator[int]:
    """How many rows an index is asked for, of `size`, to find `number` that are there: more and more of them."""
    wanted = max(_NEAR, _NEAR_GROWTH * number)
    while wanted <= _NEAR_MOST and wanted * _NEAR_SHARE <= size:
        yield wanted
        wanted *= _NEAR_GROWTH


def near_scores(
    rows: CollectionRows, graph: Graph, unit: Matrix, wanted: int, kept: Mask | None
) -> tuple[Matrix, Places]:
    """Scores and places of about `wanted` of the nearest rows in the index, and of those as near that it lacks.

    Of those alone that are `kept` (None: all). May take long: call it in a thread.
    """
    _, held = rows.copy or (None, 0)
    near = graph.nearest(unit, wanted)
    near = near[near < held]
    scores, places = [rows.scores(unit, near)], [near]
    # What is farther than these may be farther than others that the index didn't name.
    floor = float(scores[0].min(initial=np.inf))
    for first, block in rows.blocks(STEP, graph.size):
        found = block @ unit
        over = np.flatnonzero(found >= floor)
        scores.append(found[over])
        places.append(over + first)
    all_scores, all_places = np.concatenate(scores), np.concatenate(places)
    if kept is None:
        return all_scores, all_places
    among = kept[all_places]
    return all_scores[among], all_places[among]


def start_building(copies: CopyFolder, collection_id: int) -> None:
    """Have a process of its own build an index, and go on after this one has ended; it ends when it is done.

    Nothing happens while another process is building it. Raises OSError.
    """
    lock = CopyLock(copies, collection_id, INDEX_LOCK)
    if not lock.take():
        return
    lock.release()
    # In a session of its own: Ctrl-C is for the command that was typed.
    child = subprocess.Popen(  # noqa: S603 - this program itself
        [
            sys.executable,
            "-P",
            "-m",
            "embedq_store.indexing",
            str(Path(copies.database).absolute()),
            str(collection_id),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Or it would stay in the system's list for as long as this process lives.
    threading.Thread(target=child.wait, name="embedq-index", daemon=True).start()


def _state(path: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
