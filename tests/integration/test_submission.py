"""Submitting a corpus into a real queue."""

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from embedq_core.counts import Counts
from embedq_core.errors import ModelMismatch, RowError, UnknownModel
from embedq_core.priority import SHARE, Priority
from embedq_core.settings import Settings
from embedq_jobs import Queue, decode_chunk
from embedq_jobs.codec import load_job
from embedq_jobs.names import job_id, payload_key
from embedq_producer.models import choose_model
from embedq_producer.readers import FileSource, Reader, RowOptions
from embedq_producer.submission import Submission, new_submission, submit
from embedq_store import Store
from support.waiting import BOUND_SECONDS, Eventually


def reader_of(path: Path, text: str, *, strict: bool = False) -> Reader:
    path.write_text(text)
    return Reader([FileSource(path)], RowOptions(strict=strict), lambda error: None)


def lines(count: int) -> str:
    return "".join(json.dumps({"id": f"i{number}", "content": f"text {number}"}) + "\n" for number in range(count))


def submission_to(collection: str = "docs") -> Submission:
    return new_submission(collection, "hashing", "a test")


async def queued_ids(queue: Queue, submission: Submission) -> list[str]:
    """The ids that stand in the queue, chunk after chunk."""
    ids: list[str] = []
    for number in range(submission.chunks):
        raw = await queue.redis.get(payload_key(job_id(submission.run.id, number)))
        chunk = decode_chunk(load_job(raw)["a"][0])
        assert (chunk.run, chunk.collection, chunk.model_id) == (submission.run.id, "docs", "hashing")
        ids.extend(item.id for item in chunk.items)
    return ids


async def test_everything_is_queued_once_and_in_order(queue: Queue, settings: Settings, tmp_path: Path) -> None:
    submission = submission_to()
    reader = reader_of(tmp_path / "rows.jsonl", lines(25))
    await submit(submission, reader, queue, replace(settings, chunk_items=10), store=True)
    assert (submission.items, submission.chunks, submission.sent) == (25, 3, True)
    assert await queued_ids(queue, submission) == [f"i{number}" for number in range(25)]
    summary = await queue.runs.summary(submission.run.id)
    assert (summary.items, summary.chunks, summary.closed, summary.state) == (25, 3, True, "queued")


async def test_the_producer_holds_back_while_the_queue_is_full(
    queue: Queue, settings: Settings, tmp_path: Path, eventually: Eventually
) -> None:
    submission = submission_to()
    reader = reader_of(tmp_path / "rows.jsonl", lines(30))
    small = replace(settings, chunk_items=10, queue_bytes=1)
    sending = asyncio.create_task(submit(submission, reader, queue, small, store=True))

    async def holding() -> bool:
        return submission.holding

    for number in range(3):
        if number < 2:
            await eventually(holding)
            assert submission.chunks == number + 1
        else:
            await sending
        # A worker does what is there, and room appears.
        await queue.runs.record(submission.run.id, number, "hashing", Counts(embedded=10))
        submission.holding = False
    assert submission.items == 30
    assert await queue.bytes_queued("hashing") == 0


async def test_a_high_run_is_queued_though_a_backfill_fills_the_queue_and_is_held_back_later(
    queue: Queue, settings: Settings, tmp_path: Path, eventually: Eventually
) -> None:
    backfill, stop = submission_to(), asyncio.Event()
    reader = reader_of(tmp_path / "rows.jsonl", lines(400))
    small = replace(settings, chunk_items=10, queue_bytes=4000)

    def high() -> Submission:
        return new_submission("docs", "hashing", "a test", Priority.HIGH)

    async def holding() -> bool:
        return backfill.holding

    filling = asyncio.create_task(submit(backfill, reader, queue, small, store=True, stop=stop.is_set))
    await eventually(holding)
    assert 4000 <= await queue.bytes_queued("hashing") < 4000 * (1 + SHARE), "all that the backfill may"
    urgent = high()
    async with asyncio.timeout(BOUND_SECONDS):
        await submit(urgent, reader_of(tmp_path / "urgent.jsonl", lines(10)), queue, small, store=True)
    assert urgent.items == 10
    # But not for ever: a high run that would fill Redis waits as well.
    more = high()
    sending = asyncio.create_task(
        submit(more, reader_of(tmp_path / "more.jsonl", lines(400)), queue, small, store=True, stop=stop.is_set)
    )

    async def holding_too() -> bool:
        return more.holding

    await eventually(holding_too)
    stop.set()
    await asyncio.gather(filling, sending)


