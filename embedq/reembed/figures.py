"""How far re-embeddings have come, for people and for programs."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from embedq.inspecting import moment
from embedq.tables import print_table
from embedq_core.errors import DatabaseMissing
from embedq_core.settings import Settings
from embedq_core.text import shown
from embedq_jobs import Progress, Queue, open_queue, progress_of, queue_exists
from embedq_producer.terminal import duration, percent
from embedq_store import Coverage, Reembedding, Store
from embedq_worker.supplying import latest_run


@dataclass(frozen=True, slots=True)
class ReembeddingRow:
    """A re-embedding as it stands. `coverage` is None where it was not asked for, or it has ended; `progress` is that
    of its latest run, None where there is none.
    """

    reembedding: Reembedding
    coverage: Coverage | None
    progress: Progress | None

    @property
    def seconds_left(self) -> float | None:
        """How long the latest run takes still; None where nobody can tell."""
        return None if self.progress is None else self.progress.seconds_left

    @property
    def share(self) -> float | None:
        """How much is done, in [0, 1]: of all entries, or, where these were not looked at, of the latest run's."""
        if not self.reembedding.open:
            return None
        if self.coverage is not None:
            total = self.coverage
            return (total.covered + total.dead) / total.entries if total.entries else 1.0
        return None if self.progress is None else self.progress.share


async def reembedding_rows(
    store: Store, queue: Queue | None, *, collection: str | None = None, covered: bool = False
) -> list[ReembeddingRow]:
    """The re-embeddings of the database, or of one collection, the latest first: those that are open or whose other
    vectors are kept, and else the last of each collection.

    Cheap, but with `covered`: then all entries of those that are open are compared.
    """
    found: dict[str, Reembedding] = {}
    pairs: set[tuple[int, int]] = set()
    rows = []
    for each in await store.reembeddings.all():
        if collection not in (None, each.collection):
            continue
        first = found.setdefault(each.collection, each) is each
        # Of several about the same vectors, as after two rollbacks, the latest says what they are.
        if not (first or each.open or each.keeps_others) or (each.source, each.shadow) in pairs:
            continue
        pairs.add((each.source, each.shadow))
        rows.append(await _row(each, store, queue if each.open else None, covered=covered))
    return rows


async def _row(reembedding: Reembedding, store: Store, queue: Queue | None, *, covered: bool) -> ReembeddingRow:
    run = None if queue is None else await latest_run(queue, reembedding)
    coverage = await store.reembeddings.coverage(reembedding) if covered and reembedding.open else None
    return ReembeddingRow(reembedding, coverage, None if run is None else progress_of(run, time.time()))


async def reembedding_object(reembedding: Reembedding, store: Store, queue: Queue | None) -> dict[str, object]:
    """For JSON: times in seconds since the epoch."""
    return row_object(await _row(reembedding, store, queue, covered=True))


def row_object(row: ReembeddingRow) -> dict[str, object]:
    """For JSON: the golden queries are left out."""
    each = row.reembedding
    return {
        "collection": each.collection,
        "state": each.state,
        "message": each.message,
        "old_model": each.old_model,
        "model": each.new_model,
        "run": each.run,
        "started": each.started,
        "switched": each.switched,
        "golden": each.golden is not None,
        "recall": each.recall,
        "drop_old": each.drop_old,
        "share": row.share,
        "seconds_left": row.seconds_left,
        "coverage": None if row.coverage is None else asdict(row.coverage),
    }


async def print_reembeddings(
    collection: str | None, settings: Settings, database: Path | None, *, as_json: bool
) -> None:
    """Print what is, and was, embedded anew. Raises CollectionMissing, DatabaseMissing for what was named."""
    rows = await _read_rows(collection, settings, named=database is not None or collection is not None)
    if as_json:
        print(json.dumps([row_object(row) for row in rows]))
        return
    if not rows:
        print("nothing is being embedded anew: 'embedq reembed COLLECTION -m MODEL' begins")
        return
    print_table(
        ["collection", "state", "from", "to", "done", "left", "since"],
        [
            [
                row.reembedding.collection,
                row.reembedding.state,
                row.reembedding.old_model,
                row.reembedding.new_model,
                "-" if row.share is None else percent(row.share),
                "-" if row.seconds_left is None else duration(row.seconds_left),
                moment(row.reembedding.switched or row.reembedding.started),
            ]
            for row in rows
        ],
        right={4, 5},
    )
    for row in rows:
        if row.reembedding.message:
            print(f"{shown(row.reembedding.collection)}: {shown(row.reembedding.message)}")


async def _read_rows(collection: str | None, settings: Settings, *, named: bool) -> list[ReembeddingRow]:
    try:
        store = await Store.open(settings.database, read_only=True, busy_seconds=settings.busy_seconds)
    except DatabaseMissing:
        if named:
            raise
        return []
    async with store:
        if collection is not None:
            await store.collection(collection)
        if not queue_exists(settings):
            return await reembedding_rows(store, None, collection=collection, covered=True)
        async with open_queue(settings) as queue:
            return await reembedding_rows(store, queue, collection=collection, covered=True)
