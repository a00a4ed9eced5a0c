"""What the dead have left is let go of, and nothing that is still wanted is."""

import asyncio
import json
import time
from collections.abc import Awaitable
from typing import Any, cast

from embedq_core.counts import Counts
from embedq_core.settings import Settings
from embedq_jobs import Queue
from embedq_jobs.queue import WORKER_GONE_SECONDS
from embedq_jobs.runs import ABANDONED_SECONDS, KEEP_SECONDS
from embedq_store import Store
from embedq_worker.service import ServiceOptions, serve
from support.chunks import RUN, chunk, items, run
from support.waiting import Eventually

LATER = ABANDONED_SECONDS + 60


async def ttls(queue: Queue) -> set[int]:
    return {await queue.redis.ttl(queue.names.run(RUN)), await queue.redis.ttl(queue.names.chunks(RUN))}


def about_the_time_of_a_finished_run(found: set[int]) -> bool:
    return all(KEEP_SECONDS - 60 < ttl <= KEEP_SECONDS for ttl in found)


async def begin(queue: Queue, *done: int) -> None:
    await queue.runs.open(run())
    for number in range(2):
        await queue.put(chunk(items(10), number))
    for number in done:
        await queue.runs.record(RUN, number, "recording", Counts(embedded=10))


async def test_a_run_whose_producer_died_and_whose_chunks_are_done_goes_as_a_finished_one_does(queue: Queue) -> None:
    await begin(queue, 0, 1)
    await queue.tidy()
    assert await ttls(queue) == {-1}, "the producer may go on"
    await queue.tidy(time.time() + LATER)
    assert about_the_time_of_a_finished_run(await ttls(queue))
    assert (await queue.runs.summary(RUN)).counts.done == 20


async def test_tidying_again_does_not_put_the_end_off(queue: Queue) -> None:
    await begin(queue, 0, 1)
    await queue.tidy(time.time() + LATER)
    for key in (queue.names.run(RUN), queue.names.chunks(RUN)):
        await queue.redis.expire(key, 100)
    await queue.tidy(time.time() + 2 * LATER)
    assert max(await ttls(queue)) <= 100


async def test_a_run_with_chunks_in_the_queue_stays_however_long_its_producer_is_dead(queue: Queue) -> None:
    await begin(queue, 0)
    await queue.tidy(time.time() + 100 * LATER)
    assert await ttls(queue) == {-1}


async def test_a_producer_that_was_only_asleep_has_its_run_back(queue: Queue) -> None:
    await begin(queue, 0, 1)
    await queue.tidy(time.time() + LATER)
    await queue.put(chunk(items(10), 2))
    assert await ttls(queue) == {-1}
    await queue.runs.record(RUN, 2, "recording", Counts(embedded=10))
    await queue.runs.close(RUN, 3, skipped=0, duplicates=0)
    summary = await queue.runs.summary(RUN)
    assert (summary.state, summary.counts.done) == ("complete", 30)


async def test_runs_whose_time_is_up_are_listed_no_more(queue: Queue) -> None:
    await begin(queue, 0, 1)
    await queue.redis.delete(queue.names.run(RUN), queue.names.chunks(RUN))
    await queue.tidy()
    assert await queue.redis.zcard(queue.names.runs) == 0


async def test_reports_of_workers_that_were_killed_go_and_those_of_others_stay(queue: Queue) -> None:
    now = time.time()
    reports = {
        "alive:1": json.dumps({"seen": now}),
        "killed:2": json.dumps({"seen": now - WORKER_GONE_SECONDS - 1}),
        "strange:3": "not what a worker writes",
    }
    writing: Awaitable[Any] = cast("Awaitable[Any]", queue.redis.hset(queue.names.workers, mapping=reports))
    await writing
    await queue.tidy()
    assert [json.loads(report)["seen"] for report in await queue.worker_reports()] == [now]


async def test_a_worker_that_starts_tidies_up(
    queue: Queue, store: Store, settings: Settings, eventually: Eventually
) -> None:
    writing = cast("Awaitable[Any]", queue.redis.hset(queue.names.workers, "killed:2", json.dumps({"seen": 1})))
    await writing
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(settings, ServiceOptions(), queue, store, stop))

    async def alone() -> bool:
        reports = [json.loads(report) for report in await queue.worker_reports()]
        return len(reports) == 1 and reports[0]["seen"] > 1

    await eventually(alone)
    stop.set()
    await serving
