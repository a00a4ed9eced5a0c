import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedq_core.errors import SourceError, UsageError
from embedq_core.items import Item
from embedq_producer.readers import Progress, Rejects, RowOptions, SqlSource, read_corpus

Read = Callable[..., tuple[list[Item], list[str]]]


@pytest.fixture
def blog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A database under a name that a URI must quote; it must come out as it went in."""
    monkeypatch.chdir(tmp_path)
    path = Path("my blog?mode=rwc#1%20é.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """
            create table posts (id integer primary key, title text, body, metadata);
            insert into posts values (1, 'One', 'first', '{"a": 1}'), (2, 'Two', null, ''), (3, null, null, 'x');
            create virtual table boxes using rtree(id, low, high);
            insert into boxes values (7, 1, 2);
            create virtual table found using fts5(title);
            insert into found values ('needle');
            """
        )
    before = path.read_bytes()
    yield path
    assert path.read_bytes() == before


def test_columns_named_id_and_content_are_used(read: Read, blog: Path) -> None:
    query = "select title as content, id, metadata from posts where id < 3"
    assert read(SqlSource(query, blog)) == ([Item("1", "One", '{"a": 1}'), Item("2", "Two")], [])


def test_otherwise_the_first_column_is_the_id_and_the_rest_the_content(read: Read, blog: Path) -> None:
    items, errors = read(SqlSource("select id, title, body, 1.5 from posts", blog), metadata=("title",))
    assert items[0] == Item("1", "first 1.5", '{"title": "One"}')
    assert errors == []


def test_rows_that_can_not_be_read_are_reported_by_number(read: Read, blog: Path) -> None:
    query = (
        "select id, title as content, metadata from posts union all select null, 'x', null "
        "union all select 'u', cast(x'ff' as text), null union all select 's', 'S', 'x'"
    )
    items, errors = read(SqlSource(query, blog))
    assert [item.id for item in items] == ["1", "2"]
    assert errors == [
        "SQL row 3, id '3': the content is null",
        "SQL row 4: the id is null",
        "SQL row 5, id 'u': column 'content' isn't UTF-8 (byte 0xff at 0): CAST it to BLOB",
        "SQL row 6, id 's': the metadata isn't the text of a JSON object",
    ]


def test_blobs_are_binary_content(read: Read) -> None:
    assert read(SqlSource("select 'a' as id, x'8950' as content")) == ([Item("a", b"\x89P")], [])
    assert read(SqlSource("select 'a', x'8950'")) == ([Item("a", b"\x89P")], [])
    assert "is binary, and can't be joined" in read(SqlSource("select 'a', x'8950', 'b'"))[1][0]


def test_databases_are_attached_under_any_alias(read: Read, blog: Path) -> None:
    source = SqlSource('select id, title from "my ""blog".posts where id = 1', None, (('my "blog', blog),))
    assert read(source) == ([Item("1", "One")], [])
    assert source.describe() == f"SQL on {blog}"
    assert read_corpus(source, RowOptions(), lambda _: None).total is None


def test_virtual_tables_can_be_asked(read: Read, blog: Path) -> None:
    query = "select rowid, title from found where found match 'needle'"
    assert read(SqlSource(query, blog)) == ([Item("1", "needle")], [])
    assert read(SqlSource("select id, low from boxes", blog)) == ([Item("7", "1.0")], [])


def test_a_database_in_wal_mode_is_read(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "wal.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("pragma journal_mode = wal; create table t (id, x); insert into t values (1, 'a')")
        assert read(SqlSource("select * from t", path)) == ([Item("1", "a")], [])


@pytest.mark.parametrize(
    "query",
    [
        "insert into posts values (9, 'x', 'y', 'z')",
        "insert into posts values (9, 'x', 'y', 'z') returning id, title",
        "update posts set title = 'x'",
        "delete from posts",
        "drop table posts",
        "create temp table t as select 1, 2",
        "attach 'other.db' as other",
        "detach main",
    ],
)
def test_a_query_that_does_more_than_read_is_refused_unrun(blog: Path, query: str) -> None:
    with pytest.raises(SourceError, match=r"^the query does more than read: only a SELECT can be used$"):
        read_corpus(SqlSource(query, blog), RowOptions(), lambda _: None)
    with pytest.raises(SourceError, match="only a SELECT can be used"):
        read_corpus(SqlSource(query.replace("posts", "b.posts"), None, (("b", blog),)), RowOptions(), lambda _: None)
    assert not Path("other.db").exists()


@pytest.mark.parametrize("query", ["pragma query_only = 0", "vacuum into 'other.db'", "begin", "reindex"])
def test_a_statement_without_rows_is_refused_unrun(blog: Path, query: str) -> None:
    with pytest.raises(SourceError, match=r"^the query (returns no rows: a|does more than read: only a) SELECT"):
        read_corpus(SqlSource(query, blog), RowOptions(), lambda _: None)
    assert not Path("other.db").exists()


@pytest.mark.parametrize(
    "query", ["vacuum into 'other.db'", "attach 'other.db' as other", "delete from posts", "pragma query_only = 0"]
)
def test_it_would_be_refused_when_it_is_run_too(blog: Path, query: str) -> None:
    with pytest.raises(SourceError, match=r"the query (returns no rows|does more than read|fails)"):
        list(SqlSource(query, blog).read(RowOptions(), Rejects(print), Progress()))
    assert not Path("other.db").exists()


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("selec 1", 'the query fails: near "selec": syntax error'),
        ("select * from nowhere", "the query fails: no such table: nowhere"),
        ("select 1, 2; select 3, 4", "the query fails: You can only execute one statement at a time"),
        ("select 1, 2 from \x1b[31m", 'the query fails: unrecognized token: "\\\\x1b"'),
        ("", "the query fails: "),
        ("select 1, '\ud800'", "the query fails: "),
        ("select 1, ?", "the query fails: "),
    ],
)
def test_a_query_that_is_none_is_answered_by_sqlite_before_it_is_run(query: str, problem: str) -> None:
    with pytest.raises(SourceError, match=f"^{problem}"):
        read_corpus(SqlSource(query), RowOptions(), lambda _: None)


def test_a_query_of_one_column_is_said(read: Read) -> None:
    with pytest.raises(SourceError, match=r"^the query has no content: .* Its columns are: id$"):
        read(SqlSource("select 1 as id"))


def test_no_rows_is_no_error(read: Read, blog: Path) -> None:
    assert read(SqlSource("select id, title from posts where id > 9", blog)) == ([], [])


def test_a_query_that_fails_midway_gives_what_came_before() -> None:
    query = (
        "select value, abs(case value when 3 then -9223372036854775807 - 1 else value end) from json_each('[1,2,3,4]')"
    )
    seen: list[str] = []
    # Python's sqlite3 steps one row ahead, so the error may take the place of the row before it.
    with pytest.raises(SourceError, match=r"fails after row [12], the rest can't be read: integer overflow"):
        seen.extend(item.id for item in read_corpus(SqlSource(query), RowOptions(), lambda _: None))
    assert seen in (["1"], ["1", "2"])


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"no database, " * 100, "file is not a database"), (b"SQLite format 3\0" + b"\xff" * 200, "")],
)
@pytest.mark.parametrize("attached", [True, False])
def test_a_file_that_is_no_database_is_said(tmp_path: Path, content: bytes, problem: str, attached: bool) -> None:
    path = tmp_path / "no.db"
    path.write_bytes(content)
    source = SqlSource("select 1, 2", None, (("a", path),)) if attached else SqlSource("select 1, 2", path)
    with pytest.raises(SourceError, match=rf"no\.db can't be opened as a database: {problem}"):
        read_corpus(source, RowOptions(), lambda _: None)


@pytest.mark.parametrize(
    ("name", "problem"), [("nothing.db", "doesn't exist"), (".", "is a directory"), ("\0", "can't be read")]
)
@pytest.mark.parametrize("attached", [True, False])
def test_a_path_that_is_no_file_is_said_and_nothing_made(
    tmp_path: Path, name: str, problem: str, attached: bool
) -> None:
    path = tmp_path / name
    source = SqlSource("select 1, 2", None, (("a", path),)) if attached else SqlSource("select 1, 2", path)
    with pytest.raises(SourceError, match=problem):
        read_corpus(source, RowOptions(), lambda _: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("aliases", [("",), ("main",), ("TEMP",), ("a", "A"), ("a\0b",)])
def test_an_alias_that_can_not_be_is_said(aliases: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="alias"):
        SqlSource("select 1, 2", None, tuple((alias, Path("x.db")) for alias in aliases))


@given(st.text(min_size=1).filter(lambda alias: alias.lower() not in ("main", "temp") and "\0" not in alias))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_any_other_alias_is_only_a_name(blog: Path, alias: str) -> None:
    quoted = alias.replace('"', '""')
    query = f'select id, title from "{quoted}".posts where id = 1'
    source = SqlSource(query, None, ((alias, blog),))
    assert list(read_corpus(source, RowOptions(), lambda _: None)) == [Item("1", "One")]


@given(st.text(max_size=30) | st.text(";select 1,'\"()*-/", max_size=20))
def test_any_query_gives_rows_or_a_source_error(query: str) -> None:
    with suppress(SourceError):
        for item in read_corpus(SqlSource(query), RowOptions(), lambda _: None):
            assert item.id
