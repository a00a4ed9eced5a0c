import bz2
import gzip
import io
import lzma
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from embedq_core.errors import SourceError, UsageError
from embedq_core.items import Item
from embedq_producer.readers import FileSource, RowOptions, read_corpus

Read = Callable[..., tuple[list[Item], list[str]]]
ROWS = [Item("a", "A"), Item("b", "B")]
TEXTS = {
    "csv": "id,content\na,A\nb,B\n",
    "tsv": "id\tcontent\na\tA\nb\tB\n",
    "json": '[{"id": "a", "content": "A"}, {"id": "b", "content": "B"}]',
    "nl": '{"id": "a", "content": "A"}\n{"id": "b", "content": "B"}\n',
}


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        ("d.csv", "csv"),
        ("d.TSV", "tsv"),
        ("d.tab", "tsv"),
        ("d.json", "json"),
        ("d.jsonl", "nl"),
        ("d.ndjson", "nl"),
        ("d.nl", "nl"),
        ("d.csv.gz", "csv"),
    ],
)
def test_the_name_tells_the_format(read_text: Read, name: str, format_name: str) -> None:
    assert read_text(name, TEXTS[format_name]) == (ROWS, [])


@pytest.mark.parametrize("format_name", TEXTS)
@pytest.mark.parametrize("before", ["", "\ufeff"])
def test_else_the_first_bytes_tell_it(read_text: Read, format_name: str, before: str) -> None:
    assert read_text("docs.txt", before + TEXTS[format_name]) == (ROWS, [])


@pytest.mark.parametrize("format_name", TEXTS)
def test_a_format_that_is_named_is_believed(read_text: Read, format_name: str) -> None:
    assert read_text("docs.dat", TEXTS[format_name], format_name) == (ROWS, [])
    assert read_text("docs.parquet.csv", TEXTS[format_name], format_name) == (ROWS, [])


def test_what_nothing_tells_is_said(read_text: Read) -> None:
    with pytest.raises(SourceError, match=r"docs\.txt is in no format that can be told: .* csv\|tsv\|json\|nl\|parq"):
        read_text("docs.txt", "hello\nworld\n")


@pytest.mark.parametrize("text", ["", "\ufeff", " \n\n"])
@pytest.mark.parametrize("name", ["d", "d.csv", "d.json", "d.jsonl", "d.parquet", "d.csv.gz"])
def test_nothing_in_it_is_no_error(read_text: Read, name: str, text: str) -> None:
    if not (name == "d.parquet" and text):
        assert read_text(name, text) == ([], [])


def test_an_unknown_format_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'jsn' is no format\. Did you mean 'json'\? There are: csv, tsv,"):
        FileSource(None, "jsn")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["docs.csv", "docs.csv.gz", "docs"])
def test_compressed_files_are_unpacked_whatever_they_are_called(
    read_text: Read, pack: Callable[[bytes], bytes], name: str
) -> None:
    assert read_text(name, pack(TEXTS["csv"].encode())) == (ROWS, [])
    assert read_text(name, pack(b"")) == ([], [])


