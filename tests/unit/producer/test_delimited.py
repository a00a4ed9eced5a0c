import csv
import io
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_core.errors import SourceError, UsageError
from embedq_core.items import Item
from embedq_producer.readers import Rejects, RowOptions
from embedq_producer.readers.delimited import read_csv

Read = Callable[..., tuple[list[Item], list[str]]]


def test_columns_named_id_and_content_are_used(read_text: Read) -> None:
    text = '\ufeffcontent,id,metadata,other\r\n"a, ""b""\r\nc",1,"{""x"": [1]}",z\r\n\r\nd,2,,z'
    assert read_text("docs.csv", text) == ([Item("1", 'a, "b"\r\nc', '{"x": [1]}'), Item("2", "d")], [])


def test_otherwise_the_first_column_is_the_id_and_the_rest_the_content(read_text: Read) -> None:
    assert read_text("docs.tsv", "slug\ttitle\tbody\ns\tA, B\t\nt\t\tC\n") == (
        [Item("s", "A, B "), Item("t", " C")],
        [],
    )


def test_columns_can_go_into_the_metadata(read_text: Read) -> None:
    items, _ = read_text("docs.csv", "slug,lang,body\ns,en,B\n", metadata=("lang",))
    assert items == [Item("s", "B", '{"lang": "en"}')]


@pytest.mark.parametrize("text", ["", "\n\n", "id,content", "id,content\n\n"])
def test_no_rows_is_no_error(read_text: Read, text: str) -> None:
    assert read_text("docs.csv", text) == ([], [])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("x", "docs.csv line 3: has 1 cell where the header has 2"),
        ("x,y,z", "docs.csv line 3: has 3 cells where the header has 2"),
        (",y", "docs.csv line 3: the id is empty"),
        ("x,", "docs.csv line 3, id 'x': the content is empty"),
        (",", "docs.csv line 3: the id is empty"),
        (
            "x,y\rz",
            "docs.csv line 3: has a bare carriage return in a cell without quotes: quote it, or end lines with \\n",
        ),
        ('"x\ny\n"', "docs.csv line 3: has 1 cell where the header has 2"),
    ],
)
def test_a_row_that_can_not_be_read_is_reported_with_its_line(read_text: Read, row: str, problem: str) -> None:
    text = f"id,content\na,A\n{row}\nb,B\n"
    assert read_text("docs.csv", text) == ([Item("a", "A"), Item("b", "B")], [problem])


def test_metadata_in_a_cell_must_be_an_object(read_text: Read) -> None:
    items, errors = read_text("docs.csv", "id,content,metadata\na,A,[1]\nb,B,{}\nc,C,x\n")
    assert items == [Item("b", "B")]
    assert errors == [
        "docs.csv line 2, id 'a': the metadata isn't the text of a JSON object",
        "docs.csv line 4, id 'c': the metadata isn't the text of a JSON object",
    ]


def test_undecodable_bytes_cost_one_row_even_one_of_many_lines(read_text: Read) -> None:
    text = b'id,content\na,"one\ntw\xf6\nthree"\nb,B\n\xff,C\nd,D\n'
    items, errors = read_text("docs.csv", text)
    assert items == [Item("b", "B"), Item("d", "D")]
    assert [error[:39] for error in errors] == [
        "docs.csv line 2: isn't text in utf-8 (b",
        "docs.csv line 6: isn't text in utf-8 (b",
    ]


def test_other_encodings_are_tried_in_order(read_text: Read) -> None:
    text = "id,content\na,é\n".encode() + b"b,\xe9\n"
    assert read_text("docs.csv", text, encodings=("utf-8", "latin-1")) == ([Item("a", "é"), Item("b", "é")], [])


def test_nul_bytes_are_text(read_text: Read) -> None:
    assert read_text("docs.csv", "id,content\na,x\0y\n") == ([Item("a", "x\0y")], [])


def test_a_cell_beyond_the_limit_of_the_csv_module_is_read(read_text: Read) -> None:
    items, errors = read_text("docs.csv", f"id,content\na,{'x' * 200_000}\n")
    assert (len(items[0].content), errors) == (200_000, [])


@pytest.mark.parametrize(
    "long",
    [
        "x," + "y" * 3_000_000,
        'x,"' + "y\n" * 500_000 + '"',
        'x,"' + 'y""\n' * 200_000 + '"',
        'x,"' + "y" * 3_000_000 + '\nb,"" no row,\n"',
    ],
    ids=["one line", "many lines", "quotes", "a long line, then others"],
)
def test_a_row_beyond_the_limit_is_skipped_unread(read_text: Read, long: str) -> None:
    items, errors = read_text("docs.csv", f"id,content\na,A\n{long}\nb,B\n", item_bytes=1000)
    assert items == [Item("a", "A"), Item("b", "B")]
    assert errors == ["docs.csv line 3: is larger than 1,000 bytes: split it, or raise EMBEDQ_ITEM_BYTES"]


@pytest.mark.parametrize("rest", ['b,"B\nc,C\n', 'b,"' + "B" * 200_000, 'b,"' + "B\n" * 200_000])
def test_a_quote_that_is_never_closed_ends_the_reading(read_text: Read, rest: str) -> None:
    with pytest.raises(SourceError, match=r"^docs\.csv line 3: a quote in this row is never closed"):
        read_text("docs.csv", "id,content\na,A\n" + rest, item_bytes=1000)


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("id", "docs.csv has no content: an id and at least one more column that isn't metadata are needed"),
        ("id;content", "docs.csv has one column only; its cells seem to be separated by semicolons"),
        ("id\tcontent", "docs.csv has one column only; its cells seem to be separated by tabs: try --format tsv"),
        ("content,title", "docs.csv has no id: the first column is 'content'"),
        ("id,content,content", "docs.csv has 2 columns named 'content'; rename one"),
        (b"id,caf\xe9", "docs.csv: the header isn't text in utf-8"),
        ('id,"content', "docs.csv line 1: a quote in this row is never closed"),
        ("id,a\rb", "docs.csv: the header has a bare carriage return"),
        ("i" * 2_000_000, "docs.csv: the header is larger than"),
    ],
)
def test_a_header_that_makes_no_items_is_an_error(read_text: Read, header: str | bytes, problem: str) -> None:
    with pytest.raises(SourceError) as caught:
        read_text("docs.csv", header, item_bytes=1000)
    assert str(caught.value).startswith(problem)


def test_two_columns_of_one_name_that_are_only_joined_are_both_joined(read_text: Read) -> None:
    assert read_text("docs.csv", "key,a,a\n1,x,y\n") == ([Item("1", "x y")], [])


def test_a_metadata_column_that_is_not_there_is_asked_wrongly(read_text: Read) -> None:
    with pytest.raises(UsageError, match=r"docs\.csv has no column 'land' .* Did you mean 'lang'\? Its columns"):
        read_text("docs.csv", "slug,lang,body\ns,en,B\n", metadata=("land",))


CELLS = st.text(st.sampled_from('ab",\n\r\t é\0'), max_size=6)


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=6))
def test_what_the_csv_module_writes_is_read_back(rows: list[list[str]]) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([["id", "content", "other"], *rows])
    raw: Any = io.BytesIO(buffer.getvalue().encode())
    stream = io.BufferedReader(raw)
    items = read_csv(stream, "docs.csv", RowOptions(), Rejects(lambda _: None))
    assert [(item.id, item.content) for item in items] == [(a, b) for a, b, _ in rows if a.strip() and b]
