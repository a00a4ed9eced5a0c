"""Embedding collections anew beside themselves: begun, followed, switched, undone. Reached as `Store.reembeddings`.

A worker, or whoever drives it, calls `begin`, queues what `missing` gives to the collection `NAME@next` with the new
model, and asks `coverage`, until it is complete; then it calls `switch`. All may be called again after a process died.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from sqlite3 import Connection
from typing import Final, TypeAlias

from embedq_core.errors import ContentMissing, ReembeddingMissing, UsageError
from embedq_core.items import Item
from embedq_core.text import plural, shown
from embedq_store import beginning, holding_back, removing, rolling_back, switching
from embedq_store import coverage as covering
from embedq_store import reembedding_records as records
from embedq_store.access import Access
from embedq_store.coverage import Pair
from embedq_store.marks import Mark
from embedq_store.reembedding import Coverage, Reembedding, Role, RolledBack, Switched, next_name
from embedq_store.standing import CollectionInfo

# How often both collections are gone through before the switch, while others write to them.
_SURVEYS: Final = 3
# As many entries that are missing are caught up with just before the switch.
FEW: Final = 2048

_Look: TypeAlias = Callable[[Connection, Pair, str | None], tuple[list[tuple[str, int]], str | None]]


class Reembeddings:
    """The re-embeddings of a database. `collection` finds one, or raises CollectionMissing; `removed` is told the
    keys of those that are gone.
    """

    def __init__(
        self,
        access: Access,
        collection: Callable[[str], Awaitable[CollectionInfo]],
        removed: Callable[[int], Awaitable[None]],
    ) -> None:
        self._access = access
        self._collection = collection
        self._removed = removed
        self._surveys: dict[int, switching.Survey] = {}

    # --- what there is

    async def get(self, collection: str) -> Reembedding | None:
        """The latest re-embedding of a collection, whatever has become of it."""
        return await self._access.read(partial(records.latest, collection=collection))

    async def current(self) -> dict[str, Reembedding]:
        """How each collection stands, by name: what is going on, else what can be undone, else what was last."""
        return await self._access.read(records.current)

    async def open(self) -> list[Reembedding]:
        """Those that are going on, or have stopped, the latest first. Cheap: one look into an index."""
        return await self._access.read(records.open_records)

    async def all(self) -> list[Reembedding]:
        """All that are on record, the latest first."""
        return await self._access.read(records.all_records)

    async def roles(self) -> dict[str, Role]:
        """What the collections are that stand beside others, by their names."""
        return await self._access.read(records.roles)

    async def kept(self, collection: str) -> Reembedding | None:
        """The re-embedding whose other vectors are kept beside a collection: the old ones after a switch, which the
        next switch removes, or the new ones after a rollback.
        """

        def look(db: Connection) -> Reembedding | None:
            return records.kept_after_switch(db, collection) or records.kept_after_rollback(db, collection)

        return await self._access.read(look)

    # --- on the way

    async def begin(
        self,
        collection: str,
        model_id: str,
        *,
        golden: str | None = None,
        recall: float | None = None,
        drop_old: bool = False,
        force: bool = False,
    ) -> Reembedding:
        """Begin to embed a collection anew with a model, or go on: what is going on, or stopped, with the same model
        is returned, with what is given here in place of what was. A collection that has the model needs `force`.

        New vectors that a rollback has kept are found and not paid for again. Raises CollectionMissing, UsageError,
        ContentMissing where contents were not stored, naming some; DatabaseReadOnly.
        """
        _ = self._access.writer  # nothing begins where nothing can be written
        found = await self._collection(collection)
        if await self._access.read(partial(records.open_record, collection=collection)) is None:
            beginning.check_asked(found, model_id, force=force)
            kept = await self._access.read(partial(beginning.shadow_to_use, collection=collection, model_id=model_id))
            await self._check_contents(found, kept, model_id)
        options: dict[str, object] = {"drop_old": True} if drop_old else {}
        # Other queries begin with a clean slate: what was required of the ones before says nothing.
        options |= {"golden": golden, "recall": recall} if golden is not None else {}
        options |= {"recall": recall} if recall is not None else {}
        return await self._access.change(partial(beginning.begin, found=found, model_id=model_id, options=options))

    async def _check_contents(self, found: CollectionInfo, kept: int | None, model_id: str) -> None:
        # Keys of collections are positive.
        pair = Pair(found.id, kept or -1, next_name(found.name), model_id, kept or -1)
        total = await self._coverage(pair, extras=False)
        if total.without_content:
            names = await self._access.read(lambda db: [shown(id_) for id_ in covering.bare_ids(db, pair, 3)])
            raise ContentMissing(
                f"the contents of {plural(total.without_content, 'entry', 'entries')} of {found.name!r} were not stored"
                f" (ids {', '.join(names)}{', …' if total.without_content > len(names) else ''}): submit the source"
                " again with --store, which costs nothing for what is unchanged, then try again"
            )

    async def coverage(self, reembedding: Reembedding) -> Coverage:
        """How far the new vectors go now. Reads all entries' ids and hashes, some thousand at a time."""
        return await self._coverage(switching.forward(reembedding), extras=True)

    async def _coverage(self, pair: Pair, *, extras: bool) -> Coverage:
        return (await self._surveyed(pair, extras=extras))[0]

    async def _surveyed(self, pair: Pair, *, extras: bool, waiting: list[str] | None = None) -> tuple[Coverage, int]:
        """Coverage, and how many entries are outdated. Ids that are missing or extra are put into `waiting`, if few."""
        total, outdated, after = Coverage(), 0, None
        while True:
            begin = after
            page, some, after = await self._access.read(partial(covering.covered_page, pair=pair, after=after))
            if after is None:
                break
            total, outdated = total + page, outdated + some
            if waiting is not None and page.missing and total.missing <= FEW:
                waiting += [id_ for id_, _ in (await self._sized(covering.missing_page, pair, begin))[0]]
        while extras:
            ids, after = await self._access.read(partial(covering.extra_page, pair=pair, after=after))
            if after is None:
                break
            total += Coverage(extra=len(ids))
            if waiting is not None and total.extra <= FEW:
                waiting += ids
        return total, outdated

    async def missing(
        self, reembedding: Reembedding, after: str | None, *, max_items: int, max_bytes: int
    ) -> list[Item]:
        """The next entries, in the order of ids, that are still to be embedded with the new model, content and metadata
        as they are stored: at most `max_items`, of about `max_bytes`, at least one; empty at the end.

        `after` is the last id of the page before.
        """
        pair = switching.forward(reembedding)
        return await self._page(pair, covering.missing_page, after, max_items, max_bytes)

    async def newcomers(
        self, reembedding: Reembedding, after: str | None, *, max_items: int, max_bytes: int
    ) -> list[Item]:
        """After a rollback: the next entries that came while the new vectors were in use, and that are still to be
        embedded with the old model, in pages as of `missing`.
        """
        pair = rolling_back.backward(reembedding, reembedding.collection)
        return await self._page(pair, covering.newcomers_page, after, max_items, max_bytes)

    async def _page(
        self,
        pair: Pair,
        look: _Look,
        after: str | None,
        max_items: int,
        max_bytes: int,
    ) -> list[Item]:
        while True:
            sized, last = await self._sized(look, pair, after)
            ids = covering.fitting([one for one in sized if one[1] >= 0], max_items, max_bytes)
            items = await self._access.read(partial(covering.items, collection_id=pair.source, ids=ids))
            if items or last is None:
                return items
            # Where entries went between the two looks, those behind them follow.
            after = ids[-1] if ids else last

    async def _sized(self, look: _Look, pair: Pair, after: str | None) -> tuple[list[tuple[str, int]], str | None]:
        return await self._access.read(lambda db: look(db, pair, after))

    async def owed(self, reembedding: Reembedding) -> tuple[int, int]:
        """After a rollback: how many entries `newcomers` would give, and how many more there are without content."""
        total, bare = await self._access.read(partial(rolling_back.count_newcomers, record=reembedding))
        return total - bare, bare

    async def note_run(self, reembedding: Reembedding, run: str) -> Reembedding:
        """Note which run has queued last for it."""
        return await self._access.change(partial(records.change, key=reembedding.key, run=run))

    async def stop(self, reembedding: Reembedding, reason: str) -> Reembedding:
        """Have it wait for somebody to look at it; `begin` goes on with it."""
        return await self._access.change(partial(beginning.stop, key=reembedding.key, reason=reason))

    # --- the switch and the way back

    async def switch(self, reembedding: Reembedding) -> Switched:
        """Put the new vectors in the place of the old, in one transaction that takes as long as there was written to
        either since they were last gone through. Old vectors that are kept from a switch before are removed.

        Raises NotCovered, and has changed nothing, where an entry has no new vector and no dead letter either: see
        `latecomers`. ReembeddingMissing where it has ended meanwhile.
        """
        switching.check_open(await self._access.read(partial(records.by_key, key=reembedding.key)))
        pair = switching.forward(reembedding)
        survey = await self._survey_that_holds(reembedding, pair) or await self._adjusted(pair)
        if survey.usable:
            self._surveys[reembedding.key] = survey
            late = await self._access.read(lambda db: switching.still_missing(db, pair, survey, FEW))
            switching.check_covered(reembedding, Coverage(missing=len(late)))
        else:
            switching.check_covered(reembedding, survey.coverage)
        await self._remove_earlier(reembedding)
        switched, dead, seconds = await self._access.change(
            partial(switching.switch, record=reembedding, survey=survey)
        )
        # To count a million rows takes longer than all that is done with the lock held.
        counted = await self._access.rows("SELECT count(*) FROM embeddings WHERE collection_id = ?", switched.shadow)
        return Switched(switched, int(counted[0][0]), dead, seconds)

    async def latecomers(self, reembedding: Reembedding, *, max_items: int) -> list[Item]:
        """The entries, some of them where there are many, for which alone the last switch was refused: they came a
        moment before both collections were gone through, or since. Cheap. None where that is not so, or where all has
        to be gone through again.

        When they are embedded, `switch` goes through nothing again but these, and what was written since.
        """
        pair = switching.forward(reembedding)
        survey = await self._survey_that_holds(reembedding, pair)
        if survey is None:
            return []

        def look(db: Connection) -> list[Item]:
            return covering.items(db, pair.source, switching.still_missing(db, pair, survey, max_items))

        return await self._access.read(look)

    async def hold_back(self, reembedding: Reembedding) -> None:
        """Have writes of rows to the collection wait, some seconds at most, so that there are no more latecomers."""
        await self._access.change(partial(holding_back.hold_back, collection=reembedding.collection))

    async def let_go(self, reembedding: Reembedding) -> None:
        """Have them wait no longer; a switch does so itself."""
        await self._access.change(partial(holding_back.let_go, collection=reembedding.collection))

    async def _survey_that_holds(self, reembedding: Reembedding, pair: Pair) -> switching.Survey | None:
        """What was found when all was gone through last, where nothing but new rows and deletions has come since."""
        survey = self._surveys.get(reembedding.key)
        if survey is None:
            return None
        if await self._access.read(partial(survey.changed, pair=pair)) is not None:
            return survey
        del self._surveys[reembedding.key]
        return None

    async def _adjusted(self, pair: Pair) -> switching.Survey:
        """Go through all, and bring the shadow up to date, so that little is left to do within the switch."""
        for _ in range(_SURVEYS):
            mark = await self._access.read(partial(Mark.of, pair=pair))
            waiting: list[str] = []
            coverage, outdated = await self._surveyed(pair, extras=True, waiting=waiting)
            survey = switching.Survey(mark, coverage, outdated, tuple(waiting))
            if survey.usable or coverage.missing > FEW or coverage.without_content:
                break
            await self._adjust(pair)
        return survey

    async def _adjust(self, pair: Pair) -> None:
        """Bring the shadow up to date before the switch, so that little is left to do within it."""
        for collection_id in (pair.source, pair.shadow):
            after: str | None = None
            while True:
                step = partial(switching.adjust_next, pair=pair, collection_id=collection_id, after=after)
                after = await self._access.change(step)
                if after is None:
                    break

    async def _remove_earlier(self, reembedding: Reembedding) -> None:
        def let_go(db: Connection) -> None:
            earlier = records.kept_after_switch(db, reembedding.collection)
            if earlier is not None and earlier.key != reembedding.key:
                switching.absorb_letters(db, earlier.previous_name, earlier.collection)
                switching.begin_removal(db, earlier, earlier.source, "dropped")

        await self._access.change(let_go)
        await self.sweep()

    async def rollback(self, collection: str) -> RolledBack:
        """Undo the last switch of a collection, in one transaction: it has its old vectors again.

        What came since is kept with the new ones, and given by `newcomers`. Raises ReembeddingMissing where no old
        vectors are kept, UsageError while another re-embedding is going on.
        """
        record = await self._access.read(partial(rolling_back.undoable, collection=collection))
        pair = rolling_back.backward(record, record.previous_name)
        mark = await self._access.read(partial(Mark.of, pair=pair))
        ids = [id_ for key in (pair.source, pair.shadow) for id_ in await self._differing(pair, key)]
        known = rolling_back.Differences(mark, ids)
        return await self._access.change(partial(rolling_back.roll_back, collection=collection, known=known))

    async def _differing(self, pair: Pair, collection_id: int) -> list[str]:
        differing: list[str] = []
        after: str | None = None
        while True:
            look = partial(rolling_back.differing_next, pair=pair, collection_id=collection_id, after=after)
            ids, after = await self._access.read(look)
            if after is None:
                return differing
            differing += ids

    async def drop(self, collection: str, *, force: bool = False) -> Reembedding:
        """Remove the vectors that are kept beside a collection: the old ones after a switch, or the new ones after a
        rollback. Raises ReembeddingMissing where there are none; UsageError where entries are nowhere else, but with
        `force`.
        """
        kept = await self.kept(collection)
        if kept is None:
            raise ReembeddingMissing(f"no other vectors of {collection!r} are kept: there is nothing to drop")
        if kept.state == "rolled back" and not force:
            count, bare = await self.owed(kept)
            if count + bare:
                raise UsageError(
                    f"{plural(count + bare, 'entry', 'entries')} still to be embedded with {kept.old_model}, and in"
                    f" {kept.next_name!r} alone since the rollback of {collection!r}: "
                    + (f"submit the source of {bare:,} again with --store" if bare else "wait for a worker")
                )
        record = await self._access.change(partial(beginning.drop, record=kept))
        await self.sweep()
        return record

    async def cancel(self, collection: str) -> Reembedding:
        """End a re-embedding that is going on, or has stopped: its vectors and dead letters are removed.

        Those that a rollback had kept stay: then it is rolled back, and not cancelled. Raises ReembeddingMissing.
        """
        record = await self._access.change(partial(beginning.cancel, collection=collection))
        await self.sweep()
        return record

    async def adopt_letters(self, kept: str, collection: str) -> None:
        """Put dead letters of vectors that stand, or stood, beside a collection with the collection's own."""
        await self._access.change(partial(switching.absorb_letters, kept=kept, collection=collection))

    async def sweep(self, told: Callable[[int], None] | None = None) -> None:
        """Remove what is left of collections that were deleted or dropped, also where a process died meanwhile.

        `told` is given how many rows are removed.
        """
        done = 0
        for key in await self._access.read(removing.removals):
            while some := await self._access.change_in_turn(partial(removing.remove_some, key=key)):
                done += some
                if told is not None:
                    told(done)
            await self._removed(key)
