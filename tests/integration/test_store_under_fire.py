"""The database while processes are killed over it, write to it at once, and find no room: it stays whole."""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from embedq_core.counts import Counts
from embedq_core.items import Item
from embedq_core.settings import Settings
from embedq_core.vectors import cosine_similarity, encode
from embedq_jobs import Queue
from embedq_store import Store
from embedq_worker.service import ServiceOptions, serve
from support import forked
from support.chunks import RUN, chunk, install, items, submit
from support.firing import acknowledged_chunks, chunks_found, integrity, say_why_not, write_for_ever
from support.models import SlowModel, vector_of
from support.serving import start_worker
from support.waiting import BOUND_SECONDS, Eventually

MIB = 1024 * 1024


@contextlib.contextmanager
def writing(path: Path, first: int, acknowledged: Path, file_size: int | None = None) -> Iterator[ForkServerProcess]:
    process = forked.call(write_for_ever, path, first, acknowledged, file_size)
    try:
        yield process
    finally:
        process.kill()
        process.join(BOUND_SECONDS)


async def complete(queue: Queue, run: str = RUN) -> bool:
    return (await queue.runs.summary(run)).complete


# --- a process that does nothing but write


async def test_a_writer_killed_at_any_moment_leaves_whole_transactions_and_all_that_it_has_acknowledged(
    tmp_path: Path, eventually: Eventually
) -> None:
    path, acknowledged, dice = tmp_path / "embeddings.db", tmp_path / "acknowledged", random.Random(7)
    found: list[int] = []
    for _ in range(12):
        before = len(acknowledged_chunks(acknowledged))

        async def has_begun(before: int = before) -> bool:
            return len(acknowledged_chunks(acknowledged)) > before

        with writing(path, len(found), acknowledged):
            await eventually(has_begun)
            for _ in range(dice.randrange(400)):
                acknowledged.stat()
        assert integrity(path) == "ok"
        found = chunks_found(path)
        assert found == list(range(len(found)))
        assert set(acknowledged_chunks(acknowledged)) <= set(found)


@pytest.mark.parametrize("file_size", [MIB + 137, MIB + 8192, MIB + 8192 + 24 + 11])
def test_a_writer_killed_in_the_middle_of_a_commit_leaves_what_was_committed_before(
    tmp_path: Path, file_size: int
) -> None:
    path, acknowledged = tmp_path / "embeddings.db", tmp_path / "acknowledged"
    with writing(path, 0, acknowledged, file_size) as process:
        process.join(BOUND_SECONDS)
        assert process.exitcode == -signal.SIGXFSZ
    log = path.with_name("embeddings.db-wal")
    assert log.stat().st_size == file_size, "the log ends where the write was cut off"
    assert path.stat().st_size < MIB, "there was no checkpoint"
    assert chunks_found(path) == acknowledged_chunks(acknowledged) != []
    assert integrity(path) == "ok"


