"""What a worker does with a chunk: look up, decide, embed, write. Everything else is around this."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeAlias

import msgspec

from embedq_core.collection_names import base_name
from embedq_core.configuration import Configuration, check_writing
from embedq_core.counts import Counts
from embedq_core.errors import (
    BadVectors,
    ConfigurationMismatch,
    DatabaseUnusable,
    ModelMismatch,
    StoreError,
    UnsupportedContent,
)
from embedq_core.parts import documents_of
from embedq_core.vectors import STORED_DTYPE
from embedq_core.wholly import to_its_end
from embedq_jobs import Chunk, job_id
from embedq_store import (
    ChunkMark,
    DeadLetter,
    Incoming,
    Known,
    Moved,
    Plan,
    Row,
    Standing,
    Store,
    Target,
    Write,
    decide,
)
from embedq_worker.cancelling import cancel
from embedq_worker.claims import Claims, ContentKey
from embedq_worker.logs import about
from embedq_worker.runner import Fault, ModelRunner, Piece, Stopping

# Vectors of a slow model are committed at least this often: a worker that is killed loses no more of them.
FLUSH_SECONDS: Final = 1.0

# How long to wait before writing again to a database that could not be written to.
WRITE_AGAIN_SECONDS: Final = 5.0

_log = logging.getLogger("embedq.worker")


@dataclass(slots=True)
class _Pending:
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


class _Ended(Exception):  # noqa: N818 - a signal within this module
    """The chunk comes from a re-embedding that has ended: its items are accounted for."""


Progress: TypeAlias = Callable[[Counts], Awaitable[None]]


async def process(
    chunk: Chunk,
    runner: ModelRunner,
    store: Store,
    claims: Claims,
    progress: Progress | None = None,
    *,
    high: bool = False,
) -> Counts:
    """Bring every item of `chunk` into the store or among the dead letters; return what became of them.

    When it returns, all is committed; `progress` hears of what is committed before. Doing it again changes
    nothing and costs nothing: what was committed is found. The contents of a `high` chunk go ahead of others'. While
    the database can't be written to, vectors that were paid for are kept in memory. Raises TransientFailure and
    Stopping, and StoreError where the database can't be read, or not be written when the worker stops; then the chunk
    has to be processed again. Raises WantsModel where the collection has another model since it was embedded anew,
    before any of it is written with this one.
    """
    return await _Processing(chunk, runner, store, claims, progress, high=high).run()


class _Processing:
    """The processing of one chunk."""

    def __init__(
        self,
        chunk: Chunk,
        runner: ModelRunner,
        store: Store,
        claims: Claims,
        progress: Progress | None,
        *,
        high: bool,
    ) -> None:
        self._chunk = chunk
        self._runner = runner
        self._store = store
        self._claims = claims
        self._progress = progress
        self._high = high
        self._target = Target(chunk.collection, chunk.model_id, runner.model.configuration)
        # What is copied into a shadow is not a version of a document: what the source has there is right.
        self._documents = () if base_name(chunk.collection) is not None else documents_of(chunk.items)
        self._pending = _Pending()
        self._before = Counts()
        self._stored_before = 0
        self._dimension: int | None = None

    async def run(self) -> Counts:
        standing = await self._standing()
        if standing.mark is not None:
            self._before, finished = standing.mark
            if finished:
                return self._before
        try:
            while standing.moved is not None:
                self._follow(standing.moved)
                standing = await self._standing()
            self._dimension = standing.dimension
            remaining = await self._fit(Incoming.of(self._chunk.items), standing)
            while True:
                remaining = await self._round(remaining)
                if not remaining:
                    return self._before
        except _Ended:
            return await self._drop()

    async def _standing(self) -> Standing:
        chunk = self._chunk
        return await self._store.standing(chunk.run, chunk.number, chunk.collection, chunk.model_id)

    def _follow(self, moved: Moved) -> None:
        """Go on in the collection in which the items belong now. Raises WantsModel where another model is to, and
        _Ended where they belong in none.
        """
        if moved.collection is None or moved.model_id is None:
            self._pending = _Pending()
            raise _Ended
        if moved.model_id != self._chunk.model_id:
            self._pending = _Pending()
            raise WantsModel(moved.collection, moved.model_id)
        self._chunk = msgspec.structs.replace(self._chunk, collection=moved.collection)
        self._target = replace(self._target, collection=moved.collection)
        self._pending.dead = [replace(letter, collection=moved.collection) for letter in self._pending.dead]

    async def _drop(self) -> Counts:
        """Finish without a word more: what is not counted yet counts as unchanged."""
        self._pending.counts = Counts(unchanged=max(len(self._chunk.items) - self._before.done, 0))
        return await self._flush(finished=True)

    async def _fit(self, incoming: list[Incoming], standing: Standing) -> list[Incoming]:
        """Those that the collection and the model can take; the others are dead, some from an earlier attempt."""
        if standing.mark is not None:
            dead = await self._store.dead.ids(self._chunk.run, self._chunk.number)
            # A worker that had stalled may have written its counts over those that told of them.
            self._before = msgspec.structs.replace(self._before, failed=len(dead))
            incoming = [entry for entry in incoming if entry.item.id not in dead]
            self._stored_before = self._before.done - (len(self._chunk.items) - len(incoming))
        found = standing.collection
        if found is not None and found.model_id != self._chunk.model_id:
            message = f"the collection {found.name!r} was embedded with {found.model_id}, not {self._chunk.model_id}"
            for entry in incoming:
                self._bury(entry, Fault(ModelMismatch.__name__, message, 1))
            return []
        if standing.configuration is not None:
            incoming = await self._agreeing(incoming, standing.configuration)
        good = []
        for entry in incoming:
            problem = self._runner.model.unsupported(entry.item.content)
            if problem is None:
                good.append(entry)
            else:
                self._bury(entry, Fault(UnsupportedContent.__name__, problem, 1))
        return good

    async def _agreeing(self, incoming: list[Incoming], recorded: Configuration) -> list[Incoming]:
        """All, where the model is as it is `recorded`; else those that are stored as they are: the others are dead."""
        try:
            check_writing(self._chunk.collection, self._chunk.model_id, recorded, self._runner.model.configuration)
        except ConfigurationMismatch as error:
            known = (await self._store.known(self._chunk.collection, incoming)).by_id
            good = [entry for entry in incoming if (held := known.get(entry.item.id)) and held.digest == entry.digest]
            ids = {entry.item.id for entry in good}
            for entry in incoming:
                if entry.item.id not in ids:
                    self._bury(entry, Fault(ConfigurationMismatch.__name__, str(error), 1))
            return good
        return incoming

    async def _round(self, incoming: list[Incoming]) -> list[Incoming]:
        """Do what can be done now; return what waits for a text that another chunk is having embedded."""
        collection = self._chunk.collection
        with self._claims.claiming(collection) as claim, self._claims.elsewhere.claiming(collection) as claim_elsewhere:
            known = await self._store.known(collection, incoming)
            if self._chunk.mends:
                incoming = self._still_cleared(incoming, known)
            plan = decide(incoming, known, store=self._chunk.store)
            self._keep_known(plan, incoming)
            theirs = claim(plan.inputs)
            firsts = {key: incoming[owners[0]] for key, owners in plan.inputs.items() if key not in theirs}
            theirs |= await claim_elsewhere(firsts, partial(self._stored, firsts))
            mine = [owners for key, owners in plan.inputs.items() if key not in theirs]
            # Claims end with this block: by then the rows must be where others look, whatever ends us.
            try:
                await self._embed(mine, incoming)
            except StoreError:
                raise
            except BaseException:
                await to_its_end(self._flush(finished=False))
                raise
            await to_its_end(self._flush(finished=not theirs))
        for event in theirs.values():
            await self._wait_for(event)
        return [incoming[index] for key in theirs for index in plan.inputs[key]]

    async def _stored(self, firsts: Mapping[ContentKey, Incoming], keys: Collection[ContentKey]) -> list[ContentKey]:
        """Those of the contents `keys` that are stored by now, each looked up as that of its first item."""
        incoming = [firsts[key] for key in keys]
        left = decide(incoming, await self._store.known(self._chunk.collection, incoming), store=False).inputs
        return [key for key in keys if key not in left]

    async def _wait_for(self, event: asyncio.Event) -> None:
        """Wait for another chunk's end. Raises Stopping: in another process, that may be a long time after ours."""
        if event.is_set():
            return
        waiting = [asyncio.create_task(each.wait()) for each in (event, self._runner.stopping)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(waiting)
        if not event.is_set():
            raise Stopping

    def _still_cleared(self, incoming: list[Incoming], known: Known) -> list[Incoming]:
        """Those that are stored without a hash still. The others count as unchanged: what is stored is newer."""
        cleared = [entry for entry in incoming if (held := known.by_id.get(entry.item.id)) and held.digest is None]
        self._pending.counts += Counts(unchanged=len(incoming) - len(cleared))
        return cleared

    def _keep_known(self, plan: Plan, incoming: list[Incoming]) -> None:
        pending = self._pending
        pending.updates.extend(incoming[index] for index in plan.updates)
        pending.rows.extend(Row(*incoming[index], vector) for index, vector in plan.reused)
        # What an earlier attempt at this chunk has stored, and counted, is found unchanged now.
        again, self._stored_before = self._stored_before, 0
        pending.counts += Counts(
            unchanged=len(plan.unchanged) + len(plan.superseded) - again,
            reused=len(plan.reused),
            updated=len(plan.updates),
        )

    async def _embed(self, owners: list[list[int]], incoming: list[Incoming]) -> None:
        """Have the first of each group embedded; all of the group get its vector."""
        self._runner.came(job_id(self._chunk.run, self._chunk.number))
        if not owners:
            return
        contents = [incoming[group[0]].item.content for group in owners]
        async with contextlib.aclosing(self._runner.embed(contents, self._chunk.run, high=self._high)) as pieces:
            async for piece in pieces:
                self._take(piece, owners, incoming)
                if self._pending and time.monotonic() - self._pending.written > FLUSH_SECONDS:
                    await self._flush(finished=False)

    def _take(self, piece: Piece, owners: list[list[int]], incoming: list[Incoming]) -> None:
        faults = piece.faults
        size = piece.matrix.shape[1]
        if self._dimension is None and len(faults) < len(piece.matrix):
            self._dimension = size
        if size != self._dimension:
            wrong = Fault(BadVectors.__name__, self._wrong_dimension(size), 1)
            faults = dict.fromkeys(range(len(piece.matrix)), wrong) | faults
        groups = owners[piece.start : piece.start + len(piece.matrix)]
        blob, stride = piece.matrix.astype(STORED_DTYPE, copy=False).tobytes(), size * STORED_DTYPE.itemsize
        vectors = [blob[offset * stride : (offset + 1) * stride] for offset in range(len(groups))]
        if faults:
            for offset in sorted(faults):
                for index in groups[offset]:
                    self._bury(incoming[index], faults[offset])
            groups = [group for offset, group in enumerate(groups) if offset not in faults]
            vectors = [vector for offset, vector in enumerate(vectors) if offset not in faults]
        rows = [
            Row._make((*incoming[index], vector))
            for group, vector in zip(groups, vectors, strict=True)
            for index in group
        ]
        self._pending.rows += rows
        self._pending.counts += Counts(
            embedded=len(groups), reused=len(rows) - len(groups), calls=piece.calls, inputs=len(piece.matrix)
        )

    def _wrong_dimension(self, size: int) -> str:
        return (
            f"the model {self._chunk.model_id} returned a vector of {size} dimensions; the collection "
            f"{self._chunk.collection!r} holds vectors of {self._dimension}"
        )

    def _bury(self, entry: Incoming, fault: Fault) -> None:
        item = entry.item
        self._pending.dead.append(
            DeadLetter(
                run=self._chunk.run,
                chunk=self._chunk.number,
                collection=self._chunk.collection,
                id=item.id,
                content=item.content,
                metadata=item.metadata,
                model=self._chunk.model_id,
                error=fault.error,
                message=fault.message,
                attempts=fault.attempts,
                died=time.time(),
            )
        )
        self._pending.counts += Counts(failed=1)

    async def _flush(self, *, finished: bool) -> Counts:
        """Commit what is pending, with the mark that says how far the chunk has come."""
        pending, self._pending = self._pending, _Pending()
        counts = _nowhere_negative(self._before + pending.counts)
        mark = ChunkMark(self._chunk.run, self._chunk.number, counts, finished)
        documents = self._documents if finished else ()
        try:
            removed = await self._write(
                Write(
                    self._target,
                    pending.rows,
                    pending.updates,
                    self._chunk.store,
                    pending.dead,
                    mark,
                    documents,
                    self._chunk.mends,
                )
            )
        except (BadVectors, ModelMismatch) as error:
            self._pending = pending
            if not isinstance(error, BadVectors | ConfigurationMismatch):
                moved = (await self._standing()).moved
                if moved is not None:
                    self._follow(moved)
                    return await self._flush(finished=finished)
            return await self._bury_rows(pending, error, finished=finished)
        except BaseException:
            # The next attempt finds what there is; nothing of this one may be forgotten before.
            self._pending = pending
            raise
        before, self._before = self._before, counts + Counts(removed=removed)
        self._tell(self._before - before, pending.dead)
        if self._progress is not None and not finished:
            await self._progress(counts)
        return self._before

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
                        self._chunk.model_id,
                        job=job_id(self._chunk.run, self._chunk.number),
                        collection=self._chunk.collection,
                    ),
                )
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._runner.stopping.wait(), WRITE_AGAIN_SECONDS)

    async def _bury_rows(self, pending: _Pending, error: Exception, *, finished: bool) -> Counts:
        """The collection refuses these rows: keep those that fit, the others are dead."""
        self._dimension = await self._store.dimension(self._chunk.collection)
        keep: list[Row] = []
        self._pending = pending
        rows, pending.rows = pending.rows, keep
        counted: set[bytes] = set()
        for row in rows:
            if isinstance(error, BadVectors) and len(row.vector) // 4 == self._dimension:
                keep.append(row)
            else:
                self._bury(Incoming(row.item, row.digest), Fault(type(error).__name__, str(error), 1))
                # Of those with equal contents, the first was embedded and the others were copied.
                pending.counts += Counts(reused=-1) if row.digest in counted else Counts(embedded=-1)
                counted.add(row.digest)
        if type(error) is ModelMismatch:
            # They were for a collection that is gone.
            pending.updates = []
        return await self._flush(finished=finished)


def _nowhere_negative(counts: Counts) -> Counts:
    """The counts of a chunk that was begun before, where another has since changed what was stored then: such
    items were embedded twice, and are counted once.
    """
    short = max(-counts.unchanged, 0)
    embedded = min(short, counts.embedded)
    return counts + Counts(unchanged=short, embedded=-embedded, reused=embedded - short)