async def test_told_to_stop_while_it_holds_back_it_stops(
    queue: Queue, settings: Settings, tmp_path: Path, eventually: Eventually
) -> None:
    submission = submission_to()
    stop = asyncio.Event()
    reader = reader_of(tmp_path / "rows.jsonl", lines(30))
    small = replace(settings, chunk_items=10, queue_bytes=1)
    sending = asyncio.create_task(submit(submission, reader, queue, small, store=True, stop=stop.is_set))

    async def holding() -> bool:
        return submission.holding

    await eventually(holding)
    stop.set()
    await sending
    summary = await queue.runs.summary(submission.run.id)
    assert (summary.items, summary.state) == (10, "interrupted")


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A named pipe that stays open, and a descriptor to write to it."""
    path = tmp_path / "pipe.jsonl"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    yield path, descriptor
    with contextlib.suppress(OSError):
        os.close(descriptor)


async def test_what_a_pipe_gives_is_queued_soon_and_not_when_a_chunk_is_full(
    queue: Queue, settings: Settings, pipe: tuple[Path, int], eventually: Eventually
) -> None:
    submission, (path, into) = submission_to(), pipe
    reader = Reader([FileSource(path)], RowOptions(), lambda error: None)
    sending = asyncio.create_task(submit(submission, reader, queue, settings, store=True))
    for number in range(3):
        os.write(into, json.dumps({"id": f"i{number}", "content": f"text {number}"}).encode() + b"\n")

        async def queued(expected: int = number + 1) -> bool:
            return submission.items == expected

        await eventually(queued)
    os.write(into, lines(5).encode())
    os.close(into)
    await sending
    assert await queued_ids(queue, submission) == ["i0", "i1", "i2", *(f"i{number}" for number in range(5))]
    assert (submission.duplicates, submission.problem) == (3, None)


async def test_told_to_stop_while_a_pipe_gives_nothing_it_stops(
    queue: Queue, settings: Settings, pipe: tuple[Path, int], eventually: Eventually
) -> None:
    submission, stop, (path, into) = submission_to(), asyncio.Event(), pipe
    reader = Reader([FileSource(path)], RowOptions(), lambda error: None)
    sending = asyncio.create_task(submit(submission, reader, queue, settings, store=True, stop=stop.is_set))
    os.write(into, lines(2).encode())

    async def queued() -> bool:
        return submission.items == 2

    await eventually(queued)
    stop.set()
    async with asyncio.timeout(BOUND_SECONDS):
        await sending
    assert (await queue.runs.summary(submission.run.id)).state == "interrupted"


async def test_a_source_that_breaks_off_keeps_what_came_before(
    queue: Queue, settings: Settings, tmp_path: Path
) -> None:
    submission = submission_to()
    text = '[{"id": "a", "content": "one"}, {"id": "b", "content": "two"}, {"id": '
    reader = reader_of(tmp_path / "rows.json", text)
    await submit(submission, reader, queue, replace(settings, chunk_items=1), store=True)
    assert submission.problem is not None
    assert await queued_ids(queue, submission) == ["a", "b"]
    assert (await queue.runs.summary(submission.run.id)).interrupted


async def test_strict_raises_and_the_run_counts_as_interrupted(
    queue: Queue, settings: Settings, tmp_path: Path
) -> None:
    submission = submission_to()
    reader = reader_of(tmp_path / "rows.jsonl", lines(3) + "bad\n", strict=True)
    with pytest.raises(RowError, match=r"rows\.jsonl line 4"):
        await submit(submission, reader, queue, replace(settings, chunk_items=2), store=True)
    summary = await queue.runs.summary(submission.run.id)
    assert (summary.items, summary.interrupted) == (2, True)


async def test_skipped_rows_and_duplicates_are_in_the_ledger(queue: Queue, settings: Settings, tmp_path: Path) -> None:
    submission = submission_to()
    reader = reader_of(tmp_path / "rows.jsonl", lines(3) + "bad\n" + lines(2))
    await submit(submission, reader, queue, settings, store=True)
    summary = await queue.runs.summary(submission.run.id)
    assert (summary.items, summary.skipped, summary.duplicates) == (3, 1, 2)


async def test_an_empty_corpus_is_complete_at_once(queue: Queue, settings: Settings, tmp_path: Path) -> None:
    submission = submission_to()
    await submit(submission, reader_of(tmp_path / "rows.jsonl", ""), queue, settings, store=True)
    summary = await queue.runs.summary(submission.run.id)
    assert (summary.state, summary.items) == ("complete", 0)


async def test_the_model_that_a_collection_has_goes_before_the_default(settings: Settings) -> None:
    own = replace(settings, redis_url=None, model="a model that is not there")
    async with await Store.open(settings.database) as store:
        await store.create_collection("docs", "hashing")
    assert (await choose_model("docs", None, own, None)).model_id == "hashing"
    assert (await choose_model("docs", "hash", own, None)).model_id == "hashing"
    with pytest.raises(UnknownModel):
        await choose_model("new", None, own, None)


async def test_what_is_queued_for_a_new_collection_fixes_its_model(queue: Queue, settings: Settings) -> None:
    await queue.set_collection_model("docs", "another")
    with pytest.raises(ModelMismatch, match="was embedded with another, not with hashing"):
        await choose_model("docs", "hashing", settings, queue)
    with pytest.raises(ModelMismatch):
        await choose_model("docs", "hashing", replace(settings, redis_url=None), queue)
