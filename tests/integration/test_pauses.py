"""Pauses: what is paused is not taken, does not stand in the way of others, and is due at once when it is resumed."""

import asyncio
import logging
import time

import pytest

import embedq_worker.picking
import embedq_worker.service
from embedq_core.settings import Settings
from embedq_jobs import Chunk, Pause, Queue, Scope, holding, job_id, open_queue
from embedq_jobs.names import lease_key
from embedq_jobs.pauses import ASIDE_FROM
from embedq_producer.pausing import PauseWatch
from embedq_store import Store
from support.chunks import RUN, chunk, install, items
from support.chunks import submit as submit_chunks
from support.models import RecordingModel
from support.waiting import BOUND_SECONDS, Eventually
from support.working import GatedModel, burst, complete, nothing_is_left, worker

PETS, PLANTS = Scope("collection", "pets"), Scope("collection", "plants")
MODEL = Scope("model", "recording")


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker looks for new queues, for what is due, and whether a pause is over, more often than it needs to."""
    monkeypatch.setattr(embedq_worker.service, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(embedq_worker.picking, "PAUSED_POLL_SECONDS", 0.02)


async def submit(queue: Queue, collection: str, run: str, chunks: int = 1) -> list[Chunk]:
    """Queue a run of chunks of 5 items each."""
    cut = [chunk(items(5, first=5 * each, text=run), each, run=run, collection=collection) for each in range(chunks)]
    await submit_chunks(queue, *cut)
    # The helper opens runs of one collection only.
    await queue.redis.hset(queue.names.run(run), "collection", collection)  # type: ignore[misc]  # redis-py's own
    return cut


async def order(queue: Queue) -> list[str]:
    return [job.decode() for job in await queue.redis.zrange(queue.names.queue("recording"), 0, -1)]


async def scores(queue: Queue) -> list[float]:
    return [score for _, score in await queue.redis.zrange(queue.names.queue("recording"), 0, -1, withscores=True)]


@pytest.mark.parametrize(
    ("paused", "model_id", "collection", "holds"),
    [
        ([], "m", "c", None),
        ([Scope()], "m", None, Scope()),
        ([Scope("model", "m")], "m", "c", Scope("model", "m")),
        ([Scope("model", "m")], "other", "c", None),
        ([Scope("collection", "c")], "m", "c", Scope("collection", "c")),
        ([Scope("collection", "c")], "m", None, None),
        ([Scope("collection", "c")], "m", "c@next", Scope("collection", "c")),
        ([Scope("collection", "c@next")], "m", "c", None),
        ([Scope("collection", "c@next")], "m", "c@next", Scope("collection", "c@next")),
        ([Scope("collection", "m"), Scope("model", "c")], "m", "c", None),
        ([Scope("collection", "c"), Scope("model", "m"), Scope()], "m", "c", Scope()),
    ],
)
def test_what_holds_work_back_is_the_widest_pause_that_is_about_it(
    paused: list[Scope], model_id: str, collection: str | None, holds: Scope | None
) -> None:
    found = holding([Pause(scope, 1.0) for scope in paused], model_id, collection)
    assert (None if found is None else found.scope) == holds


@pytest.mark.parametrize("name", ["plain", "with:colon", "all", "é\n"])
@pytest.mark.parametrize("kind", ["model", "collection"])
def test_a_scope_is_what_its_name_in_redis_says(kind: str, name: str) -> None:
    scope = Scope(kind, name)  # type: ignore[arg-type]  # both are kinds
    assert Scope.of(scope.field) == scope
    assert Scope.of(Scope().field) == Scope()


async def test_pauses_are_kept_with_their_reasons_and_lifted_one_by_one(queue: Queue) -> None:
    assert await queue.pausing.pause(MODEL, "new weights", now=1.0)
    assert await queue.pausing.pause(Scope(), now=2.0)
    assert not await queue.pausing.pause(MODEL, now=3.0), "since when and why stay"
    assert await queue.pauses() == [Pause(MODEL, 1.0, "new weights"), Pause(Scope(), 2.0)]
    assert not await queue.pausing.pause(MODEL, "other weights", now=3.0)
    assert await queue.pausing.resume([Scope(), PETS], []) == [Scope()]
    assert await queue.pauses() == [Pause(MODEL, 1.0, "other weights")]


@pytest.mark.parametrize("scope", [Scope(), MODEL], ids=["everything", "the model"])
async def test_of_a_model_that_is_paused_nothing_is_taken_until_it_is_resumed(
    settings: Settings,
    queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
    scope: Scope,
) -> None:
    model, other = RecordingModel(), GatedModel()
    other.model_id = "other"
    other.gate.set()
    install(monkeypatch, model, other)
    await queue.pausing.pause(scope)
    await submit(queue, "pets", RUN, 3)
    held = (await order(queue), await scores(queue))
    async with worker(settings), worker(settings):
        # Whoever serves one model looks at the other one's queue as often.
        await submit_chunks(queue, chunk(items(5), run="other", model_id="other"))
        if scope == MODEL:
            await eventually(lambda: complete(queue, "other"))
        else:
            assert await looked_often(queue)
        assert model.batches == []
        assert (await order(queue), await scores(queue)) == held, "nothing is set aside: it is in nobody's way"
        await queue.pausing.resume([scope], await queue.model_ids())
        await eventually(lambda: complete(queue))
        await eventually(lambda: complete(queue, "other"))
    await nothing_is_left(queue)


async def looked_often(queue: Queue) -> bool:
    """Wait until workers have read the pauses many times more."""

    async def reads() -> int:
        return int((await queue.redis.info("commandstats")).get("cmdstat_hgetall", {}).get("calls", 0))

    before = await reads()
    async with asyncio.timeout(BOUND_SECONDS):
        while await reads() < before + 10:  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.01)
    return True


async def test_what_is_in_hand_is_finished(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    model = GatedModel(batch_size=5)
    install(monkeypatch, model)
    await submit(queue, "pets", RUN)

    async def a_call_goes_on() -> bool:
        return model.begun == 1

    async with worker(settings):
        await eventually(a_call_goes_on)
        await queue.pausing.pause(PETS)
        await submit(queue, "pets", "later")

        async def met() -> bool:
            return (await queue.loads())[0].paused == 1

        await eventually(met)
        model.gate.set()
        await eventually(lambda: complete(queue))
    assert (await queue.runs.summary("later")).chunks_done == 0


async def test_a_collection_that_is_paused_hides_nothing_behind_it_and_keeps_order_and_age(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(embedq_worker.picking, "READ_LIMIT", 3)
    monkeypatch.setattr("embedq_jobs.pauses.AT_ONCE", 4)
    model = RecordingModel()
    install(monkeypatch, model)
    await queue.pausing.pause(PETS)
    await queue.pausing.pause(PLANTS)
    await submit(queue, "pets", "pets", 10)
    await submit(queue, "plants", "plants", 3)
    before = (await order(queue), await scores(queue))
    (load,) = await queue.loads()
    oldest = load.oldest
    assert oldest is not None
    await submit(queue, "others", "others", 2)
    async with worker(settings), worker(settings):
        await eventually(lambda: complete(queue, "others"))

        async def all_are_aside() -> bool:
            return (await queue.loads())[0].paused == 13

        await eventually(all_are_aside)
        (load,) = await queue.loads()
        assert (load.jobs, load.queued, load.deferred, load.in_progress, load.oldest) == (13, 0, 0, 0, oldest)
        assert await order(queue) == before[0]
        assert model.inputs == 10
    await queue.pausing.resume([PETS], await queue.model_ids())
    (load,) = await queue.loads()
    assert (load.queued, load.paused, load.oldest) == (10, 3, oldest)
    assert (await order(queue), (await scores(queue))[:10]) == (before[0], before[1][:10])
    await queue.pausing.resume([PLANTS], await queue.model_ids())
    assert (await order(queue), await scores(queue)) == before


async def test_what_is_embedded_anew_beside_a_collection_is_paused_with_it_or_by_itself(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, model := RecordingModel())
    beside = Scope("collection", "pets@next")
    await submit(queue, "pets@next", "anew")
    await queue.pausing.pause(PETS)
    await queue.pausing.pause(beside)
    for scope in (PETS, beside):
        await burst(settings, queue, store)
        (load,) = await queue.loads()
        assert (load.paused, model.inputs) == (1, 0)
        await queue.pausing.resume([scope], ["recording"])
    (load,) = await queue.loads()
    assert (load.paused, load.queued) == (0, 1)


async def test_lanes_that_meet_what_is_paused_at_the_same_time_don_t_mix_up_their_runs(queue: Queue) -> None:
    for run_id, model_id in (("a1", "one"), ("a2", "one"), ("b", "other")):
        await submit_chunks(queue, chunk(items(1), run=run_id, model_id=model_id))
    await queue.pausing.pause(PETS)
    pauses, aside = await queue.pauses(), queue.pausing.set_aside
    assert await aside("one", ["a1:0"], pauses) == {"a1:0"}
    found = await asyncio.gather(aside("one", ["a1:0", "a2:0"], pauses), aside("other", ["b:0"], pauses))
    assert [*found] == [{"a1:0", "a2:0"}, {"b:0"}]


async def test_nothing_is_set_aside_by_one_who_has_not_heard_that_it_was_resumed_nor_what_is_in_hand(
    queue: Queue,
) -> None:
    await submit(queue, "pets", RUN, 2)
    await queue.pausing.pause(PETS)
    pauses, jobs = await queue.pauses(), [job_id(RUN, 0), job_id(RUN, 1)]
    await queue.redis.psetex(lease_key(jobs[1]), 60_000, b"1")
    assert await queue.pausing.set_aside("recording", jobs, pauses) == set(jobs)
    assert [score >= ASIDE_FROM for score in sorted(await scores(queue))] == [False, True]
    await queue.pausing.set_aside("recording", jobs, pauses)
    await queue.pausing.resume([PETS], ["recording"])
    await queue.pausing.set_aside("recording", jobs, pauses)
    now_ms = time.time() * 1000
    assert all(score <= now_ms for score in await scores(queue))


async def test_what_was_left_aside_by_one_who_was_killed_is_due_again_when_a_worker_tidies_up(queue: Queue) -> None:
    await submit(queue, "pets", RUN, 2)
    await queue.pausing.pause(PETS)
    await queue.pausing.set_aside("recording", [job_id(RUN, 0), job_id(RUN, 1)], await queue.pauses())
    await queue.tidy()
    assert (await queue.loads())[0].paused == 2
    await queue.pausing.resume([PETS], [])
    await queue.tidy()
    (load,) = await queue.loads()
    assert (load.paused, load.queued) == (0, 2)


async def test_a_burst_does_what_is_aside_though_it_is_paused_no_longer(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, RecordingModel())
    await submit(queue, "pets", RUN, 2)
    await queue.pausing.pause(PETS)
    await queue.pausing.set_aside("recording", [job_id(RUN, 0), job_id(RUN, 1)], await queue.pauses())
    await queue.pausing.resume([PETS], [])

    async def tidies_nothing() -> None: ...

    monkeypatch.setattr(Queue, "tidy", lambda _: tidies_nothing())
    await burst(settings, queue, store)
    assert await complete(queue)
    await nothing_is_left(queue)


async def test_a_burst_ends_when_all_that_is_left_is_paused_and_says_so(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch, RecordingModel())
    await queue.pausing.pause(PETS)
    await submit(queue, "pets", "pets", 2)
    await submit(queue, "others", "others")
    with caplog.at_level(logging.WARNING):
        await burst(settings, queue, store)
    assert await complete(queue, "others")
    assert "recording: 2 chunks left, paused: see 'embedq pause --list'" in caplog.messages
    await queue.pausing.pause(Scope())
    await submit(queue, "others", "more")
    caplog.clear()
    await burst(settings, queue, store)
    assert "recording: 3 chunks left, paused: see 'embedq pause --list'" in caplog.messages
    await queue.pausing.resume([Scope(), PETS], await queue.model_ids())
    await burst(settings, queue, store)
    await nothing_is_left(queue)


async def test_a_cancelled_run_leaves_nothing_aside(queue: Queue) -> None:
    await submit(queue, "pets", RUN, 2)
    await queue.pausing.pause(PETS)
    await queue.pausing.set_aside("recording", [job_id(RUN, 0), job_id(RUN, 1)], await queue.pauses())
    await queue.cancelling.cancel(RUN, "recording")
    await nothing_is_left(queue)
    assert (await queue.runs.summary(RUN)).settled


async def test_who_waits_is_told_of_each_pause_once_and_that_it_is_over(queue: Queue) -> None:
    now = [0.0]
    said: list[str] = []
    watch = PauseWatch(queue, "recording", "my pets", said.append, clock=lambda: now[0])
    assert await watch.note() == ""
    await queue.pausing.pause(Scope("collection", "my pets"), "vet")
    assert await watch.note() == "", "asked once a second"
    for _ in range(2):
        now[0] += 1
        assert await watch.note() == "paused"
    assert said == ["collection my pets is paused (vet): 'embedq resume --collection 'my pets'' lets it go on"]
    await queue.pausing.pause(Scope())
    now[0] += 1
    assert await watch.note() == "paused"
    assert said[1:] == ["everything is paused: 'embedq resume' lets it go on"]
    await queue.pausing.resume([Scope(), Scope("collection", "my pets")], [])
    now[0] += 1
    assert await watch.note() == ""
    assert said[2:] == ["resumed: going on"]


async def test_a_pause_outlives_connections(settings: Settings, queue: Queue) -> None:
    await queue.pausing.pause(MODEL, "x")
    async with open_queue(settings) as another:
        assert await another.pauses() == await queue.pauses()
    assert await queue.redis.ttl(queue.names.paused) == -1
