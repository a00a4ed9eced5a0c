"""What is held in memory must not grow with the corpus."""

import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedq_producer.readers import FileSource, RowOptions, read_corpus

TEXT = "x" * 2000
SMALL, BIG = 1000, 20_000


def write_csv(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.write("id,content\n")
        file.writelines(f'{number},"{TEXT}"\n' for number in range(count))


def write_json_lines(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.writelines(f'{{"id": {number}, "content": "{TEXT}"}}\n' for number in range(count))


def write_json(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.write('[{"id": "first", "content": "x"}')
        file.writelines(f',{{"id": {number}, "content": "{TEXT}"}}\n' for number in range(count))
        file.write("]")


def write_one_long_line(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.write('{"id": "a", "content": "A"}\n{"id": "b", "content": "')
        file.writelines(TEXT for _ in range(count))
        file.write('"}\n')


def write_one_long_element(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.write('[{"id": "a", "content": "A"}, {"id": "b", "content": "')
        file.writelines(TEXT for _ in range(count))
        file.write('"}]')


def write_one_long_row(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.write('id,content\na,A\nb,"')
        file.writelines(f"{TEXT}\n" for _ in range(count))
        file.write('"\n')


def peak_of_reading(path: Path, options: RowOptions) -> int:
    tracemalloc.start()
    try:
        consume(read_corpus(FileSource(path), options, lambda _: None))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def consume(items: Iterable[object]) -> None:
    for _ in items:
        pass


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("d.csv", write_csv),
        ("d.jsonl", write_json_lines),
        ("d.json", write_json),
        ("line.jsonl", write_one_long_line),
        ("element.json", write_one_long_element),
        ("row.csv", write_one_long_row),
    ],
)
def test_a_file_twenty_times_as_big_takes_no_more_memory(
    tmp_path: Path, name: str, write: Callable[[Path, int], None]
) -> None:
    options = RowOptions(item_bytes=100_000)
    # The first reading also pays for what is imported and compiled once.
    peaks = []
    for count in (SMALL, SMALL, BIG):
        path = tmp_path / f"{count}{name}"
        write(path, count)
        peaks.append(peak_of_reading(path, options))
    assert path.stat().st_size > 20_000_000
    assert peaks[2] < peaks[1] + 1_500_000


def test_a_parquet_file_twenty_times_as_big_takes_no_more_memory(tmp_path: Path) -> None:
    peaks = []
    for groups in (1, 20):
        path = tmp_path / f"{groups}.parquet"
        group = pa.table({"id": list(range(1000)), "content": [f"{number} {TEXT}" for number in range(1000)]})
        with pq.ParquetWriter(path, group.schema, compression="none", use_dictionary=False) as writer:
            for _ in range(groups):
                writer.write_table(group)
        del group
        reader = read_corpus(FileSource(path), RowOptions(), lambda _: None)
        peaks.append(max(pa.total_allocated_bytes() for _ in reader))
    assert path.stat().st_size > 20 * 2_000_000
    assert peaks[1] < peaks[0] * 1.5
