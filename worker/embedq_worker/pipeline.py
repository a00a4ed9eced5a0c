"""What a worker does with a chunk: look up, decide, embed, write. Everything else is around this."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final, TypeAlias

import msgspec

from embedq_core.cancelling import cancel, to_its_end
from embedq_core.configuration import Configuration, check_writing
from embedq_core.counts import Counts
from embedq_core.errors import BadVectors, ConfigurationMismatch, ModelMismatch, StoreError, UnsupportedContent
from embedq_core.vectors import STORED_DTYPE
from embedq_jobs import Chunk, job_id
from embedq_store import Incoming, Known, Plan, Row, Standing, Store, decide
from embedq_worker.claims import Claims, ContentKey
from embedq_worker.outbox import Ended, Outbox, Progress
from embedq_worker.runner import Fault, ModelRunner, Piece, Stopping

# Vectors of a slow model are committed at least this often: a worker that is killed loses no more of them.
FLUSH_SECONDS: Final = 1.0

Waiting: TypeAlias = Callable[[], contextlib.AbstractContextManager[object]]


async def process(
    chunk: Chunk,
    runner: ModelRunner,
    store: Store,
    claims: Claims,
    progress: Progress | None = None,
    *,
    high: bool = False,
    waiting: Waiting = contextlib.nullcontext,
) -> Counts:
    """Bring every item of `chunk` into the store or among the dead letters; return what became of them.

    When it returns, all is committed; `progress` hears of what is committed before. Doing it again changes
    nothing and costs nothing: what was committed is found. The contents of a `high` chunk go ahead of others'. It is
    `waiting` for as long as there is nothing to do but for another chunk, which has a text of it embedded. While the
    database can't be written to, vectors that were paid for are kept in memory. Raises TransientFailure and
    Stopping, and StoreError where the database can't be read, or not be written when the worker stops; then the chunk
    has to be processed again. Raises WantsModel where the collection has another model since it was embedded anew,
    before any of it is written with this one.
    """
    return await _Processing(chunk, runner, store, claims, progress, high=high, waiting=waiting).run()


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
        waiting: Waiting,
    ) -> None:
        self._out = Outbox(chunk, runner, store, progress)
        self._runner = runner
        self._store = store
        self._claims = claims
        self._high = high
        self._waiting = waiting
        # Items that an earlier attempt at this chunk has stored, and counted.
        self._stored_before = 0

    async def run(self) -> Counts:
        standing = await self._out.standing()
        if standing.mark is not None:
            self._out.before, finished = standing.mark
            if finished:
                return self._out.before
        try:
            while standing.moved is not None:
                self._out.follow(standing.moved)
                standing = await self._out.standing()
            self._out.dimension = standing.dimension
            remaining = await self._fit(Incoming.of(self._out.chunk.items), standing)
            while True:
                remaining = await self._round(remaining)
                if not remaining:
                    return self._out.before
        except Ended:
            return await self._drop()

    async def _drop(self) -> Counts:
        """Finish without a word more: what is not counted yet counts as unchanged."""
        self._out.pending.counts = Counts(unchanged=max(len(self._out.chunk.items) - self._out.before.done, 0))
        return await self._out.flush(finished=True)

    async def _fit(self, incoming: list[Incoming], standing: Standing) -> list[Incoming]:
        """Those that the collection and the model can take; the others are dead, some from an earlier attempt."""
        if standing.mark is not None:
            dead = await self._store.dead.ids(self._out.chunk.run, self._out.chunk.number)
            # A worker that had stalled may have written its counts over those that told of them.
            self._out.before = msgspec.structs.replace(self._out.before, failed=len(dead))
            incoming = [entry for entry in incoming if entry.item.id not in dead]
            self._stored_before = self._out.before.done - (len(self._out.chunk.items) - len(incoming))
        found = standing.collection
        if found is not None and found.model_id != self._out.chunk.model_id:
            message = (
                f"the collection {found.name!r} was embedded with {found.model_id}, not {self._out.chunk.model_id}"
            )
            for entry in incoming:
                self._out.bury(entry, Fault(ModelMismatch.__name__, message, 1))
            return []
        if standing.configuration is not None:
            incoming = await self._agreeing(incoming, standing.configuration)
        good = []
        for entry in incoming:
            problem = self._runner.model.unsupported(entry.item.content)
            if problem is None:
                good.append(entry)
            else:
                self._out.bury(entry, Fault(UnsupportedContent.__name__, problem, 1))
        return good

    async def _agreeing(self, incoming: list[Incoming], recorded: Configuration) -> list[Incoming]:
        """All, where the model is as it is `recorded`; else those that are stored as they are: the others are dead."""
        try:
            check_writing(
                self._out.chunk.collection, self._out.chunk.model_id, recorded, self._runner.model.configuration
            )
        except ConfigurationMismatch as error:
            known = (await self._store.known(self._out.chunk.collection, incoming)).by_id
            good = [entry for entry in incoming if (held := known.get(entry.item.id)) and held.digest == entry.digest]
            ids = {entry.item.id for entry in good}
            for entry in incoming:
                if entry.item.id not in ids:
                    self._out.bury(entry, Fault(ConfigurationMismatch.__name__, str(error), 1))
            return good
        return incoming

    async def _round(self, incoming: list[Incoming]) -> list[Incoming]:
        """Do what can be done now; return what waits for a text that another chunk is having embedded."""
        collection = self._out.chunk.collection
        with self._claims.claiming(collection) as claim, self._claims.elsewhere.claiming(collection) as claim_elsewhere:
            known = await self._store.known(collection, incoming)
            if self._out.chunk.mends:
                incoming = self._still_cleared(incoming, known)
            plan = decide(incoming, known, store=self._out.chunk.store)
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
                await to_its_end(self._out.flush(finished=False))
                raise
            await to_its_end(self._out.flush(finished=not theirs))
        if theirs:
            with self._waiting():
                for event in theirs.values():
                    await self._wait_for(event)
        return [incoming[index] for key in theirs for index in plan.inputs[key]]

    async def _stored(self, firsts: Mapping[ContentKey, Incoming], keys: Collection[ContentKey]) -> list[ContentKey]:
        """Those of the contents `keys` that are stored by now, each looked up as that of its first item."""
        incoming = [firsts[key] for key in keys]
        left = decide(incoming, await self._store.known(self._out.chunk.collection, incoming), store=False).inputs
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
        self._out.pending.counts += Counts(unchanged=len(incoming) - len(cleared))
        return cleared

    def _keep_known(self, plan: Plan, incoming: list[Incoming]) -> None:
        pending = self._out.pending
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
        self._runner.came(job_id(self._out.chunk.run, self._out.chunk.number))
        if not owners:
            return
        contents = [incoming[group[0]].item.content for group in owners]
        async with contextlib.aclosing(self._runner.embed(contents, self._out.chunk.run, high=self._high)) as pieces:
            async for piece in pieces:
                self._take(piece, owners, incoming)
                if self._out.pending and time.monotonic() - self._out.pending.written > FLUSH_SECONDS:
                    await self._out.flush(finished=False)

    def _take(self, piece: Piece, owners: list[list[int]], incoming: list[Incoming]) -> None:
        faults = piece.faults
        size = piece.matrix.shape[1]
        if self._out.dimension is None and len(faults) < len(piece.matrix):
            self._out.dimension = size
        if size != self._out.dimension:
            wrong = Fault(BadVectors.__name__, self._wrong_dimension(size), 1)
            faults = dict.fromkeys(range(len(piece.matrix)), wrong) | faults
        groups = owners[piece.start : piece.start + len(piece.matrix)]
        blob, stride = piece.matrix.astype(STORED_DTYPE, copy=False).tobytes(), size * STORED_DTYPE.itemsize
        vectors = [blob[offset * stride : (offset + 1) * stride] for offset in range(len(groups))]
        if faults:
            for offset in sorted(faults):
                for index in groups[offset]:
                    self._out.bury(incoming[index], faults[offset])
            groups = [group for offset, group in enumerate(groups) if offset not in faults]
            vectors = [vector for offset, vector in enumerate(vectors) if offset not in faults]
        rows = [
            Row._make((*incoming[index], vector))
            for group, vector in zip(groups, vectors, strict=True)
            for index in group
        ]
        self._out.pending.rows += rows
        self._out.pending.counts += Counts(
            embedded=len(groups), reused=len(rows) - len(groups), calls=piece.calls, inputs=len(piece.matrix)
        )

    def _wrong_dimension(self, size: int) -> str:
        return (
            f"the model {self._out.chunk.model_id} returned a vector of {size} dimensions; the collection "
            f"{self._out.chunk.collection!r} holds vectors of {self._out.dimension}"
        )
