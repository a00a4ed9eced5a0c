"""Finishing re-embeddings: a worker queues what is missing, checks golden queries, switches, and says what it does.

Everything here may be done twice, by two workers or after one was killed: what is done is found done.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from embedq_core.errors import (
    ModelUnavailable,
    NotCovered,
    QueueError,
    ReembeddingMissing,
    StoreError,
    UnknownModel,
    UsageError,
)
from embedq_core.items import Item
from embedq_core.settings import Settings
from embedq_core.text import plural
from embedq_jobs import Queue
from embedq_jobs.turns import TURN_SECONDS, Turn
from embedq_store import Reembedding, Store, Switched
from embedq_store.reembedding import next_name
from embedq_worker.golden import recalls
from embedq_worker.golden_check import check
from embedq_worker.reembedding_steps import (
    CheckGolden,
    QueueMissing,
    Stop,
    Switch,
    Wait,
    after_check,
    cannot_be_covered,
    next_step,
)
from embedq_worker.supplying import Supplier, is_held_up, latest_run, new_supply, supply_missing, supplying, turn_of

_log = logging.getLogger("embedq.worker")

# How often to look where nothing is being embedded anew, and where something is.
IDLE_SECONDS: Final = 0.25
LOOK_SECONDS: Final = 0.1
# How long to leave one alone after something that may pass: a model that can't be reached, a database that is locked.
AGAIN_SECONDS: Final = 10.0
# How often, for how long, and how closely to wait for what came while it was looked whether all is there.
CATCH_UPS: Final = 100
CATCH_UP_SECONDS: Final = 5.0
CATCH_UP_LOOK_SECONDS: Final = 0.01
_MAY_PASS: Final = (ModelUnavailable, StoreError, QueueError, OSError)


class Reembeddings:
    """Those that this worker finishes: for models that it `serves`, one step after the other. Others can take over
    `turn_seconds` after its death.
    """

    def __init__(
        self,
        queue: Queue,
        store: Store,
        settings: Settings,
        serves: Callable[[str], bool],
        turn_seconds: float = TURN_SECONDS,
    ) -> None:
        self._queue = queue
        self._store = store
        self._settings = settings
        self._serves = serves
        self._turn_seconds = turn_seconds
        self._not_before: dict[int, float] = {}
        self._passed: dict[int, tuple[str | None, float | None]] = {}
        self._settled: set[int] = set()
        self._round = self._busy_round = self._quiet_round = 0
        self._asked: int | None = None
        self._woken = asyncio.Event()

    async def run_forever(self) -> None:
        """Look again and again. A round that has done something is followed by the next one at once."""
        while True:
            self._woken.clear()
            there, busy = await self.look()
            if busy:
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), LOOK_SECONDS if there else IDLE_SECONDS)

    async def look(self) -> tuple[bool, bool]:
        """One round: whether there is anything to look after, and whether something was done."""
        self._round = number = self._round + 1
        busy = False
        if number == 1:
            await self._put_right()
        mine = await self._mine()
        for reembedding in mine:
            if time.monotonic() >= self._not_before.get(reembedding.key, 0.0):
                busy = await self._advanced(reembedding) or busy
        if busy:
            self._busy_round = number
        else:
            self._quiet_round = number
        return bool(mine), busy

    async def nothing_to_do(self, queues_are_empty: Callable[[], Awaitable[bool]]) -> bool:
        """Whether nothing comes any more: the queues are empty, and a whole round since then has found nothing to do.

        To be asked again and again, by a worker that ends when that is so.
        """
        # Before the queues are looked at: what a later round puts into them, it says.
        first = self._asked = self._asked or self._round + 1
        if not await queues_are_empty():
            self._asked = None
            return False
        if not await self._mine():
            # A round that has just switched one has to tell of it yet.
            return self._round <= max(self._busy_round, self._quiet_round)
        self._woken.set()
        # A round that was going on may have put something there since; it may even be done by now.
        if self._busy_round >= first - 1:
            self._asked = None
            return False
        return self._quiet_round >= first

    async def _put_right(self) -> None:
        """Do what a process was about to do when it died: remove rows, and say which models collections have."""
        try:
            await self._store.reembeddings.sweep()
            for name in {each.collection for each in await self._store.reembeddings.all() if each.switched is not None}:
                present = await self._store.find_collection(name)
                known = await self._queue.collection_model(name)
                if present is not None and known not in (None, present.model_id):
                    await tell_producers(self._queue, name, present.model_id)
        except (StoreError, QueueError) as error:
            _log.debug("%s", error)

    async def _mine(self) -> list[Reembedding]:
        try:
            found = await self._store.reembeddings.current()
        except StoreError as error:
            _log.debug("%s", error)
            return []
        return [
            each
            for each in found.values()
            if is_unfinished(each) and each.key not in self._settled and self._serves(model_of(each))
        ]

    async def _advanced(self, reembedding: Reembedding) -> bool:
        """Whether something was done for it. What fails is left alone for a while; what is no fault of the moment
        stops it.
        """
        try:
            if reembedding.run is not None and await self._queue.runs.outstanding(reembedding.run):
                return False
            async with turn_of(self._queue, reembedding.collection, self._turn_seconds) as held:
                return held is not None and await self._step(reembedding, held)
        except (*_MAY_PASS, UnknownModel) as error:
            _log.warning("re-embedding %r: %s; trying again in %.0f s", reembedding.collection, error, AGAIN_SECONDS)
        except Exception:  # whatever it was, the others go on
            _log.exception("re-embedding %r failed; trying again in %.0f s", reembedding.collection, AGAIN_SECONDS)
        self._not_before[reembedding.key] = time.monotonic() + AGAIN_SECONDS
        return False

    async def _step(self, seen: Reembedding, held: Turn) -> bool:
        """Take the next step, in the turn for this collection. Whether there was one to take."""
        reembedding = (await self._store.reembeddings.current()).get(seen.collection)
        if reembedding is None or reembedding.key != seen.key or not is_unfinished(reembedding):
            # Somebody else has got there before.
            return False
        if reembedding.state == "switched":
            return await self._drop_old(reembedding)
        if reembedding.state == "rolled back":
            return await self._queue_newcomers(reembedding, held)
        run = await latest_run(self._queue, reembedding)
        coverage = await self._store.reembeddings.coverage(reembedding)
        passed = self._passed.get(reembedding.key) == (reembedding.golden, reembedding.recall)
        match next_step(reembedding, coverage, run, passed=passed):
            case Wait():
                return False
            case QueueMissing():
                return await self._queue_missing(reembedding, held)
            case CheckGolden():
                await self._check(reembedding)
            case Switch():
                await self._switch(reembedding, held)
            case Stop(reason):
                await self._stop(reembedding, reason)
        return True

    async def _queue_missing(self, reembedding: Reembedding, held: Turn) -> bool:
        supply = new_supply(reembedding)
        if await is_held_up(supply.run, self._queue, self._settings):
            self._not_before[reembedding.key] = time.monotonic() + AGAIN_SECONDS
            return False
        await supply_missing(supply, reembedding, self._store, self._queue, self._settings, stop=lambda: held.lost)
        _log.info(
            "re-embedding %r: %s queued for %s as run %s",
            reembedding.collection,
            plural(supply.items, "entry", "entries"),
            supply.run.model_id,
            supply.run.id,
        )
        return True

    async def _queue_newcomers(self, reembedding: Reembedding, held: Turn) -> bool:
        """What came before a rollback goes to the old model. What it fails on is a dead letter, and owed no more."""
        count, _ = await self._store.reembeddings.owed(reembedding)
        run = await latest_run(self._queue, reembedding)
        if count and run is not None and run.run.collection == reembedding.collection and run.cancelled is not None:
            # Who cancels does not want it queued anew.
            _log.warning(
                "rollback of %r: its run %s was cancelled: %s not queued again; submit the source for that",
                reembedding.collection,
                run.run.id,
                plural(count, "entry is", "entries are"),
            )
        elif count:
            return await self._queue_missing(reembedding, held)
        # From here on nothing comes to the vectors that were put aside.
        self._settled.add(reembedding.key)
        return False

    async def _check(self, reembedding: Reembedding) -> None:
        try:
            verdict = await check(reembedding, self._settings)
        except (*_MAY_PASS, UnknownModel):
            raise
        except Exception as error:  # the model's, or the plugin's
            await self._stop(reembedding, f"the golden queries can't be asked: {type(error).__name__}: {error}")
            return
        problem = after_check(reembedding, verdict)
        if problem is not None:
            await self._stop(reembedding, problem.reason)
            return
        # Not again for those that come before the switch: it would be paid for each time.
        self._passed[reembedding.key] = (reembedding.golden, reembedding.recall)
        _log.info("re-embedding %r: golden queries passed: %s", reembedding.collection, recalls(verdict))

    async def _switch(self, reembedding: Reembedding, held: Turn) -> None:
        try:
            switched = await self._switched(reembedding, held)
        except (UsageError, ReembeddingMissing) as error:
            await self._stop(reembedding, str(error))
            return
        if isinstance(switched, Stop):
            await self._stop(reembedding, switched.reason)
        if not isinstance(switched, Switched):
            # More came while it was looked: the next round queues it.
            return
        await tell_producers(self._queue, reembedding.collection, reembedding.new_model)
        _log.info(
            "re-embedding %r: %s has taken the place of %s for %s (%s dead)",
            reembedding.collection,
            reembedding.new_model,
            reembedding.old_model,
            plural(switched.entries, "entry", "entries"),
            f"{switched.dead:,}",
        )
        if reembedding.drop_old:
            await self._drop_old(reembedding)

    async def _switched(self, reembedding: Reembedding, held: Turn) -> Switched | Stop | None:
        """Switch; None where that can't be yet, Stop where it will never be.

        To go through large collections takes longer than it takes until something new has come. So what came
        meanwhile, if it is nothing else, is embedded at once, and then only what came since is looked at.
        """
        with contextlib.suppress(NotCovered):
            return await self._store.reembeddings.switch(reembedding)
        supply = new_supply(reembedding)
        stop = lambda: held.lost  # noqa: E731 - as short as it gets
        async with contextlib.AsyncExitStack() as stack:
            supplier: Supplier | None = None
            before: list[Item] = []
            for _ in range(CATCH_UPS):
                late = await self._store.reembeddings.latecomers(reembedding, max_items=self._settings.chunk_items)
                if not late or held.lost:
                    break
                if late == before:
                    return cannot_be_covered(len(late))
                before = late
                if supplier is None:
                    supplier = await stack.enter_async_context(
                        supplying(supply, reembedding, self._store, self._queue, self._settings, stop=stop)
                    )
                # What is cancelled or held up is for the next round to see.
                if not await supplier.add(late) or not await self._is_done(supply.run.id):
                    break
                with contextlib.suppress(NotCovered):
                    return await self._store.reembeddings.switch(reembedding)
        return None

    async def _is_done(self, run: str) -> bool:
        """Wait until the chunks of a run are done; False where that takes long."""
        until = time.monotonic() + CATCH_UP_SECONDS
        while await self._queue.runs.outstanding(run):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(CATCH_UP_LOOK_SECONDS)
        return True

    async def _drop_old(self, reembedding: Reembedding) -> bool:
        await self._store.reembeddings.drop(reembedding.collection)
        _log.info("re-embedding %r: the vectors of %s are dropped", reembedding.collection, reembedding.old_model)
        return True

    async def _stop(self, reembedding: Reembedding, reason: str) -> None:
        await self._store.reembeddings.stop(reembedding, reason)
        _log.warning("re-embedding %r has stopped: %s", reembedding.collection, reason)


def is_unfinished(reembedding: Reembedding) -> bool:
    """Whether a worker may have something to do for it, now or later."""
    return reembedding.state in ("embedding", "rolled back") or (
        reembedding.state == "switched" and reembedding.drop_old
    )


def model_of(reembedding: Reembedding) -> str:
    """The model that has to embed what it lacks."""
    return reembedding.old_model if reembedding.state == "rolled back" else reembedding.new_model


async def tell_producers(queue: Queue, collection: str, model_id: str) -> None:
    """Let producers that can't see the database know which model a collection has since a switch or a rollback.

    Those who hear of it too late lose nothing: workers hand their chunks on, and say it again.
    """
    await queue.set_collection_model(collection, model_id)
    await queue.forget_collection(next_name(collection))
