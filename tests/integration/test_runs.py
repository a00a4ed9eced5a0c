"""Runs: one submission each, and how far it has come."""

import time
from dataclasses import replace

import pytest

from embedq_core.counts import Counts
from embedq_core.errors import RunMissing
from embedq_jobs import Queue, Run, RunSummary
from embedq_jobs.names import lease_key
from embedq_jobs.runs import KEEP_SECONDS
from embedq_jobs.summaries import BEAT_SECONDS
from support.chunks import RUN, chunk, items, run


async def begin(queue: Queue, chunks: int = 2) -> None:
    """A run of chunks of 10 items each, all queued."""
    await queue.runs.open(run())
    for number in range(chunks):
        await queue.put(chunk(items(10), number))


async def done(queue: Queue, number: int, counts: Counts | None = None) -> None:
    await queue.runs.record(RUN, number, "recording", counts or Counts(embedded=10, calls=1, inputs=10))


async def close(queue: Queue, chunks: int = 2, *, interrupted: bool = False) -> None:
    await queue.runs.close(RUN, chunks, skipped=3, duplicates=4, interrupted=interrupted)


async def summary(queue: Queue) -> RunSummary:
    return await queue.runs.summary(RUN)


async def forget_beat(queue: Queue) -> None:
    """The producer was last heard of too long ago."""
    long_ago = str(time.time() - BEAT_SECONDS - 1)
    await queue.redis.hset(queue.names.run(RUN), "beat", long_ago)  # type: ignore[misc]  # redis-py's own


async def test_a_run_goes_from_queued_over_in_progress_to_complete(queue: Queue) -> None:
    await begin(queue)
    assert (await summary(queue)).state == "queued"
    await close(queue)
    assert (await summary(queue)).state == "queued"
    await done(queue, 1)
    assert (await summary(queue)).state == "in_progress"
    assert not (await summary(queue)).settled
    await done(queue, 0)
    assert (await summary(queue)).state == "complete"
    assert (await summary(queue)).settled


async def test_a_summary_says_what_was_sent_and_what_has_come_of_it(queue: Queue) -> None:
    await begin(queue)
    await done(queue, 0, Counts(embedded=6, reused=1, unchanged=2, failed=1, updated=1, calls=2, inputs=6))
    await done(queue, 1, Counts(embedded=10, calls=1, inputs=10))
    await close(queue)
    found = await summary(queue)
    assert (found.run.collection, found.run.model_id, found.run.source) == ("pets", "recording", "pets.csv")
    assert (found.items, found.chunks, found.chunks_done) == (20, 2, 2)
    assert found.bytes > 0
    assert (found.skipped, found.duplicates, found.closed, found.outcome) == (3, 4, True, "sent")
    assert found.counts == Counts(embedded=16, reused=1, unchanged=2, failed=1, updated=1, calls=3, inputs=16)
    assert found.counts.done == 20
    assert 0 <= found.seconds < 60


async def test_a_chunk_that_ran_twice_is_counted_once_as_it_came_out_last(queue: Queue) -> None:
    await begin(queue, 1)
    await done(queue, 0, Counts(embedded=10))
    await done(queue, 0, Counts(unchanged=10))
    assert (await summary(queue)).counts == Counts(unchanged=10)
    assert (await summary(queue)).chunks_done == 1


async def test_progress_within_a_chunk_shows_until_the_chunk_is_done(queue: Queue) -> None:
    await begin(queue)
    await queue.runs.progress(RUN, 0, Counts(embedded=4, calls=1, inputs=4))
    found = await summary(queue)
    assert found.counts == Counts(embedded=4, calls=1, inputs=4)
    assert found.chunks_done == 0
    await done(queue, 0)
    await queue.runs.progress(RUN, 0, Counts(embedded=9))
    assert (await summary(queue)).counts == Counts(embedded=10, calls=1, inputs=10)


@pytest.mark.parametrize("closed_first", [True, False])
async def test_the_end_is_noted_once_whether_the_close_or_the_last_chunk_comes_first(
    queue: Queue, *, closed_first: bool
) -> None:
    await begin(queue)
    if closed_first:
        await close(queue)
        await done(queue, 0)
        assert (await summary(queue)).finished is None
        await done(queue, 1)
    else:
        await done(queue, 0)
        await done(queue, 1)
        assert (await summary(queue)).finished is None
        await close(queue)
    finished = (await summary(queue)).finished
    assert finished is not None
    assert abs(finished - time.time()) < 60
    await queue.redis.hset(queue.names.run(RUN), "finished", "17.5")  # type: ignore[misc]  # redis-py's own
    await done(queue, 1)
    await close(queue)
    assert (await summary(queue)).finished == 17.5, "what happens again changes nothing"


async def test_the_time_a_run_took_stands_still_when_it_is_over(queue: Queue) -> None:
    await queue.runs.open(run(started=100.0))
    await close(queue, 0)
    await queue.redis.hset(queue.names.run(RUN), "finished", "107.5")  # type: ignore[misc]  # redis-py's own
    assert (await summary(queue)).seconds == 7.5


async def test_an_empty_corpus_is_complete_when_it_is_closed(queue: Queue) -> None:
    await queue.runs.open(run())
    await close(queue, 0)
    assert (await summary(queue)).state == "complete"
    assert (await summary(queue)).finished is not None


