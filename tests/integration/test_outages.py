"""A Redis that is killed under producers and under those who wait: they go on, nothing is lost, nothing is doubled."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from embedq_core.counts import Counts
from embedq_core.errors import ChunkLost, RedisFull, RedisUnreachable
from embedq_core.settings import Settings, load_settings
from embedq_jobs import Patience, Queue, decode_chunk, open_queue
from embedq_jobs.codec import load_job
from embedq_jobs.names import job_id, payload_key
from embedq_producer.chunks import Cut
from embedq_producer.readers import FileSource, Reader, RowOptions
from embedq_producer.sending import Sender
from embedq_producer.submission import Submission, new_submission, submit
from embedq_producer.submitting import wait_for_run
from support.chunks import RUN, chunk, items, run
from support.chunks import submit as submit_chunks
from support.servers import MortalRedis
from support.waiting import BOUND_SECONDS, Eventually

ROWS = 600


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedq_jobs.connection.ATTEMPTS", 0)
    monkeypatch.setattr("embedq_jobs.patience.LONGEST_PAUSE_SECONDS", 0.1)


@pytest.fixture
def mortal_redis() -> Iterator[MortalRedis]:
    with tempfile.TemporaryDirectory(prefix="embedq-test-") as folder:
        server = MortalRedis(Path(folder))
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture
def mortal_settings(mortal_redis: MortalRedis, tmp_path: Path) -> Settings:
    settings = load_settings(database=tmp_path / "embeddings.db", redis_url=mortal_redis.url)
    return replace(settings, chunk_items=2)


@pytest.fixture
async def mortal_queue(mortal_settings: Settings) -> AsyncIterator[Queue]:
    async with open_queue(mortal_settings) as queue:
        yield queue


def corpus(folder: Path) -> Reader:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": f"i{number}", "content": "text"}) + "\n" for number in range(ROWS)))
    return Reader([FileSource(path)], RowOptions(), lambda error: None)


async def queued_ids(queue: Queue, run_id: str, chunks: int) -> list[str]:
    ids: list[str] = []
    for number in range(chunks):
        raw = await queue.redis.get(payload_key(job_id(run_id, number)))
        ids.extend(item.id for item in decode_chunk(load_job(raw)["a"][0]).items)
    return ids


async def all_is_queued_once(queue: Queue, submission: Submission) -> None:
    assert (submission.items, submission.chunks, submission.sent) == (ROWS, ROWS // 2, True)
    assert await queued_ids(queue, submission.run.id, submission.chunks) == [f"i{number}" for number in range(ROWS)]
    summary = await queue.runs.summary(submission.run.id)
    assert (summary.items, summary.chunks, summary.closed, summary.state) == (ROWS, ROWS // 2, True, "queued")
    assert [(load.jobs, load.items) for load in await queue.loads()] == [(ROWS // 2, ROWS)]
    assert await queue.collection_model("docs") == "hashing"


@pytest.mark.parametrize("forgets", [False, True], ids=["with all it had", "with nothing"])
async def test_redis_is_killed_while_a_producer_sends_and_comes_back(
    mortal_redis: MortalRedis,
    mortal_queue: Queue,
    mortal_settings: Settings,
    tmp_path: Path,
    eventually: Eventually,
    forgets: bool,
) -> None:
    said: list[str] = []
    submission = new_submission("docs", "hashing", "a test")
    sending = asyncio.create_task(
        submit(
            submission,
            corpus(tmp_path),
            mortal_queue,
            mortal_settings,
            store=True,
            patience=Patience(20, said.append),
        )
    )

    async def under_way() -> bool:
        return submission.chunks >= 20

    async def noticed() -> bool:
        return bool(said)

    await eventually(under_way)
    mortal_redis.kill()
    await eventually(noticed)
    assert not sending.done()
    if forgets:
        (mortal_redis.folder / "appendonly.aof").unlink()
    await asyncio.to_thread(mortal_redis.start)
    async with asyncio.timeout(BOUND_SECONDS):
        await sending
    assert len(said) == 2, said
    assert "waiting for it to come back" in said[0]
    assert "is back" in said[1]
    await all_is_queued_once(mortal_queue, submission)


async def test_what_a_redis_lost_is_sent_again_as_soon_as_it_is_back(
    mortal_redis: MortalRedis, mortal_queue: Queue
) -> None:
    sender = Sender(run(), mortal_queue, Patience(20, print))
    await sender.open()
    await sender.send(Cut(0, items(2), [], 0), store=True)
    mortal_redis.kill()
    (mortal_redis.folder / "appendonly.aof").unlink()
    starting = asyncio.create_task(asyncio.to_thread(mortal_redis.start))
    await sender.beat()
    await starting
    assert await queued_ids(mortal_queue, RUN, 1) == ["000000", "000001"]
    assert (await mortal_queue.runs.summary(RUN)).items == 2


async def test_what_a_redis_lost_unnoticed_is_sent_again(queue: Queue) -> None:
    sender = Sender(run(), queue, Patience(0, print))
    await sender.open()
    for number in range(3):
        await sender.send(Cut(number, items(2, first=2 * number), [], 0), store=True)
    await queue.redis.flushall()
    await sender.check(3)
    assert await queued_ids(queue, RUN, 3) == [f"{number:06}" for number in range(6)]
    assert (await queue.runs.summary(RUN)).items == 6


async def test_what_a_redis_lost_and_nobody_has_any_more_is_said(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedq_producer.sending.RECENT_BYTES", 0)
    sender = Sender(run(), queue, Patience(0, print))
    await sender.open()
    await sender.send(Cut(0, items(2), [], 0), store=True)
    await queue.redis.flushall()
    with pytest.raises(ChunkLost, match=f"has lost 1 chunk of run {RUN}: submit the source again"):
        await sender.check(1)


async def test_a_producer_gives_up_when_its_patience_is_over_and_what_was_queued_stays(
    mortal_redis: MortalRedis, mortal_queue: Queue, mortal_settings: Settings, tmp_path: Path, eventually: Eventually
) -> None:
    said: list[str] = []
    submission = new_submission("docs", "hashing", "a test")
    patience = Patience(0.1, said.append)
    sending = asyncio.create_task(
        submit(submission, corpus(tmp_path), mortal_queue, mortal_settings, store=True, patience=patience)
    )

    async def under_way() -> bool:
        return submission.chunks >= 20

    await eventually(under_way)
    mortal_redis.kill()
    async with asyncio.timeout(BOUND_SECONDS):
        with pytest.raises(RedisUnreachable):
            await sending
    assert len(said) == 1
    await asyncio.to_thread(mortal_redis.start)
    summary = await mortal_queue.runs.summary(submission.run.id)
    assert summary.chunks in (submission.chunks, submission.chunks + 1), "one may have arrived without a reply"
    assert not summary.closed


async def test_who_waits_for_a_run_waits_for_redis_too(
    mortal_redis: MortalRedis,
    mortal_queue: Queue,
    mortal_settings: Settings,
    eventually: Eventually,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await submit_chunks(mortal_queue, chunk(items(3)))
    waiting = asyncio.create_task(wait_for_run(mortal_queue, RUN, "pets", mortal_settings, asyncio.Event()))
    said = ""

    async def noticed() -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return "waiting for it to come back" in said

    mortal_redis.kill()
    await eventually(noticed)
    await asyncio.to_thread(mortal_redis.start)
    await mortal_queue.runs.record(RUN, 0, "recording", Counts(embedded=3))
    async with asyncio.timeout(BOUND_SECONDS):
        assert (await waiting).complete
    assert (said + capsys.readouterr().err).count("waiting for it") == 1


async def test_a_producer_waits_for_room_in_a_redis_that_is_full(
    mortal_redis: MortalRedis, mortal_queue: Queue, mortal_settings: Settings, tmp_path: Path, eventually: Eventually
) -> None:
    said: list[str] = []
    submission = new_submission("docs", "hashing", "a test")
    patience = Patience(20, said.append)
    with mortal_redis.client() as client:
        client.config_set("maxmemory", 1)
        sending = asyncio.create_task(
            submit(submission, corpus(tmp_path), mortal_queue, mortal_settings, store=True, patience=patience)
        )

        async def noticed() -> bool:
            return bool(said) or sending.done()

        await eventually(noticed)
        assert not sending.done()
        client.config_set("maxmemory", 0)
    async with asyncio.timeout(BOUND_SECONDS):
        await sending
    assert len(said) == 2, said
    assert "out of memory" in said[0]
    assert "waiting for room, 20 s at most" in said[0]
    assert said[1] == "Redis has room again: going on"
    assert patience.outages == 0, "nothing was lost that would have to be sent again"
    await all_is_queued_once(mortal_queue, submission)


async def test_a_producer_that_is_stopped_while_redis_is_full_ends_with_an_error(
    mortal_redis: MortalRedis, mortal_queue: Queue, mortal_settings: Settings, tmp_path: Path
) -> None:
    submission = new_submission("docs", "hashing", "a test")
    with mortal_redis.client() as client:
        client.config_set("maxmemory", 1)
        async with asyncio.timeout(BOUND_SECONDS):
            with pytest.raises(RedisFull):
                await submit(submission, corpus(tmp_path), mortal_queue, mortal_settings, store=True, stop=lambda: True)
