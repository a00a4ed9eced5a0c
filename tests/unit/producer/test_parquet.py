import datetime as dt
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedq_core.errors import SourceError, UsageError
from embedq_core.items import Item
from embedq_producer.readers import FileSource, RowOptions, read_corpus

Read = Callable[..., tuple[list[Item], list[str]]]


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[..., Path]:
    def write(columns: dict[str, Any], **options: Any) -> Path:
        path = tmp_path / "docs.parquet"
        pq.write_table(pa.table(columns), path, **options)
        return path

    return write


def test_columns_named_id_and_content_are_used(read: Read, parquet: Callable[..., Path]) -> None:
    path = parquet(
        {
            "vector": [[1.0], [2.0]],
            "content": ["a", b"\xff".hex()],
            "id": [1, 2],
            "metadata": [{"x": [1.5, float("nan")], "when": dt.date(2020, 1, 2)}, None],
        }
    )
    expected = [Item("1", "a", '{"x": [1.5, null], "when": "2020-01-02"}'), Item("2", "ff")]
    assert read(FileSource(path)) == (expected, [])


def test_otherwise_all_columns_are_joined(read: Read, parquet: Callable[..., Path]) -> None:
    path = parquet(
        {
            "key": [1.0],
            "when": [dt.datetime(2020, 1, 2, 3, 4, 5)],  # noqa: DTZ001 - a time without zone is what is tested
            "price": [Decimal("1.50")],
            "score": [float("nan")],
            "flag": [True],
            "span": [dt.timedelta(seconds=5)],
        }
    )
    assert read(FileSource(path)) == ([Item("1.0", "2020-01-02T03:04:05 1.50  true 0:00:05")], [])


def test_metadata_columns_are_taken_out(read: Read, parquet: Callable[..., Path]) -> None:
    path = parquet({"key": ["a"], "when": [dt.date(2020, 1, 2)], "text": ["A"]})
    assert read(FileSource(path), metadata=("when",)) == ([Item("a", "A", '{"when": "2020-01-02"}')], [])
    with pytest.raises(UsageError, match="has no column 'wen' for the metadata"):
        read(FileSource(path), metadata=("wen",))


def test_binary_columns_are_binary_content(read: Read, parquet: Callable[..., Path]) -> None:
    assert read(FileSource(parquet({"id": ["a"], "content": [b"\x89PNG"]}))) == ([Item("a", b"\x89PNG")], [])


def test_metadata_may_be_the_text_of_an_object(read: Read, parquet: Callable[..., Path]) -> None:
    path = parquet({"id": ["a"], "content": ["A"], "metadata": ['{"x": 1}']})
    assert read(FileSource(path))[0] == [Item("a", "A", '{"x": 1}')]


def test_rows_that_are_none_are_reported_by_number(read: Read, parquet: Callable[..., Path]) -> None:
    path = parquet({"id": ["a", None, "c", "d"], "content": ["A", "B", None, "D"]}, row_group_size=2)
    items, errors = read(FileSource(path))
    assert items == [Item("a", "A"), Item("d", "D")]
    assert [error.partition("docs.parquet ")[2] for error in errors] == [
        "row 2: the id is null",
        "row 3, id 'c': the content is null",
    ]


def test_a_value_that_pyarrow_can_not_give_costs_one_row(read: Read, parquet: Callable[..., Path]) -> None:
    broken = pa.array([b"ok", b"\xff", b"too"]).view(pa.string())
    late = pa.array([0, 1, 2**60], pa.timestamp("ms"))
    items, errors = read(FileSource(parquet({"id": ["a", "b", "c"], "text": broken, "when": late})))
    assert [item.id for item in items] == ["a"]
    assert "row 2, id 'b': column 'text' can't be read ('utf-8' codec" in errors[0]
    assert "row 3, id 'c': column 'when' can't be read" in errors[1]


def test_two_columns_of_one_name_are_both_joined(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "docs.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([each]) for each in "kxy"], names=["key", "a", "a"]), path)
    assert read(FileSource(path)) == ([Item("k", "x y")], [])


def test_no_rows_is_no_error(read: Read, parquet: Callable[..., Path]) -> None:
    assert read(FileSource(parquet({"id": pa.array([], pa.string()), "content": pa.array([], pa.string())}))) == (
        [],
        [],
    )


def test_the_position_ends_at_the_size(parquet: Callable[..., Path]) -> None:
    path = parquet({"id": list(range(5000)), "content": ["A"] * 5000})
    reader = read_corpus(FileSource(path), RowOptions(), lambda _: None)
    positions = [reader.position for _ in reader]
    assert positions == sorted(positions)
    assert 0 < positions[2000] < path.stat().st_size == reader.position == reader.total


def test_what_is_no_parquet_is_said(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "docs.parquet"
    path.write_bytes(b"PAR1 no")
    with pytest.raises(SourceError, match=r"docs\.parquet isn't Parquet, or is damaged \("):
        read(FileSource(path))


def test_damage_ends_the_reading_after_what_came_before(parquet: Callable[..., Path]) -> None:
    path = parquet(
        {"id": [str(i) for i in range(4000)], "content": ["A" * 50] * 4000},
        row_group_size=2000,
        compression="gzip",
        use_dictionary=False,
    )
    data = bytearray(path.read_bytes())
    second = pq.read_metadata(path).row_group(1).column(0)
    start = second.data_page_offset
    data[start : start + second.total_compressed_size] = b"\xff" * second.total_compressed_size
    path.write_bytes(data)
    seen: list[str] = []
    with pytest.raises(SourceError, match="is damaged after row 2,000; the rest can't be read"):
        seen.extend(item.id for item in read_corpus(FileSource(path), RowOptions(), lambda _: None))
    assert seen == [str(number) for number in range(2000)]


def test_without_pyarrow_it_is_said_what_to_install(
    tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "docs.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(SourceError, match=r"needs pyarrow: pip install 'embedq\[parquet\]'"):
        read(FileSource(path))


def test_parquet_that_can_not_be_sought_in_is_refused(tmp_path: Path, read: Read, parquet: Callable[..., Path]) -> None:
    import gzip

    packed = tmp_path / "docs.parquet.gz"
    packed.write_bytes(gzip.compress(parquet({"id": ["a"], "content": ["A"]}).read_bytes()))
    with pytest.raises(SourceError, match="Parquet can't be read from a pipe or compressed"):
        read(FileSource(packed))
