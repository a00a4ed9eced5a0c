"""The outbox of a chunk: what is ready to be written of it, and the way of that into the store, whatever is in it."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

import msgspec

from embedq_core.collection_names import base_name
from embedq_core.counts import Counts
from embedq_core.errors import BadVectors, ConfigurationMismatch, DatabaseUnusable, ModelMismatch, StoreError
from embedq_core.parts import documents_of
from embedq_jobs import Chunk, job_id
from embedq_store import ChunkMark, DeadLetter, Incoming, Moved, Row, Standing, Store, Target, Write
from embedq_worker.logs import about
from embedq_worker.runner import Fault, ModelRunner

# How long to wait before writing again to a database that could not be written to.
WRITE_AGAIN_SECONDS: Final = 5.0

_log = logging.getLogger("embedq.worker")

Progress: TypeAlias = Callable[[Counts], Awaitable[None]]


@dataclass(slots=True)
class Pending:
    """What is ready to be written for a chunk, and what has been."""

    rows: list[Row] = field(default_factory=list)
    updates: list[Incoming] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    written: float = field(default_factory=time.monotonic)

    def __bool__(self) -> bool:
        return bool(self.rows or self.updates or self.dead)


class WantsModel(Exception):  # noqa: N818 - a signal to the lane
    """The chunk's collection has been embedded anew since it was queued: another model's queue is the place for it."""

    def __init__(self, collection: str, model_id: str) -> None:
        super().__init__(f"{collection!r} has {model_id} now")
        self.collection = collection
        self.model_id = model_id


class Ended(Exception):  # noqa: N818 - a signal to the pipeline
    """The chunk comes from a re-embedding that has ended: its items are accounted for."""


class Outbox:
    """Rows, dead letters and counts of one chunk on their way into the store."""

    def __init__(self, chunk: Chunk, runner: ModelRunner, store: Store, progress: Progress | None) -> None:
        self.chunk = chunk
        """As it was queued, but for its collection, where that has another name since."""
        self.pending = Pending()
        self.before = Counts()
        """What became of its items so far, as it is committed."""
        self.dimension: int | None = None
        """Of the collection's vectors; None while it has none."""
        self._runner = runner
        self._store = store
        self._progress = progress
        self._target = Target(chunk.collection, chunk.model_id, runner.model.configuration)
        # What is copied into a shadow is not a version of a document: what the source has there is right.
        self._documents = () if base_name(chunk.collection) is not None else documents_of(chunk.items)

    async def standing(self) -> Standing:
        """How far the chunk has come, and what its collection is."""
        chunk = self.chunk
        return await self._store.standing(chunk.run, chunk.number, chunk.collection, chunk.model_id)

    def follow(self, moved: Moved) -> None:
        """Go on in the collection in which the items belong now. Raises WantsModel where another model is to, and
        Ended where they belong in none.
        """
        if moved.collection is None or moved.model_id is None:
            self.pending = Pending()
            raise Ended
        if moved.model_id != self.chunk.model_id:
            self.pending = Pending()
            raise WantsModel(moved.collection, moved.model_id)
        self.chunk = msgspec.structs.replace(self.chunk, collection=moved.collection)
        self._target = replace(self._target, collection=moved.collection)
        self.pending.dead = [replace(letter, collection=moved.collection) for letter in self.pending.dead]

    def bury(self, entry: Incoming, fault: Fault) -> None:
        """Put an item among the dead letters that are to be written."""
        item = entry.item
        self.pending.dead.append(
            DeadLetter(
                run=self.chunk.run,
                chunk=self.chunk.number,
                collection=self.chunk.collection,
                id=item.id,
                content=item.content,
                metadata=item.metadata,
                model=self.chunk.model_id,
                error=fault.error,
                message=fault.message,
                attempts=fault.attempts,
                died=time.time(),
            )
        )
        self.pending.counts += Counts(failed=1)

    async def flush(self, *, finished: bool) -> Counts:
        """Commit what is pending, with the mark that says how far the chunk has come; return what became of its items.

        Rows that the collection refuses die, unless they belong elsewhere now; the database is waited for. Raises
        StoreError where it can't be written when the worker stops, WantsModel and Ended; nothing is forgotten then.
        """
        pending, self.pending = self.pending, Pending()
        counts = nowhere_negative(self.before + pending.counts)
        mark = ChunkMark(self.chunk.run, self.chunk.number, counts, finished)
        documents = self._documents if finished else ()
        try:
            removed = await self._write(
                Write(
                    self._target,
                    pending.rows,
                    pending.updates,
                    self.chunk.store,
                    pending.dead,
                    mark,
                    documents,
                    self.chunk.mends,
                )
            )
        except (BadVectors, ModelMismatch) as error:
            self.pending = pending
            if not isinstance(error, BadVectors | ConfigurationMismatch):
                moved = (await self.standing()).moved
                if moved is not None:
                    self.follow(moved)
                    return await self.flush(finished=finished)
            return await self._bury_rows(pending, error, finished=finished)
        except BaseException:
            # The next attempt finds what there is; nothing of this one may be forgotten before.
            self.pending = pending
            raise
        before, self.before = self.before, counts + Counts(removed=removed)
        self._tell(self.before - before, pending.dead)
        if self._progress is not None and not finished:
            await self._progress(counts)
        return self.before

    def _tell(self, settled: Counts, dead: list[DeadLetter]) -> None:
        """Tell what was committed just now: a chunk of a slow model is in hand for minutes."""
        telemetry = self._runner.telemetry
        telemetry.settled(settled)
        for error, letters in Counter(letter.error for letter in dead).items():
            telemetry.died(error, letters)

    async def _write(self, write: Write) -> int:
        """Write, however long the database is locked or the disk full: giving up would mean to pay again."""
        while True:
            try:
                return await self._store.write(write)
            except (BadVectors, ModelMismatch, DatabaseUnusable):
                raise
            except StoreError as error:
                if self._runner.stopping.is_set():
                    raise
                _log.warning(
                    "%s; trying again in %.0f s, the vectors are kept",
                    error,
                    WRITE_AGAIN_SECONDS,
                    extra=about(
                        self.chunk.model_id,
                        job=job_id(self.chunk.run, self.chunk.number),
                        collection=self.chunk.collection,
                    ),
                )
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._runner.stopping.wait(), WRITE_AGAIN_SECONDS)

    async def _bury_rows(self, pending: Pending, error: Exception, *, finished: bool) -> Counts:
        """The collection refuses these rows: keep those that fit, the others are dead."""
        self.dimension = await self._store.dimension(self.chunk.collection)
        keep: list[Row] = []
        self.pending = pending
        rows, pending.rows = pending.rows, keep
        counted: set[bytes] = set()
        for row in rows:
            if isinstance(error, BadVectors) and len(row.vector) // 4 == self.dimension:
                keep.append(row)
            else:
                self.bury(Incoming(row.item, row.digest), Fault(type(error).__name__, str(error), 1))
                # Of those with equal contents, the first was embedded and the others were copied.
                pending.counts += Counts(reused=-1) if row.digest in counted else Counts(embedded=-1)
                counted.add(row.digest)
        if type(error) is ModelMismatch:
            # They were for a collection that is gone.
            pending.updates = []
        return await self.flush(finished=finished)


def nowhere_negative(counts: Counts) -> Counts:
    """The counts of a chunk that was begun before, where another has since changed what was stored then: such
    items were embedded twice, and are counted once.
    """
    short = max(-counts.unchanged, 0)
    embedded = min(short, counts.embedded)
    return counts + Counts(unchanged=short, embedded=-embedded, reused=embedded - short)