def test_a_writer_killed_in_the_middle_of_a_checkpoint_loses_nothing(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "embeddings.db", tmp_path / "acknowledged"
    # The log begins anew after each checkpoint, at about four MiB: only the database itself gets as large.
    file_size = 6 * MIB + 137
    with writing(path, 0, acknowledged, file_size) as process:
        process.join(BOUND_SECONDS)
        assert process.exitcode == -signal.SIGXFSZ
    assert path.with_name("embeddings.db-wal").stat().st_size < 5 * MIB
    assert path.stat().st_size > 5 * MIB
    found = chunks_found(path)
    assert integrity(path) == "ok"
    # The transaction was committed before the checkpoint that it set off: it may not have been said any more.
    assert acknowledged_chunks(acknowledged) == found[:-1]


# --- workers


@pytest.mark.parametrize(
    "statement", ["BEGIN IMMEDIATE", "COMMIT"], ids=["between embedding and commit", "at the commit"]
)
async def test_a_worker_killed_over_its_transaction_loses_nothing_and_pays_again_for_that_transaction_only(
    settings: Settings, queue: Queue, tmp_path: Path, eventually: Eventually, statement: str
) -> None:
    calls = tmp_path / "calls"
    await submit(queue, *(chunk(items(50, first=50 * number), number, model_id="recording-10") for number in range(4)))
    # The first transaction that it begins is that of the rows.
    worker = start_worker(settings, 0.2, kill_at=statement, EMBEDQ_TEST_CALLS=str(calls))
    worker.join(BOUND_SECONDS)
    assert worker.exitcode == -signal.SIGKILL
    assert integrity(settings.database) == "ok"

    def paid() -> int:
        return sum(map(int, calls.read_text().split()))

    lost = paid()
    assert 0 < lost <= 200

    async def done() -> bool:
        return await complete(queue)

    other = start_worker(settings, 0.2, EMBEDQ_TEST_CALLS=str(calls))
    try:
        await eventually(done)
    finally:
        other.terminate()
        other.join(BOUND_SECONDS)
    assert other.exitcode == 0
    assert paid() == 200 + lost
    counts = (await queue.runs.summary(RUN)).counts
    assert (counts.embedded, counts.failed, counts.done) == (200, 0, 200)
    assert integrity(settings.database) == "ok"
    with contextlib.closing(sqlite3.connect(settings.database)) as db:
        rows = db.execute("SELECT id, content, embedding FROM embeddings").fetchall()
    assert sorted(rows) == [(item.id, item.content, encode(vector_of(item.content))) for item in items(200)]


class Reader:
    """Looks at the database as `embedq similar` does and as another program does, again and again."""

    def __init__(self, database: Path, contents: list[str]) -> None:
        self.looks = 0
        self.seen: set[str] = set()
        self.ended = False
        self._database = database
        self._vectors = {content: vector_of(content) for content in contents}
        self._blobs = {content: encode(vector) for content, vector in self._vectors.items()}

    async def read(self) -> None:
        """Look until it is ended; every row must be whole, every score that of its content."""
        with contextlib.closing(sqlite3.connect(self._database)) as db:
            async with await Store.open(self._database, read_only=True) as store:
                while not self.ended:
                    self._look_at_rows(db)
                    await self._search(store)
                    self.looks += 1

    def _look_at_rows(self, db: sqlite3.Connection) -> None:
        for id_, content, blob in db.execute("SELECT id, content, embedding FROM embeddings"):
            assert (int(content.split()[1]), blob) == (int(id_), self._blobs[content])
            self.seen.add(content)

    async def _search(self, store: Store) -> None:
        query = [1.0] * 8
        for info in await store.collections():
            for entry in await store.search.similar(info.id, query, 20):
                assert isinstance(entry.content, str)
                score = cosine_similarity(query, self._vectors[entry.content])
                assert entry.score == pytest.approx(score, abs=1e-6)


async def test_a_reader_sees_whole_rows_and_no_error_while_several_workers_write_and_are_killed(
    settings: Settings, queue: Queue, eventually: Eventually
) -> None:
    async with await Store.open(settings.database):
        pass
    reader = Reader(settings.database, [f"{text} {n}" for text in ("old", "new") for n in range(1200)])
    reading = asyncio.create_task(reader.read())
    workers = [start_worker(settings, 0.3) for _ in range(3)]
    try:
        for text in ("old", "new"):
            parts = [items(30, first=first, text=text) for first in range(0, 1200, 30)]
            await submit(queue, *(chunk(part, n, run=text, model_id="recording-10") for n, part in enumerate(parts)))

            async def begun(run: str = text) -> bool:
                return (await queue.runs.summary(run)).chunks_done > 4 or reading.done()

            async def done(run: str = text) -> bool:
                return await complete(queue, run) or reading.done()

            await eventually(begun)
            workers[0].kill()
            workers[0].join(BOUND_SECONDS)
            workers[0] = start_worker(settings, 0.3)
            await eventually(done)
            looks = reader.looks

            async def looked_again(before: int = looks) -> bool:
                return reader.looks > before + 2 or reading.done()

            # On a busy machine the workers may be done before it has looked once.
            await eventually(looked_again)
        reader.ended = True
        await reading
    finally:
        reader.ended = True
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(BOUND_SECONDS)
    # One that was still starting died of the signal.
    assert {worker.exitcode for worker in workers} <= {0, -signal.SIGTERM}
    assert reader.looks > 5
    assert {content.split()[0] for content in reader.seen} == {"old", "new"}
    assert integrity(settings.database) == "ok"
    with contextlib.closing(sqlite3.connect(settings.database)) as db:
        rows = db.execute("SELECT id, content, embedding FROM embeddings ORDER BY id").fetchall()
    assert rows == [(item.id, item.content, encode(vector_of(item.content))) for item in items(1200, text="new")]


# --- no room


async def test_while_the_disk_is_full_it_is_said_and_vectors_are_kept_until_there_is_room(
    settings: Settings,
    queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("embedq_worker.outbox.WRITE_AGAIN_SECONDS", 0.05)
    model = SlowModel("recording", batch_size=100, seconds=0)
    install(monkeypatch, model)
    stop = asyncio.Event()
    async with await Store.open(settings.database) as store:
        db = store._access.writing
        assert db is not None
        ((pages,),) = await db.execute_fetchall("PRAGMA page_count")
        await db.execute_fetchall(f"PRAGMA max_page_count = {pages + 2}")
        await submit(queue, *(chunk(items(500, first=500 * number), number) for number in range(3)))
        serving = asyncio.create_task(serve(settings, ServiceOptions(), queue, store, stop))

        async def all_is_embedded_and_refused() -> bool:
            return model.inputs == 1500 and caplog.text.count("trying again") > 3

        async def done() -> bool:
            return await complete(queue)

        await eventually(all_is_embedded_and_refused)
        assert f"{settings.database}: the disk is full: free some space, then try again; trying again" in caplog.text
        assert not await done()
        await db.execute_fetchall("PRAGMA max_page_count = 1000000")
        await eventually(done)
        stop.set()
        await serving
    assert (await queue.runs.summary(RUN)).counts == Counts(embedded=1500, calls=15, inputs=1500)
    assert model.inputs == 1500
    assert integrity(settings.database) == "ok"


def test_a_write_that_the_system_refuses_says_where_to_look(tmp_path: Path) -> None:
    path, said = tmp_path / "embeddings.db", tmp_path / "said"
    process = forked.call(say_why_not, path, said, 300_000)
    process.join(BOUND_SECONDS)
    assert process.exitcode == 0
    assert said.read_text() == (
        f"StoreError {path}: disk I/O error: check the disk, quotas, and limits to the size of files, then try again"
    )
    assert integrity(path) == "ok"
    assert chunks_found(path) == [0]


async def test_a_worker_whose_writes_the_system_refuses_goes_on_where_it_was_when_they_are_allowed(
    settings: Settings, queue: Queue, tmp_path: Path, eventually: Eventually
) -> None:
    calls = tmp_path / "calls"
    long = [Item(f"{number:06}", f"text {number} " + "x" * 4000) for number in range(500)]
    await submit(
        queue, *(chunk(long[start : start + 50], start // 50, model_id="recording-10") for start in range(0, 500, 50))
    )
    log = settings.database.with_name("embeddings.db-wal")
    worker = start_worker(settings, 15, file_size=300_000, EMBEDQ_TEST_CALLS=str(calls))

    async def refused() -> bool:
        all_embedded = calls.exists() and calls.read_text().count("\n") == 50
        return all_embedded and log.exists() and log.stat().st_size == 300_000

    async def done() -> bool:
        return await complete(queue)

    try:
        await eventually(refused)
        assert not await done()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGUSR1)
        await eventually(done)
    finally:
        worker.terminate()
        worker.join(BOUND_SECONDS)
    assert worker.exitcode == 0
    assert sum(map(int, calls.read_text().split())) == 500
    assert (await queue.runs.summary(RUN)).counts == Counts(embedded=500, calls=50, inputs=500)
    assert integrity(settings.database) == "ok"
