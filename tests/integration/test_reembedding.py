"""A collection gets another model while it is searched and written to: workers queue, check, switch, hand chunks on."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

import embedq_worker.reembedding
import embedq_worker.service
from embedq_core.counts import Counts
from embedq_core.errors import ModelMismatch
from embedq_core.items import Item
from embedq_core.settings import Settings
from embedq_core.vectors import encode
from embedq_jobs import Queue, Scope
from embedq_store import Incoming, Reembedding, Row, Store, Switched, Target, Write, holding_back
from embedq_store.coverage import Pair
from embedq_worker import golden
from embedq_worker.reembedding import Reembeddings
from embedq_worker.service import ServiceOptions, serve
from embedq_worker.supplying import latest_run, new_supply, supply_missing, turn_of
from support.chunks import chunk, install, items, submit
from support.models import FaultyModel, RecordingModel, raising, vector_of
from support.waiting import BOUND_SECONDS, Eventually
from support.working import burst, nothing_is_left, worker

OLD, NEW = "recording", "newer"
# What tells which model made a vector.
OLD_SIZE, NEW_SIZE = 8, 4


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedq_worker.service, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(embedq_worker.reembedding, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(embedq_worker.reembedding, "IDLE_SECONDS", 0.02)


@pytest.fixture
def old() -> RecordingModel:
    return RecordingModel(OLD, batch_size=10, dimension=OLD_SIZE)


@pytest.fixture
def new() -> RecordingModel:
    return RecordingModel(NEW, batch_size=10, dimension=NEW_SIZE)


@pytest.fixture
async def pets(
    settings: Settings,
    queue: Queue,
    store: Store,
    old: RecordingModel,
    new: RecordingModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thirty pets, embedded with the old model."""
    install(monkeypatch, old, new)
    await submit(queue, chunk(items(30)))
    await burst(settings, queue, store)
    old.batches.clear()


async def held(store: Store, collection: str = "pets") -> dict[str, tuple[float, ...]]:
    """All vectors of a collection, by their ids."""
    key = (await store.collection(collection)).id
    figures = await store.describe(key)
    if not figures.dimension:
        return {}
    found = await store.search.similar(key, [1.0] * figures.dimension, number=1000)
    return {entry.id: await store.vector(key, entry.id) for entry in found}


def made(some: Iterable[Item], size: int) -> dict[str, tuple[float, ...]]:
    return {item.id: tuple(vector_of(item.content, size)) for item in some}


async def begun(store: Store, **options: object) -> Reembedding:
    return await store.reembeddings.begin("pets", NEW, **options)  # type: ignore[arg-type]


async def state(store: Store) -> str:
    found = await store.reembeddings.get("pets")
    assert found is not None
    return found.state


# --- from the beginning to the end