async def test_a_run_that_goes_on_is_kept_without_limit_and_one_that_is_over_for_a_month(queue: Queue) -> None:
    await begin(queue)
    await done(queue, 0)
    await close(queue)
    keys = [queue.names.run(RUN), queue.names.chunks(RUN)]
    assert [await queue.redis.ttl(key) for key in keys] == [-1, -1]
    await done(queue, 1)
    assert all([KEEP_SECONDS - 60 < await queue.redis.ttl(key) <= KEEP_SECONDS for key in keys])


async def test_a_producer_that_says_so_or_falls_silent_has_been_interrupted(queue: Queue) -> None:
    await begin(queue)
    assert not (await summary(queue)).interrupted
    await forget_beat(queue)
    assert (await summary(queue)).state == "interrupted"
    assert not (await summary(queue)).settled, "what it has sent is still to be done"
    await queue.runs.beat(RUN)
    assert (await summary(queue)).state == "queued"
    await close(queue, interrupted=True)
    assert (await summary(queue)).state == "interrupted"


async def test_an_interrupted_run_is_settled_when_all_that_was_sent_is_done(queue: Queue) -> None:
    await begin(queue)
    await forget_beat(queue)
    await done(queue, 0)
    await done(queue, 1)
    found = await summary(queue)
    assert (found.state, found.settled, found.complete) == ("interrupted", True, False)


async def test_a_closed_run_may_stay_silent_for_as_long_as_it_takes(queue: Queue) -> None:
    await begin(queue)
    await close(queue)
    await forget_beat(queue)
    assert (await summary(queue)).state == "queued"


async def test_putting_a_chunk_is_a_sign_of_life(queue: Queue) -> None:
    await begin(queue)
    await forget_beat(queue)
    await queue.put(chunk(items(1), 2))
    assert not (await summary(queue)).interrupted


async def test_chunks_are_done_when_all_of_them_are(queue: Queue) -> None:
    await begin(queue, 3)
    await done(queue, 0)
    await done(queue, 2)
    assert await queue.runs.done(RUN, [0, 2])
    assert not await queue.runs.done(RUN, [0, 1])
    assert not await queue.runs.done("another run", [0])


async def test_the_latest_runs_come_first(queue: Queue) -> None:
    for number in range(5):
        await queue.runs.open(run(f"2026010{number}-000000-xxxxx", started=time.time() + number))
    assert [found.run.id[7] for found in await queue.runs.latest(3)] == ["4", "3", "2"]
    assert len(await queue.runs.latest(99)) == 5


async def test_a_run_whose_time_is_up_is_left_out(queue: Queue) -> None:
    for number in range(3):
        await queue.runs.open(run(f"2026010{number}-000000-xxxxx", started=time.time() + number))
    await queue.redis.delete(queue.names.run("20260102-000000-xxxxx"))
    assert [found.run.id[7] for found in await queue.runs.latest(2)] == ["1", "0"]


async def test_runs_are_found_by_collection_model_and_state(queue: Queue) -> None:
    for number, (collection, model) in enumerate([("pets", "a"), ("books", "a"), ("pets", "b")]):
        run_id = f"2026010{number}-000000-xxxxx"
        await queue.runs.open(Run(run_id, collection, model, "x.csv", time.time() + number))
    await queue.runs.close("20260100-000000-xxxxx", 0, skipped=0, duplicates=0)

    async def found(count: int = 9, **which: str) -> list[str]:
        return [each.run.id[7] for each in await queue.runs.latest(count, **which)]

    assert await found(collection="pets") == ["2", "0"]
    assert await found(model_id="a") == ["1", "0"]
    assert await found(collection="pets", state="complete") == ["0"]
    assert await found(1, collection="pets") == ["2"]
    assert await found(state="interrupted") == []
    assert await found(collection="nobody") == []


async def test_an_overview_has_what_goes_on_and_then_the_latest(queue: Queue) -> None:
    for number in range(6):
        await queue.runs.open(run(f"2026010{number}-000000-xxxxx", started=time.time() + number))
        if number != 1:
            await queue.runs.close(f"2026010{number}-000000-xxxxx", 0, skipped=0, duplicates=0)
    found = await queue.runs.overview(3)
    assert [each.run.id[7] for each in found] == ["1", "5", "4"], "one that began long ago is not crowded out"
    # What is finished is not read again.
    known = {each.run.id: replace(each, skipped=77) for each in found}
    assert [each.skipped for each in await queue.runs.overview(3, known)] == [0, 77, 77]


async def test_a_run_knows_its_batches_and_when_it_was_first_taken_in_hand(queue: Queue) -> None:
    await queue.runs.open(replace(run(), batch_size=32))
    await queue.put(chunk(items(10)))
    assert (await summary(queue)).run.batch_size == 32
    assert (await summary(queue)).began is None
    before = time.time()
    await queue.starts.begin("recording", [f"{RUN}:0"], 60)
    began = (await summary(queue)).began
    assert began is not None
    assert before <= began <= time.time()
    await queue.redis.delete(lease_key(f"{RUN}:0"))
    await queue.starts.begin("recording", [f"{RUN}:0"], 60)
    assert (await summary(queue)).began == began, "the first time counts"


async def test_a_run_that_isn_t_there_is_answered_with_close_ids(queue: Queue) -> None:
    await queue.runs.open(run("20260101-120000-bcdfg"))
    with pytest.raises(RunMissing, match="Did you mean '20260101-120000-bcdfg'"):
        await queue.runs.summary("20260101-120000-bcdfh")
    assert (await queue.redis.exists(queue.names.run("20260101-120000-bcdfh"))) == 0
