"""Whatever the bytes are, what comes out is items, reports and errors of our own."""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import sqlite3
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedq_core.errors import EmbedqError, RowError
from embedq_producer.readers import FileSource, FilesSource, RowOptions, Source, SqlSource, read_corpus

ALPHABETS = {
    "csv": 'ab,",\n\r\0é;\t ',
    "tsv": 'ab\t"\n\r\0é ',
    "json": '[]{}",:\\u0d8 1e.-tfn\n\ufeff',
    "nl": '{}",:\\u0d8idcontent 1e\n',
}


def read_noise(source: Source, **options: Any) -> None:
    errors: list[RowError] = []
    with suppress(EmbedqError):
        for item in read_corpus(source, RowOptions(**options), errors.append):
            assert item.id
            assert item.content
    assert all(isinstance(error, RowError) for error in errors)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("noise") / "docs"


@pytest.mark.parametrize("format_name", [*ALPHABETS, None])
@given(data=st.data(), item_bytes=st.sampled_from([5, 100_000]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_noise_in_a_file_of_rows(format_name: str | None, path: Path, data: st.DataObject, item_bytes: int) -> None:
    alphabet = ALPHABETS.get(format_name or "", "".join(ALPHABETS.values()))
    noise = data.draw(st.binary(max_size=80) | st.text(alphabet, max_size=80).map(str.encode))
    head = data.draw(st.sampled_from([b"", b"id,content\n", b"id\tcontent\n", b'[{"id": "a", "content": "A"},']))
    path.write_bytes(head + noise)
    read_noise(FileSource(path, format_name), item_bytes=item_bytes)


@given(
    magic=st.sampled_from([b"\x1f\x8b\x08\x00", b"BZh91AY&SY", b"\xfd7zXZ\x00", b"PAR1"]), noise=st.binary(max_size=200)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_behind_a_magic_number(path: Path, magic: bytes, noise: bytes) -> None:
    path.write_bytes(magic + noise)
    read_noise(FileSource(path))


@given(noise=st.binary(max_size=80), binary=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_in_a_file_of_a_directory(path: Path, noise: bytes, binary: bool) -> None:
    path.write_bytes(noise)
    read_noise(FilesSource(((path.parent, "docs"),), binary))


def damaged(good: bytes, count: int) -> list[bytes]:
    rng = random.Random(1)
    copies = []
    for _ in range(count):
        copy = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            copy[rng.randrange(len(copy))] = rng.randrange(256)
        copies.append(bytes(copy[: rng.randrange(len(copy))] if rng.random() < 0.2 else copy))
    return copies


def spliced(good: bytes, count: int) -> list[bytes]:
    """Halves of the good one that are put together at other places: structure in the wrong place."""
    rng = random.Random(2)
    return [good[: rng.randrange(len(good))] + good[rng.randrange(len(good)) :] for _ in range(count)]


ROWS = [(f"id {number}", f'a "text", {number};\né') for number in range(30)]


def make_csv() -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows([("id", "content"), *ROWS])
    return out.getvalue().encode()


def make_json() -> bytes:
    return json.dumps([{"id": key, "content": text, "metadata": {"n": [1, {"m": key}]}} for key, text in ROWS]).encode()


def make_lines() -> bytes:
    return b"".join(json.dumps({"id": key, "content": text}).encode() + b"\n" for key, text in ROWS)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["", "gz", "bz2", "xz"])
@pytest.mark.parametrize(
    ("make", "format_name"), [(make_csv, "csv"), (make_json, "json"), (make_lines, "nl"), (make_csv, None)]
)
def test_damage_in_a_valid_file(
    path: Path, make: Callable[[], bytes], format_name: str | None, pack: Callable[[bytes], bytes]
) -> None:
    good = pack(make())
    path.write_bytes(good)
    assert len(list(read_corpus(FileSource(path, format_name), RowOptions(), lambda _: None))) == len(ROWS)
    for copy in [
        *damaged(good, 40),
        *spliced(good, 20),
        *spliced(good * 2, 10),
        *(good[:at] for at in range(0, 60, 7)),
    ]:
        path.write_bytes(copy)
        read_noise(FileSource(path, format_name), item_bytes=2_000)


def test_a_file_that_unpacks_to_much_more_than_it_is_takes_little_memory(path: Path) -> None:
    row = gzip.compress(b"x" * 1_000_000)
    path.write_bytes(gzip.compress(b"id,content\na,") + row * 40)
    tracemalloc.start()
    try:
        read_noise(FileSource(path, "csv"), item_bytes=100_000)
        assert tracemalloc.get_traced_memory()[1] < 15_000_000
    finally:
        tracemalloc.stop()


def make_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("create table t (id, content)")
    connection.executemany("insert into t values (?, ?)", [(number, "x" * 300) for number in range(100)])
    connection.commit()
    connection.close()


def make_parquet(path: Path) -> None:
    pq.write_table(pa.table({"id": list(range(100)), "content": ["x" * 30] * 100}), path, compression="none")


@pytest.mark.parametrize(
    ("make", "source"),
    [
        (make_database, lambda path: SqlSource("select * from t", path)),
        (make_parquet, lambda path: FileSource(path, "parquet")),
    ],
)
def test_damage_in_a_binary_file(
    tmp_path: Path, make: Callable[[Path], None], source: Callable[[Path], Source]
) -> None:
    path = tmp_path / "docs"
    make(path)
    for copy in damaged(path.read_bytes(), 100):
        path.write_bytes(copy)
        read_noise(source(path))
