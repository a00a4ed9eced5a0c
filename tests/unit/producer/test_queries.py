"""A file of queries: a text on each line, or rows as a corpus has them."""

from pathlib import Path

import pytest

from embedq_core.errors import RowError, SourceError
from embedq_producer.readers import LINES, QuerySource, Reader, RowOptions


def read(path: Path, format_: str | None = None, item_bytes: int = 1000) -> tuple[list[tuple[str, object]], list[str]]:
    errors: list[RowError] = []
    reader = Reader([QuerySource(path, format_)], RowOptions(item_bytes=item_bytes), errors.append)
    return [(item.id, item.content) for item in reader], [str(error) for error in errors]


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["queries.txt", "queries", "queries.log"])
def test_a_query_on_each_line_has_the_number_of_its_line(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, b"\xef\xbb\xbfhow, when\tand why\n\n  \n sort it \r\nlast")
    assert read(path) == ([("1", "how, when\tand why"), ("4", "sort it"), ("5", "last")], [])


@pytest.mark.parametrize(
    ("name", "format_", "data"),
    [
        ("q.csv", None, b"id,content\na,one\nb,two\n"),
        ("q.txt", "csv", b"id,content\na,one\nb,two\n"),
        ("q", None, b'{"id": "a", "content": "one"}\n{"id": "b", "content": "two"}\n'),
        ("q", None, b'[{"id": "a", "content": "one"}, {"id": "b", "content": "two"}]'),
        ("q.jsonl", None, b'{"id": "a", "content": "one"}\n{"id": "b", "content": "two"}\n'),
    ],
)
def test_rows_are_read_as_those_of_a_corpus(tmp_path: Path, name: str, format_: str | None, data: bytes) -> None:
    assert read(written(tmp_path / name, data), format_) == ([("a", "one"), ("b", "two")], [])


def test_lines_are_lines_where_that_is_said(tmp_path: Path) -> None:
    assert read(written(tmp_path / "q.csv", b'{"a"\n'), LINES) == ([("1", '{"a"')], [])


def test_wrong_lines_are_named_and_the_others_read(tmp_path: Path) -> None:
    path = written(tmp_path / "q.txt", b"one\n\xff\xfe\n" + b"x" * 2000 + b"\n" + b"y" * 70_000 + b"\nfive\n")
    queries, errors = read(path)
    assert queries == [("1", "one"), ("5", "five")]
    assert [error.split(": ")[0] for error in errors] == [f"{path} line 2", f"{path} line 3, id '3'", f"{path} line 4"]


def test_what_cant_be_read_at_all_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="doesn't exist"):
        read(tmp_path / "none.txt")
    with pytest.raises(SourceError, match="UTF-16"):
        read(written(tmp_path / "q.txt", "one\n".encode("utf-16")))
    assert read(written(tmp_path / "empty", b"")) == ([], [])