def test_a_text_that_begins_like_a_compressed_file_is_text(read_text: Read) -> None:
    assert read_text("docs.csv", "BZh,content\na,A\nb,B\n") == (ROWS, [])


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_data_that_breaks_off_is_said(read_text: Read, pack: Callable[[bytes], bytes]) -> None:
    text = "".join(f'{{"id": "{os.urandom(20).hex()}", "content": "A"}}\n' for _ in range(20_000))
    packed = pack(text.encode())
    with pytest.raises(SourceError, match=r"docs\.jsonl: the compressed data is damaged or cut short|any further"):
        read_text("docs.jsonl", packed[: len(packed) // 2])
    with pytest.raises(SourceError, match=r"docs\.jsonl: the compressed data is damaged or cut short|any further"):
        read_text("docs.jsonl", packed[:30] + b"\xff" * 2000)


@pytest.mark.parametrize(("magic", "kind"), [(b"\x28\xb5\x2f\xfd", "zstd"), (b"PK\x03\x04", "zip")])
def test_what_can_not_be_unpacked_is_named(read_text: Read, magic: bytes, kind: str) -> None:
    with pytest.raises(SourceError, match=f"is compressed with {kind}: unpack it first"):
        read_text("docs.jsonl", magic + b"rest")


def test_utf_16_is_told_how_to_become_utf_8(read_text: Read) -> None:
    with pytest.raises(SourceError, match=r"docs\.csv is in UTF-16: convert it first"):
        read_text("docs.csv", TEXTS["csv"].encode("utf-16"))


@pytest.mark.parametrize("name", ["utf-16", "utf-32"])
def test_an_encoding_in_which_lines_can_not_be_told_apart_is_refused(read_text: Read, name: str) -> None:
    with pytest.raises(UsageError, match=f"lines in {name} can't be told apart"):
        read_text("docs.csv", TEXTS["csv"], encodings=(name,))


@pytest.mark.parametrize("name", ["klingon", "hex", "", "a\0b"])
def test_what_is_no_encoding_is_said(name: str) -> None:
    with pytest.raises(UsageError, match="is no encoding of text"):
        RowOptions(encodings=(name,))


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="can't be limited to 0 bytes"):
        RowOptions(item_bytes=0)


def test_a_file_that_is_not_there_is_said_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nothing\\x1b\.csv doesn't exist$"):
        read_corpus(FileSource(tmp_path / "nothing\x1b.csv"), RowOptions(), lambda _: None)


def test_a_directory_is_said_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is a directory: name a file, or use --files"):
        read_corpus(FileSource(tmp_path), RowOptions(), lambda _: None)


def test_a_file_that_may_not_be_read_is_said_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "docs.csv"
    path.touch()
    # root, under whom tests may run, may read everything.
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(SourceError, match=r"docs\.csv can't be read: permission denied$"):
        read_corpus(FileSource(path), RowOptions(), lambda _: None)


def test_a_file_that_goes_away_meanwhile_is_said(tmp_path: Path) -> None:
    path = tmp_path / "docs.csv"
    path.touch()
    reader = read_corpus(FileSource(path), RowOptions(), lambda _: None)
    path.unlink()
    with pytest.raises(SourceError, match="doesn't exist"):
        list(reader)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "f/g"])
def test_any_name_that_can_not_be_opened_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(SourceError, match="can't be read: "):
        read_corpus(FileSource(tmp_path / name), RowOptions(), lambda _: None)


class Stdin:
    def __init__(self, buffer: io.BufferedIOBase) -> None:
        self.buffer = buffer


@pytest.mark.parametrize("format_name", TEXTS)
def test_standard_input_is_read(read: Read, monkeypatch: pytest.MonkeyPatch, format_name: str) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(io.BytesIO(TEXTS[format_name].encode())))
    assert read(FileSource(None)) == (ROWS, [])


def test_standard_input_has_a_name_and_no_size() -> None:
    assert FileSource(None).describe() == "standard input"
    assert FileSource(None).size() is None


def test_standard_input_that_is_not_there_is_said(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SourceError, match="there is no standard input to read"):
        read(FileSource(None))


def test_what_a_pipe_has_is_given_without_waiting_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    out, into = os.pipe()
    with os.fdopen(out, "rb") as source, os.fdopen(into, "wb", buffering=0) as sink:
        monkeypatch.setattr(sys, "stdin", Stdin(source))
        reader = iter(read_corpus(FileSource(None), RowOptions(), lambda _: None))
        sink.write(TEXTS["nl"].encode())
        assert [next(reader), next(reader)] == ROWS
        sink.write(b'{"id": "c", "content": "C"}\n')
        assert next(reader) == Item("c", "C")
        sink.close()
        assert list(reader) == []


def test_a_named_pipe_is_read(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(TEXTS["csv"],))
    writer.start()
    assert FileSource(path).size() is None
    assert read(FileSource(path)) == (ROWS, [])
    writer.join()


def test_a_name_can_not_reach_the_terminal_as_a_command(read_text: Read) -> None:
    _, errors = read_text("\x1b[31m.csv", "id,content\n,A\n")
    assert errors == ["\\x1b[31m.csv line 2: the id is empty"]