@pytest.mark.usefixtures("pets", "old", "new")
async def test_a_burst_does_not_end_between_a_switch_and_what_is_told_of_it(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, ask = embedq_worker.reembedding.tell_producers, Reembeddings.nothing_to_do
    asked = asyncio.Semaphore(0)

    async def late(*arguments: Any) -> None:
        for _ in range(2):
            await asked.acquire()
        await tell(*arguments)

    async def asking(self: Reembeddings, queues_are_empty: Any) -> bool:
        if (await state(store)) == "switched":
            asked.release()
        return await ask(self, queues_are_empty)

    monkeypatch.setattr(embedq_worker.reembedding, "tell_producers", late)
    monkeypatch.setattr(Reembeddings, "nothing_to_do", asking)
    await begun(store)
    await burst(settings, queue, store)
    assert await queue.collection_model("pets") == NEW


@pytest.mark.usefixtures("pets")
async def test_a_worker_queues_embeds_and_switches_and_a_rollback_gives_newcomers_to_the_old_model(
    settings: Settings, queue: Queue, store: Store, old: RecordingModel, new: RecordingModel
) -> None:
    record = await begun(store)
    supply = new_supply(record)
    await supply_missing(supply, record, store, queue, settings, stop=lambda: False)
    # These come to the old vectors when what there was is queued for the new ones.
    await submit(queue, chunk(items(5, first=30), run="meanwhile"))
    async with asyncio.timeout(BOUND_SECONDS):
        await serve(settings, ServiceOptions(models=(OLD,), burst=True), queue, store, asyncio.Event())
    await burst(settings, queue, store)
    assert await state(store) == "switched"
    assert await held(store) == made(items(35), NEW_SIZE)
    assert await held(store, "pets@previous") == made(items(35), OLD_SIZE)
    assert (old.inputs, new.inputs) == (5, 35)
    assert await queue.collection_model("pets") == NEW
    await nothing_is_left(queue)
    # One that comes later goes to the new model alone, and is owed to the old one by a rollback.
    await submit(queue, chunk(items(1, first=35), run="later", model_id=NEW))
    await burst(settings, queue, store)
    rolled_back = await store.reembeddings.rollback("pets")
    assert rolled_back.newcomers == 1
    await burst(settings, queue, store)
    assert await held(store) == made(items(36), OLD_SIZE)
    assert (old.inputs, new.inputs) == (6, 36)
    # Forward again: what is there is not paid for again.
    await begun(store)
    await burst(settings, queue, store)
    assert await held(store) == made(items(36), NEW_SIZE)
    assert (old.inputs, new.inputs) == (6, 36)
    await nothing_is_left(queue)


@pytest.mark.usefixtures("pets")
async def test_a_worker_that_runs_on_finishes_it_and_drops_the_old_vectors_where_it_is_told_to(
    settings: Settings, queue: Queue, store: Store, eventually: Eventually
) -> None:
    async def dropped() -> bool:
        # The record says so first; a worker that is stopped before the rows are gone leaves them to the next.
        return await state(store) == "dropped" and len(await store.collections()) == 1

    async with worker(settings):
        await begun(store, drop_old=True)
        await eventually(dropped)
    assert [info.name for info in await store.collections()] == ["pets"]
    assert await held(store) == made(items(30), NEW_SIZE)
    await nothing_is_left(queue)


@pytest.mark.usefixtures("pets")
async def test_a_worker_for_other_models_leaves_it_to_those_that_serve_the_new_one(
    settings: Settings, queue: Queue, store: Store
) -> None:
    await begun(store)
    async with asyncio.timeout(BOUND_SECONDS):
        await serve(settings, ServiceOptions(models=(OLD,), burst=True), queue, store, asyncio.Event())
    assert await state(store) == "embedding"
    assert await queue.length(NEW) == 0


@pytest.mark.usefixtures("pets")
async def test_a_re_embedding_that_is_another_s_turn_is_left_alone(
    settings: Settings, queue: Queue, store: Store
) -> None:
    await begun(store)
    async with turn_of(queue, "pets") as mine:
        assert mine is not None
        async with turn_of(queue, "pets") as theirs:
            assert theirs is None
        await burst(settings, queue, store)
        assert (await state(store), await queue.length(NEW)) == ("embedding", 0)
    await burst(settings, queue, store)
    assert await state(store) == "switched"


@pytest.mark.usefixtures("pets")
async def test_a_burst_that_has_switched_does_not_end_before_it_has_told_producers(
    settings: Settings, queue: Queue, store: Store, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ask, tell = (
        [],
        embedq_worker.reembedding.Reembeddings.nothing_to_do,
        embedq_worker.reembedding.tell_producers,
    )

    async def asking(
        self: embedq_worker.reembedding.Reembeddings, queues_are_empty: Callable[[], Awaitable[bool]]
    ) -> bool:
        asked.append(self)
        return await ask(self, queues_are_empty)

    async def telling_late(queue: Queue, collection: str, model_id: str) -> None:
        before = len(asked)

        async def asked_often() -> bool:
            return len(asked) > before + 3

        await eventually(asked_often)
        await tell(queue, collection, model_id)

    monkeypatch.setattr(embedq_worker.reembedding.Reembeddings, "nothing_to_do", asking)
    monkeypatch.setattr(embedq_worker.reembedding, "tell_producers", telling_late)
    await begun(store)
    await burst(settings, queue, store)
    assert (await state(store), await queue.collection_model("pets")) == ("switched", NEW)


@pytest.mark.usefixtures("pets")
async def test_a_burst_outwaits_the_turn_of_a_worker_that_was_killed(
    settings: Settings, queue: Queue, store: Store, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begun(store)
    turn, rounds, look = queue.names.turn("pets"), [], embedq_worker.reembedding.Reembeddings.look

    async def looking(self: embedq_worker.reembedding.Reembeddings) -> tuple[bool, bool]:
        rounds.append(self)
        return await look(self)

    monkeypatch.setattr(embedq_worker.reembedding.Reembeddings, "look", looking)
    await queue.redis.set(turn, "of a process that was killed")
    ending = asyncio.create_task(burst(settings, queue, store))

    async def ended_or_has_looked_often() -> bool:
        return ending.done() or len(rounds) > 20

    await eventually(ended_or_has_looked_often)
    assert (ending.done(), await state(store)) == (False, "embedding")
    # As it does by itself in the end.
    await queue.redis.delete(turn)
    await ending
    assert await state(store) == "switched"


# --- what stops it


@pytest.fixture
async def picky(
    settings: Settings, queue: Queue, store: Store, old: RecordingModel, monkeypatch: pytest.MonkeyPatch
) -> RecordingModel:
    """Thirty pets and three that the new model refuses, unless they are given to it again."""
    model = FaultyModel(raising, NEW, batch_size=16)
    install(monkeypatch, old, model)
    await submit(queue, chunk([*items(30), *items(3, first=30, text="poison")]))
    await burst(settings, queue, store)
    return model


async def test_dead_letters_are_done_without_when_they_are_few(
    settings: Settings, queue: Queue, store: Store, picky: RecordingModel
) -> None:
    await begun(store)
    await burst(settings, queue, store)
    assert await state(store) == "switched"
    assert set(await held(store)) == {item.id for item in items(30)}
    assert {letter.id for letter in await store.dead.letters(collection="pets")} == {"000030", "000031", "000032"}
    assert picky.inputs > 0


async def test_where_the_new_model_fails_on_many_somebody_has_to_look_or_to_accept_it(
    settings: Settings, queue: Queue, store: Store, picky: RecordingModel
) -> None:
    await submit(queue, chunk(items(1, first=33, text="more poison"), run="more"))
    await burst(settings, queue, store)
    await begun(store)
    await burst(settings, queue, store)
    found = await store.reembeddings.get("pets")
    assert found is not None
    assert found.state == "stopped"
    assert str(found.message).startswith(
        "newer failed on 4 of 34 entries: see 'embedq dead list --collection pets@next'"
    )
    assert len(await held(store)) == 34, "it is searched as before"
    paid = picky.inputs
    await begun(store, recall=0.0)
    await burst(settings, queue, store)
    assert await state(store) == "switched"
    assert picky.inputs == paid
    await nothing_is_left(queue)


GOLDEN = '{"query": "text 1", "expected": ["000001"]}\n{"query": "text 12", "expected": ["000012", "000019"]}\n'


class Forgetful(RecordingModel):
    """Gives the same vector to all texts but one, so that it finds little."""

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterable[list[float]]:
        batch = list(items)
        super().embed_batch(batch)
        return [vector_of(item if item == "text 1" else "x", NEW_SIZE) for item in batch]


@pytest.mark.usefixtures("pets")
async def test_golden_queries_are_asked_of_both_models_and_stop_a_worse_one(
    settings: Settings, queue: Queue, store: Store, old: RecordingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "FIRST", 2)
    worse = Forgetful(NEW, batch_size=10)
    install(monkeypatch, old, worse)
    # Of the two nearest, what is equal stands in the order of ids: these two come late.
    await begun(store, golden=GOLDEN)
    await burst(settings, queue, store)
    found = await store.reembeddings.get("pets")
    assert found is not None
    assert found.state == "stopped"
    assert "of the new vectors is 0.500 over 2 golden queries (the old vectors have 1.000)" in str(found.message)
    assert "worst: 'text 12' (0 of 2, was 2)" in str(found.message)
    assert "'embedq reembed pets -m newer --accept'" in str(found.message)
    assert len(next(iter((await held(store)).values()))) == OLD_SIZE
    paid = worse.inputs
    # The same again is checked again; a lower bar lets it pass, and nothing is embedded twice.
    await begun(store)
    await burst(settings, queue, store)
    assert await state(store) == "stopped"
    await begun(store, golden=GOLDEN, recall=0.5)
    await burst(settings, queue, store)
    assert await state(store) == "switched"
    assert worse.inputs == paid + 4, "the queries"


@pytest.mark.usefixtures("pets")
async def test_where_the_old_model_is_gone_only_a_recall_that_is_required_can_be_checked(
    settings: Settings, queue: Queue, store: Store, new: RecordingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, new)
    await begun(store, golden=GOLDEN)
    await burst(settings, queue, store)
    found = await store.reembeddings.get("pets")
    assert found is not None
    assert "the old vectors can't be asked the golden queries" in str(found.message)
    await begun(store, golden=GOLDEN, recall=0.5)
    await burst(settings, queue, store)
    assert await state(store) == "switched"


# --- in between


@pytest.mark.usefixtures("pets")
@pytest.mark.parametrize("before", ["switch", "_remove_earlier"], ids=["looked", "looking"])
async def test_what_comes_in_the_last_moment_is_embedded_before_the_switch_and_the_check_is_not_paid_twice(
    settings: Settings,
    queue: Queue,
    store: Store,
    old: RecordingModel,
    new: RecordingModel,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
) -> None:
    """Before all is gone through for the switch, and after that: it is gone through once in any case."""
    golden_inputs, late, gone_through = 2, items(3, first=30), []
    happening, adjusted = getattr(store.reembeddings, before), store.reembeddings._adjusted

    async def happening_late(reembedding: Reembedding) -> object:
        if late:
            (row,) = [Row(*entry, encode(vector_of(entry.item.content))) for entry in Incoming.of([late.pop()])]
            await store.write(Write(Target("pets", OLD), [row]))
        return await happening(reembedding)

    async def adjusted_once_more(pair: Pair) -> object:
        gone_through.append(pair)
        return await adjusted(pair)

    monkeypatch.setattr(store.reembeddings, before, happening_late)
    monkeypatch.setattr(store.reembeddings, "_adjusted", adjusted_once_more)
    await begun(store, golden=GOLDEN, recall=0.5)
    await burst(settings, queue, store)
    assert await held(store) == made(items(33), NEW_SIZE)
    assert (old.inputs, new.inputs) == (golden_inputs, 33 + golden_inputs)
    assert len(gone_through) == 1
    await nothing_is_left(queue)


@pytest.mark.usefixtures("pets")
async def test_one_to_which_something_comes_before_each_attempt_is_switched_as_writers_wait_for_one_of_them(
    settings: Settings, queue: Queue, store: Store, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch, writers = store.reembeddings.switch, list[asyncio.Task[int]]()

    async with await Store.open(store.path) as other:

        async def switching(reembedding: Reembedding) -> Switched:
            (item,) = items(1, first=30 + len(writers))
            rows = [Row(*entry, encode(vector_of(item.content))) for entry in Incoming.of([item])]
            writers.append(asyncio.create_task(other.write(Write(Target("pets", OLD), rows))))

            async def written_or_waiting() -> bool:
                return writers[-1].done() or await other._access.read(holding_back.held_back) == {"pets"}

            await eventually(written_or_waiting)
            return await switch(reembedding)

        monkeypatch.setattr(store.reembeddings, "switch", switching)
        await begun(store)
        await burst(settings, queue, store)
        assert await state(store) == "switched"
        results = await asyncio.gather(*writers, return_exceptions=True)
    # The last one has waited, and is told what everybody is told who comes after the switch.
    assert isinstance(results.pop(), ModelMismatch)
    assert results == [0] * len(results)
    assert await held(store) == made(items(30 + len(results)), NEW_SIZE)
    assert await store._access.read(holding_back.held_back) == set()
    await nothing_is_left(queue)


@pytest.mark.usefixtures("pets")
async def test_nothing_more_is_queued_for_one_that_was_cancelled(
    settings: Settings, queue: Queue, store: Store
) -> None:
    record = await begun(store)
    supply = new_supply(record)
    await store.reembeddings.cancel("pets")
    await supply_missing(supply, record, store, queue, settings, stop=lambda: False)
    assert (supply.items, await queue.length(NEW)) == (0, 0)


@pytest.mark.usefixtures("pets")
async def test_a_worker_that_starts_says_which_model_a_collection_has_where_one_has_died_before_it_could(
    settings: Settings, queue: Queue, store: Store, eventually: Eventually
) -> None:
    await begun(store)
    await burst(settings, queue, store)
    await queue.set_collection_model("pets", OLD)

    async def said() -> bool:
        return await queue.collection_model("pets") == NEW

    async with worker(settings):
        await eventually(said)


@pytest.mark.usefixtures("pets")
async def test_newcomers_of_a_rollback_that_nobody_queued_are_queued_by_a_worker_once(
    settings: Settings, queue: Queue, store: Store, old: RecordingModel
) -> None:
    await begun(store)
    await burst(settings, queue, store)
    await submit(queue, chunk(items(2, first=30), run="later", model_id=NEW))
    await burst(settings, queue, store)
    record = (await store.reembeddings.rollback("pets")).reembedding
    for _ in range(2):
        await burst(settings, queue, store)
    assert old.inputs == 2
    found = await store.reembeddings.get("pets")
    assert found is not None
    assert found.run != record.run
    run = await latest_run(queue, found)
    assert run is not None
    assert (run.run.source, run.counts) == ("rollback pets", Counts(embedded=2, calls=1, inputs=2))


# --- while somebody steers


@pytest.mark.usefixtures("pets")
async def test_what_is_queued_for_a_rollback_and_cancelled_is_not_queued_again(
    settings: Settings, queue: Queue, store: Store, old: RecordingModel, caplog: pytest.LogCaptureFixture
) -> None:
    await begun(store)
    await burst(settings, queue, store)
    await submit(queue, chunk(items(2, first=30), run="later", model_id=NEW))
    await burst(settings, queue, store)
    record = (await store.reembeddings.rollback("pets")).reembedding
    supply = new_supply(record)
    await supply_missing(supply, record, store, queue, settings, stop=lambda: False)
    await queue.cancelling.cancel(supply.run.id, OLD)
    await burst(settings, queue, store)
    assert old.inputs == 0
    assert f"its run {supply.run.id} was cancelled: 2 entries are not queued again" in caplog.text


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.usefixtures("pets")
async def test_one_that_is_paused_in_the_middle_keeps_no_worker_from_ending_and_goes_on_later(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, filled: bool
) -> None:
    monkeypatch.setattr("embedq_worker.supplying.BEAT_SECONDS", 0.05)
    monkeypatch.setattr(embedq_worker.reembedding, "AGAIN_SECONDS", 0.0)
    small = replace(settings, queue_bytes=1, chunk_items=10)
    await begun(store)
    await queue.pausing.pause(Scope("model", NEW))
    if filled:
        await submit(queue, chunk(items(1), run="another", collection="plants", model_id=NEW))
    await burst(small, queue, store)
    assert (await state(store), await queue.length(NEW)) == ("embedding", 1)
    assert len([run for run in await queue.runs.latest(100) if run.run.collection == "pets@next"]) == 1 - filled
    await queue.pausing.resume([Scope("model", NEW)], [NEW])
    await burst(small, queue, store)
    assert await held(store) == made(items(30), NEW_SIZE)
