"""A `Collection` in programs as people write them: in event loops, threads, forks, and left open."""

import asyncio
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

import embedq
from embedq_store import Store, removing, sync
from support.command_line import python_path
from support.models import RecordingModel
from support.waiting import BOUND_SECONDS


def opened(path: Path) -> embedq.Collection:
    return embedq.Collection("pets", path, model=RecordingModel())


def count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM embeddings").fetchone()[0])


async def test_it_works_inside_a_running_event_loop(tmp_path: Path) -> None:
    with opened(tmp_path / "embeddings.db") as pets:
        pets.embed("a", "hound")
        assert [entry.id for entry in pets.similar("hound")] == ["a"]


async def test_both_faces_work_on_one_file_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    with opened(path) as pets:
        async with embedq.AsyncCollection("pets", path, model=RecordingModel()) as same:
            pets.embed("a", "hound")
            await same.embed("b", "cat")
            assert pets.count() == await same.count() == 2


async def test_many_calls_at_once_all_end(tmp_path: Path) -> None:
    async with embedq.AsyncCollection("pets", tmp_path / "embeddings.db", model=RecordingModel()) as pets:
        await asyncio.gather(*(pets.embed(str(number), f"text {number % 7}") for number in range(50)))
        assert await pets.count() == 50


def test_threads_may_share_a_collection(tmp_path: Path) -> None:
    with opened(tmp_path / "embeddings.db") as pets, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: pets.embed(str(number), f"text {number}"), range(80)))
        assert pets.count() == 80
        assert all(pool.map(lambda number: pets.similar(f"text {number}", 1)[0].id == str(number), range(80)))


def test_entries_may_be_read_from_a_connection_of_the_callers_thread(tmp_path: Path) -> None:
    with closing(sqlite3.connect(":memory:")) as source, opened(tmp_path / "embeddings.db") as pets:
        source.execute("CREATE TABLE texts (id TEXT, content TEXT)")
        source.executemany("INSERT INTO texts VALUES (?, ?)", [(str(number), f"text {number}") for number in range(25)])
        pets.embed_multi(source.execute("SELECT id, content FROM texts"), batch_size=10)
        assert pets.count() == 25


