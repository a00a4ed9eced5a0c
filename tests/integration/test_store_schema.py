"""The file that embedq makes can't be told from one of llm's, and each opens the other's."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlite_utils
from llm.embeddings_migrations import embeddings_migrations
from llm.migrations import migrate

from embedq_core.errors import DatabaseUnusable
from embedq_core.items import Item
from embedq_store import Incoming, Row, Store, Target, Write
from embedq_store.schema import LLM_MIGRATION_SET, SCHEMA_VERSION


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def llm_file(path: Path) -> Path:
    with closing(sqlite_utils.Database(path)) as database:
        embeddings_migrations.apply(database)
    return path


async def embedq_file(path: Path) -> Path:
    async with await Store.open(path) as store:
        row = Row(*Incoming.of([Item("a", "hound")])[0], b"\0\0\x80\x3f")
        await store.write(Write(Target("pets", "recording"), [row]))
    return path


SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name || tbl_name NOT LIKE '%embedq%' ORDER BY rowid"


async def test_the_tables_of_llm_are_byte_for_byte_what_llm_makes(tmp_path: Path) -> None:
    ours = query(await embedq_file(tmp_path / "ours.db"), SCHEMA)
    theirs = query(llm_file(tmp_path / "theirs.db"), SCHEMA)
    assert ours == theirs
    assert {row[1] for row in ours if row[0] == "table"} == {"_sqlite_migrations", "collections", "embeddings"}


async def test_the_rows_of_llms_migrations_are_the_ones_that_llm_writes(tmp_path: Path) -> None:
    rows = "SELECT id, migration_set, name FROM _sqlite_migrations ORDER BY id"
    ours = query(await embedq_file(tmp_path / "ours.db"), rows)
    theirs = query(llm_file(tmp_path / "theirs.db"), rows)
    assert ours == theirs
    assert len(ours) == 5


async def test_the_time_of_a_migration_is_written_in_llms_form(tmp_path: Path) -> None:
    times = (
        "SELECT DISTINCT length(applied_at), substr(applied_at, 11, 1), substr(applied_at, -6) FROM _sqlite_migrations"
    )
    ours = query(await embedq_file(tmp_path / "ours.db"), times)
    theirs = query(llm_file(tmp_path / "theirs.db"), times)
    assert [row[1:] for row in ours] == [row[1:] for row in theirs]


async def test_everything_of_embedqs_own_is_named_embedq(tmp_path: Path) -> None:
    names = {row[0] for row in query(await embedq_file(tmp_path / "ours.db"), "SELECT name FROM sqlite_master")}
    theirs = {row[0] for row in query(llm_file(tmp_path / "theirs.db"), "SELECT name FROM sqlite_master")}
    assert {name for name in names - theirs if not name.startswith(("embedq_", "sqlite_autoindex_embedq_"))} == set()


async def test_llms_migrations_find_their_work_done(tmp_path: Path) -> None:
    path = await embedq_file(tmp_path / "ours.db")
    before = dumped(path)
    with closing(sqlite_utils.Database(path)) as database:
        assert embeddings_migrations.pending(database) == []
        embeddings_migrations.apply(database)
    assert dumped(path) == before


def dumped(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


async def test_a_file_that_llm_made_opens_here_and_keeps_its_schema(tmp_path: Path) -> None:
    path = llm_file(tmp_path / "theirs.db")
    before = query(path, SCHEMA), query(path, "SELECT * FROM _sqlite_migrations")
    await embedq_file(path)
    assert (query(path, SCHEMA), query(path, "SELECT * FROM _sqlite_migrations")) == before
    assert query(path, "SELECT id FROM embeddings") == [("a",)]


async def test_a_file_that_llm_made_is_read_without_a_change(tmp_path: Path) -> None:
    path = llm_file(tmp_path / "theirs.db")
    before = path.read_bytes()
    async with await Store.open(path, read_only=True) as store:
        assert await store.collections() == []
        assert await store.dead.letters() == []
        assert await store.dead.summary() == []
    assert path.read_bytes() == before
    assert listed(tmp_path) == [path]


async def test_llms_log_database_can_hold_the_embeddings_too(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    with closing(sqlite_utils.Database(path)) as database:
        migrate(database)  # type: ignore[no-untyped-call] # llm has no type there
    await embedq_file(path)
    assert query(path, "SELECT id FROM embeddings") == [("a",)]
    with closing(sqlite_utils.Database(path)) as database:
        assert embeddings_migrations.pending(database) == []
        migrate(database)  # type: ignore[no-untyped-call] # llm has no type there
    sets = f"SELECT count(*) FROM _sqlite_migrations WHERE migration_set = '{LLM_MIGRATION_SET}'"
    assert query(path, sets) == [(5,)]


async def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = await embedq_file(tmp_path / "ours.db")
    before = dumped(path)
    async with await Store.open(path):
        pass
    assert dumped(path) == before


async def test_a_trigger_that_was_lost_is_made_again(tmp_path: Path) -> None:
    path = await embedq_file(tmp_path / "ours.db")
    names = "SELECT name FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
    before = query(path, names)
    change(path, "DROP TRIGGER embedq_embedding_deleted", "DROP TABLE embedq_dead")
    async with await Store.open(path):
        pass
    assert query(path, names) == before
    assert query(path, "SELECT count(*) FROM embedq_dead") == [(0,)]


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("done", range(1, 5))
async def test_the_schema_of_an_older_llm_is_refused_and_left_alone(tmp_path: Path, done: int, read_only: bool) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite_utils.Database(path)) as database:
        for migration in embeddings_migrations.pending(database)[:done]:
            migration.fn(database)
    before = dumped(path)
    with pytest.raises(DatabaseUnusable) as caught:
        await Store.open(path, read_only=read_only)
    assert str(caught.value).startswith(f"{path}: its table 'embeddings' lacks ")
    assert "content_blob" in str(caught.value)
    assert "Open it once with llm 0.36 or later" in str(caught.value)
    assert dumped(path) == before


@pytest.mark.parametrize("table", ["collections", "embeddings"])
async def test_another_programs_table_of_the_same_name_is_refused_and_left_alone(tmp_path: Path, table: str) -> None:
    path = tmp_path / "other.db"
    change(path, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, title TEXT)")
    before = dumped(path)
    with pytest.raises(DatabaseUnusable, match=r"other\.db: its table '\w+' lacks .* name another file"):
        await Store.open(path)
    assert dumped(path) == before


async def test_another_programs_other_tables_are_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    change(path, "CREATE TABLE notes (id INTEGER PRIMARY KEY)", "INSERT INTO notes VALUES (7)")
    await embedq_file(path)
    assert query(path, "SELECT id FROM notes") == [(7,)]


@pytest.mark.parametrize("read_only", [False, True])
async def test_the_schema_of_a_newer_embedq_is_refused(tmp_path: Path, read_only: bool) -> None:
    path = await embedq_file(tmp_path / "new.db")
    change(path, f"UPDATE embedq_schema SET version = {SCHEMA_VERSION + 1}")
    with pytest.raises(DatabaseUnusable) as caught:
        await Store.open(path, read_only=read_only)
    assert str(caught.value) == (
        f"{path}: was written by a newer embedq (schema {SCHEMA_VERSION + 1}, this one knows {SCHEMA_VERSION}): "
        "upgrade embedq"
    )


async def test_a_file_is_written_ahead_and_a_row_survives_the_writer(tmp_path: Path) -> None:
    path = await embedq_file(tmp_path / "ours.db")
    assert query(path, "PRAGMA journal_mode") == [("wal",)]


async def test_a_database_in_memory_has_the_same_tables() -> None:
    async with await Store.open() as store:
        await store.create_collection("pets", "recording")
        assert [info.name for info in await store.collections()] == ["pets"]
