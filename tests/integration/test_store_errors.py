"""What can be wrong with a database file, each in one line that says what, where and what to do."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from embedq_core.errors import (
    DatabaseLocked,
    DatabaseMissing,
    DatabaseReadOnly,
    DatabaseUnusable,
    DiskFull,
    StoreError,
)
from embedq_core.items import Item
from embedq_store import Incoming, Row, Store, Target, Write
from embedq_store.connection import translated

TARGET = Target("pets", "recording")


def rows(count: int, size: int = 8, first: int = 0) -> list[Row]:
    incoming = Incoming.of([Item(str(number), f"text {number}") for number in range(first, first + count)])
    return [Row(*entry, b"\0\0\x80\x3f" * size) for entry in incoming]


def listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


async def made(path: Path, count: int = 1) -> Path:
    async with await Store.open(path) as store:
        await store.write(Write(TARGET, rows(count)))
    return path


@contextmanager
def refused(kind: type[StoreError], path: Path, message: str) -> Iterator[None]:
    """The block raises this error, whose one line names the file."""
    with pytest.raises(kind) as caught:
        yield
    assert type(caught.value) is kind
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(f"{path}: ")
    assert re.search(message, str(caught.value))


@pytest.mark.parametrize("options", [{"must_exist": True}, {"read_only": True}])
async def test_a_missing_file_is_not_made_where_it_must_be_there(tmp_path: Path, options: dict[str, bool]) -> None:
    path = tmp_path / "missing.db"
    with refused(DatabaseMissing, path, "there is no such database: embed something first, or name another"):
        await Store.open(path, **options)
    assert listed(tmp_path) == []


async def test_a_missing_file_and_its_folders_are_made_where_something_is_to_be_written(tmp_path: Path) -> None:
    path = await made(tmp_path / "new" / "folder" / "embeddings.db")
    assert path.is_file()


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_directory_is_no_database(tmp_path: Path, read_only: bool) -> None:
    with refused(DatabaseUnusable, tmp_path, "is a directory, not a database file"):
        await Store.open(tmp_path, read_only=read_only)


async def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "embeddings.db"
    with refused(DatabaseUnusable, path, "can't be opened: "):
        await Store.open(path)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("content", [b"id,content\n1,hound\n" * 100, b"SQLite format 4\0" + b"\xff" * 5000])
async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes, read_only: bool) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with refused(DatabaseUnusable, path, "is not a SQLite database: name another file"):
        await Store.open(path, read_only=read_only)
    assert path.read_bytes() == content


async def test_a_corrupt_file_says_how_to_save_what_can_be_saved(tmp_path: Path) -> None:
    path = await made(tmp_path / "embeddings.db", 2000)
    content = bytearray(path.read_bytes())
    # The schema, on the first pages, is left whole: what is found is found in the middle of the work.
    half = len(content) // 2
    content[half:] = b"\xa5" * (len(content) - half)
    path.write_bytes(content)
    async with await Store.open(path, read_only=True) as store:
        info = await store.collection("pets")
        with refused(DatabaseUnusable, path, r"is corrupt \(.*\): restore a copy, or save .*sqlite3 FILE \.recover"):
            await store.describe(info.id)
        with refused(DatabaseUnusable, path, "is corrupt"):
            await store.search.similar(info.id, [1.0] * 8)


async def test_a_file_that_another_program_is_writing_to_is_locked_after_the_wait(tmp_path: Path) -> None:
    path = await made(tmp_path / "embeddings.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        async with await Store.open(path, busy_seconds=0.05) as store:
            other.execute("BEGIN IMMEDIATE")
            with refused(DatabaseLocked, path, "is locked by another program .*: wait for it to end, or stop it"):
                await store.write(Write(TARGET, rows(1, first=1)))
            # Reading is not hindered.
            assert await store.count(1) == 1
            other.execute("COMMIT")
            await store.write(Write(TARGET, rows(1, first=1)))
            assert await store.count(1) == 2


async def test_a_new_file_that_another_program_has_locked_is_told_at_the_opening(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with refused(DatabaseLocked, path, "is locked by another program"):
            await Store.open(path, busy_seconds=0.05)


async def test_a_lock_that_is_released_within_the_wait_is_no_error(tmp_path: Path) -> None:
    path = await made(tmp_path / "embeddings.db")
    async with await Store.open(path, busy_seconds=30) as store, await Store.open(path) as other:
        await other.write(Write(TARGET, rows(3000)))
        await store.write(Write(TARGET, rows(1, first=5000)))
        assert await store.count(1) == 3001


async def test_a_full_disk_loses_nothing_that_was_committed_and_the_next_write_works(tmp_path: Path) -> None:
    path = await made(tmp_path / "embeddings.db")
    async with await Store.open(path) as store:
        assert store._access.writing is not None
        pages = next(iter(await store._access.writing.execute_fetchall("PRAGMA page_count")))[0]
        await store._access.writing.execute_fetchall(f"PRAGMA max_page_count = {pages + 2}")
        with refused(DiskFull, path, "the disk is full: free some space, then try again"):
            await store.write(Write(TARGET, rows(2000, first=1)))
        assert await store.count(1) == 1
        await store._access.writing.execute_fetchall("PRAGMA max_page_count = 1000000")
        await store.write(Write(TARGET, rows(2000, first=1)))
        assert await store.count(1) == 2001


async def test_writing_to_a_store_that_was_opened_for_reading_is_refused(tmp_path: Path) -> None:
    path = await made(tmp_path / "embeddings.db")
    async with await Store.open(path, read_only=True) as store:
        with refused(DatabaseReadOnly, path, "was opened for reading only"):
            await store.write(Write(TARGET, rows(1)))


def test_a_database_that_cant_be_written_to_says_what_to_make_writable(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a)")
    # Whoever runs the tests may be allowed to write to any file: SQLite's own refusal is as real.
    with (
        closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection,
        refused(DatabaseReadOnly, path, "can't be written to: make the file and its folder writable"),
        translated(str(path)),
    ):
        connection.execute("INSERT INTO t VALUES (1)")


def test_a_file_that_cant_be_opened_says_why(tmp_path: Path) -> None:
    path = tmp_path / "no folder" / "embeddings.db"
    with refused(DatabaseUnusable, path, "can't be opened: there is no folder"), translated(str(path)):
        sqlite3.connect(path)
    with refused(DatabaseUnusable, tmp_path, "can't be opened: it is a directory"), translated(str(tmp_path)):
        sqlite3.connect(tmp_path)


def test_any_other_error_of_sqlite_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    with (
        closing(sqlite3.connect(path)) as connection,
        refused(StoreError, path, "no such table: nowhere"),
        translated(str(path)),
    ):
        connection.execute("SELECT * FROM nowhere")


async def test_reading_leaves_no_file_behind(tmp_path: Path) -> None:
    path = await made(tmp_path / "embeddings.db")
    assert listed(tmp_path) == [path]
    async with await Store.open(path, read_only=True) as store:
        assert await store.count(1) == 1
    assert listed(tmp_path) == [path]


@pytest.mark.parametrize("name", ["a b.db", "100%.db", "q?mode=memory.db", "f#1.db", "ünï.db", "%41.db"])
async def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    path = await made(tmp_path / name)
    assert listed(tmp_path) == [path]
    async with await Store.open(path, read_only=True) as store:
        assert await store.count(1) == 1