def test_a_source_and_a_collection_may_be_one_file(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    with closing(sqlite3.connect(path)) as source:
        source.execute("CREATE TABLE texts (id TEXT, content TEXT)")
        source.executemany("INSERT INTO texts VALUES (?, ?)", [(str(number), f"text {number}") for number in range(25)])
        source.commit()
        with embedq.Collection("pets", source, model=RecordingModel()) as pets:
            pets.embed_multi(source.execute("SELECT id, content FROM texts"), batch_size=10)
            assert pets.count() == 25


def test_an_error_of_the_entries_is_the_callers_and_the_batches_before_are_kept(tmp_path: Path) -> None:
    def entries() -> Iterator[tuple[str, str]]:
        yield "a", "hound"
        yield "b", "cat"
        raise RuntimeError("the source broke")

    with opened(tmp_path / "embeddings.db") as pets:
        with pytest.raises(RuntimeError, match="the source broke"):
            pets.embed_multi(entries(), batch_size=1)
        assert pets.count() == 2


def wal_is_gone(path: Path) -> bool:
    """SQLite removes the log when the last connection is closed."""
    return not path.with_name(path.name + "-wal").exists()


async def test_a_dropped_collection_is_closed_without_a_warning(
    tmp_path: Path, eventually: Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
) -> None:
    path = tmp_path / "embeddings.db"
    pets = opened(path)
    pets.embed("a", "hound")
    assert not wal_is_gone(path)
    del pets
    gc.collect()

    async def closed() -> bool:
        return wal_is_gone(path)

    await eventually(closed)
    assert count(path) == 1


async def test_a_collection_that_could_not_be_opened_leaves_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    opened(path).close()
    with pytest.raises(embedq.Collection.DoesNotExist):
        embedq.Collection("docs", path, create=False)
    with pytest.raises(ValueError, match="was embedded with recording"):
        embedq.Collection("pets", path, model_id="hashing")
    gc.collect()
    assert wal_is_gone(path)


class Cycle:
    """Only the garbage collector frees it, and with it its collection."""

    def __init__(self, collection: embedq.Collection) -> None:
        self.collection = collection
        self.itself = self


@pytest.mark.timeout(20)
def test_the_garbage_collector_may_run_in_the_event_loops_thread(tmp_path: Path) -> None:
    gc.disable()
    try:
        Cycle(opened(tmp_path / "embeddings.db"))

        async def collect() -> str:
            gc.collect()
            return threading.current_thread().name

        assert sync._loop_thread.run(collect()) == "embedq-loop"
    finally:
        gc.enable()
    with opened(tmp_path / "embeddings.db") as pets:
        pets.embed("a", "hound")  # the thread still runs


@pytest.mark.timeout(20)
def test_the_garbage_collector_may_run_in_a_connections_own_thread(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    gc.disable()
    try:
        cycle = Cycle(opened(path))
        store = cycle.collection._collection._open_store()
        del cycle

        async def collect_there() -> None:
            await store._access.reader.create_function("collect", 0, gc.collect)
            await store._access.reader.execute_fetchall("SELECT collect()")

        sync._loop_thread.run(collect_there())
    finally:
        gc.enable()
    with opened(path) as pets:
        pets.embed("a", "hound")


PROGRAMS = {
    "left open": "",
    "left open in a function": "def f(): c = pets()\nf()",
    "left open in a cycle": "import gc; gc.disable()\nclass C: pass\nc = C(); c.c = c; c.pets = pets()",
    "several": "kept.extend(pets() for _ in range(5))",
    "in a thread": "import threading; t = threading.Thread(target=pets); t.start(); t.join()",
    "in an event loop": "import asyncio\nasync def f(): pets()\nasyncio.run(f())",
    "with an error": "try: pets().embed(1, 2)\nexcept ValueError: pass",
    "in a forked process": (
        "import os\nchild = os.fork()\nkept.append(pets())\n"
        "if child: assert os.waitpid(child, 0)[1] == 0\nelse: kept[0].close(); kept[1].close()"
    ),
    "in a forked process that drops what it was born with": (
        "import gc, os\nchild = os.fork()\n"
        "if child: assert os.waitpid(child, 0)[1] == 0\nelse: kept.clear(); gc.collect(); pets()"
    ),
    "in processes of a pool": (
        "import multiprocessing\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool: assert pool.map(work, range(4)) == [True] * 4"
    ),
}

PROGRAM = """
import sys
import embedq
from support.command_line import python_path
from support.models import RecordingModel

kept = []

def pets():
    collection = embedq.Collection("pets", sys.argv[1], model=RecordingModel())
    collection.embed("a", "hound")
    return collection

def work(number):
    collection = pets()
    collection.embed(str(number), f"text {number}")
    collection.close()
    return True

kept.append(pets())
"""


def run_to_the_end(program: str, path: Path) -> None:
    """Run a program that closes nothing: it ends without a word, and what it embedded is stored."""
    process = subprocess.Popen(
        # From Python 3.12 on a fork beside threads is warned of: that it works is what is shown here.
        [sys.executable, "-W", "error", "-W", "ignore:This process", "-c", program, path],
        env={**os.environ, "PYTHONPATH": python_path()},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=BOUND_SECONDS)
    finally:
        # Should it hang, its forks would outlive it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, errors) == (0, "")
    assert count(path) >= 1
    assert wal_is_gone(path)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_that_closes_nothing_ends_cleanly(tmp_path: Path, program: str) -> None:
    run_to_the_end(PROGRAM + PROGRAMS[program], tmp_path / "embeddings.db")


def test_a_program_that_has_other_things_to_finalise_ends_cleanly(tmp_path: Path) -> None:
    # What is finalised at exit is so in the reverse order of its making.
    before = "import sys, weakref\nweakref.finalize(sys, int)\n"
    run_to_the_end(before + PROGRAM, tmp_path / "embeddings.db")


async def test_what_another_program_has_deleted_answers_no_more_though_rows_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removing, "_REMOVED_ROWS", 1)
    monkeypatch.setattr(removing, "_REMOVING_SECONDS", 0.0)
    path = tmp_path / "embeddings.db"
    async with (
        embedq.AsyncCollection("pets", path, model=RecordingModel()) as pets,
        await Store.open(path) as other,
    ):
        await pets.embed_multi([("a", "hound"), ("b", "cat"), ("c", "bird")])
        assert await pets.count() == 3
        await other.part_with((await other.collection("pets")).id)
        assert count(path) == 2
        assert await pets.count() == 0
        assert await pets.similar("cat") == []
        with pytest.raises(pets.DoesNotExist):
            await pets.vector("b")
        await pets.embed("d", "fish")
        assert [entry.id for entry in await pets.similar("cat")] == ["d"]


async def test_who_deletes_what_is_deleted_leaves_the_collection_that_was_given_its_key(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    async with (
        embedq.AsyncCollection("pets", path, model=RecordingModel()) as pets,
        await Store.open(path) as other,
    ):
        await pets.embed("a", "hound")
        key = (await other.collection("pets")).id
        await other.delete_collection(key)
        async with embedq.AsyncCollection("plants", path, model=RecordingModel()) as plants:
            await plants.embed("b", "oak")
            assert (await other.collection("plants")).id == key, "SQLite gives out the last key again"
            await pets.delete()
            assert await plants.count() == 1
            assert await other.find_collection("plants") is not None
