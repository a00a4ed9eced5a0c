"""Collections into files and back, and to other names: what arrives is what was there, bit for bit."""

import asyncio
import errno
import gc
import gzip
import io
import json
import os
import sqlite3
import stat
import zipfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import embedq_store.renaming
from embedq.transfer.entry_files import Shape, strict_metadata
from embedq.transfer.exporting import Exported, ExportRequest, export, written_whole
from embedq.transfer.importing import Imported, ImportRequest, import_file
from embedq_core.configuration import Configuration
from embedq_core.digests import content_hash
from embedq_core.errors import (
    BadVectors,
    CollectionExists,
    ConfigurationMismatch,
    EmbedqError,
    ModelMismatch,
    NoModel,
    SourceError,
    StoreError,
    UsageError,
)
from embedq_core.items import Item
from embedq_core.parts import parts_of
from embedq_core.vectors import encode
from embedq_store import Moved, Row, Store, StoredEntry, Target, Write
from embedq_store.letters import DeadLetter

T = TypeVar("T")

CONFIGURATION: Configuration = {"document_prefix": "passage: ", "dimensions": 3, "normalise": True}
FORMS = [
    ("c.jsonl", Shape()),
    ("c.jsonl", Shape(base64=True)),
    ("c.parquet", Shape()),
    ("c.npz", Shape()),
]


def in_store(path: Path, work: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        async with await Store.open(path) as store:
            return await work(store)

    return asyncio.run(run())


def entry(id_: str, content: str | bytes | None = None, metadata: str | None = None, **other: Any) -> StoredEntry:
    digest = other.pop("digest", None if content is None else content_hash(content))
    return StoredEntry(id_, other.pop("vector", encode([1.0, -0.0, 1e-45])), content, digest, metadata, 1_700_000_000)


ODD = [
    entry("plain", "text"),
    *(
        entry(item.id, item.content, item.metadata)
        for item in parts_of(Item("doc", "one two"), [(0, "one"), (4, "two")])
    ),
    entry("a/ü é😀\n'\"\\#", "line\r\nline\u2028 \0 end", '{"k":1,  "k": 2}'),
    entry("bytes", b"\0\xff\xfe", '{"nan": NaN, "deep": [Infinity, {"x": null}]}'),
    entry("vector only", digest=b"0123456789abcdef", vector=encode([0.1, 3.4e38, 1 / 3])),
    entry("no hash", vector=encode([7, 8, 9])),
    entry("pretty", "p", '{\n  "a": "\\ud83d"\n}'),
    entry("no object", "n", "null"),
    entry("Z", "z", "")._replace(updated=None),
]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A database with a collection of all kinds of entries, and one that is empty."""
    path = tmp_path / "here.db"

    async def fill(store: Store) -> None:
        await store.transfer.write(Target("odd", "recording", CONFIGURATION), ODD)
        await store.create_collection("empty", "recording")

    in_store(path, fill)
    return path


def all_of(path: Path, collection: str) -> dict[str, Any]:
    """Everything that the database holds of a collection."""
    db = sqlite3.connect(path)
    try:
        key, model = db.execute("SELECT id, model FROM collections WHERE name = ?", (collection,)).fetchone()
        columns = "id, embedding, content, content_blob, content_hash, metadata, updated"
        return {
            "model": model,
            "configuration": db.execute(
                "SELECT configuration FROM embedq_configurations WHERE collection_id = ?", (key,)
            ).fetchall(),
            "rows": db.execute(
                f"SELECT {columns} FROM embeddings WHERE collection_id = ? ORDER BY id", (key,)
            ).fetchall(),
        }
    finally:
        db.close()


def out(database: Path, name: str, collection: str = "odd", shape: Shape = Shape(), **options: Any) -> Path:  # noqa: B008 - frozen
    path = database.parent / name
    request = ExportRequest(
        collection, str(path), None, shape, options.pop("prefix", ""), options.pop("overwrite", False), database
    )
    export(request)
    return path


def into(database: Path, file: Path, collection: str = "odd", **options: Any) -> Imported:
    return import_file(
        ImportRequest(
            str(file),
            collection,
            options.pop("format", None),
            options.pop("model", None),
            options.pop("replace", False),
            database,
        )
    )


@pytest.mark.parametrize(("name", "shape"), FORMS)
def test_what_comes_back_is_what_was_there(here: Path, tmp_path: Path, name: str, shape: Shape) -> None:
    file, there = out(here, name, shape=shape), tmp_path / "there.db"
    assert into(there, file) == Imported("odd", "recording", len(ODD), 0, 0)
    assert all_of(there, "odd") == all_of(here, "odd")
    assert len(all_of(there, "odd")["rows"]) == len(ODD)
    assert into(there, file) == Imported("odd", "recording", 0, 0, len(ODD))
    assert into(there, out(here, f"empty-{name}", "empty", shape), "empty") == Imported("empty", "recording", 0, 0, 0)
    assert all_of(there, "empty") == all_of(here, "empty")
    # What is written with the configuration of the file is refused in another.
    write = Write(Target("odd", "recording", {}), [Row(Item("x", "x"), content_hash("x"), encode([1, 2, 3]))])
    with pytest.raises(ConfigurationMismatch):
        in_store(there, lambda store: store.write(write))


def test_the_file_is_what_its_readers_expect(here: Path) -> None:
    file = out(here, "c.npz")
    with np.load(file) as loaded:
        assert loaded["ids"].tolist() == sorted(each.id for each in ODD)
        assert loaded["vectors"].shape == (len(ODD), 3)
        assert loaded["vectors"].dtype == np.float32
    table = pq.read_table(out(here, "c.parquet"))
    assert table["embedding"].type == pa.list_(pa.float32(), 3)
    rows = [json.loads(line) for line in out(here, "c.jsonl").read_text().split("\n")[:-1]]
    assert rows[0]["embedq_collection"]["model"] == "recording"
    by_id = {row["id"]: row for row in rows}
    assert by_id["doc#1"]["content"] == "two"
    assert by_id["doc#1"]["metadata"]["part"] == 1
    assert np.array(by_id["vector only"]["embedding"], np.float32).tobytes() == encode([0.1, 3.4e38, 1 / 3])
    assert [row["id"] for row in rows] == sorted(each.id for each in ODD)


def test_only_what_has_the_prefix_is_exported(here: Path, tmp_path: Path) -> None:
    into(tmp_path / "there.db", out(here, "c.jsonl", prefix="doc#"))
    assert [row[0] for row in all_of(tmp_path / "there.db", "odd")["rows"]] == ["doc#0", "doc#1"]


def test_an_export_is_of_one_moment(here: Path) -> None:
    async def run(store: Store) -> list[str]:
        found: list[str] = []
        async with store.transfer.snapshot(await store.collection("odd")) as snapshot:
            assert (await snapshot.figures()).entries == len(ODD)
            await store.transfer.write(Target("odd", "recording", CONFIGURATION), [entry("later")])
            async for page in snapshot.pages():
                found += [each.id for each in page]
        return found

    assert in_store(here, run) == sorted(each.id for each in ODD)


def interrupted(path: Path) -> None:
    with written_whole(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt


def test_an_export_that_ends_early_leaves_nothing_and_overwrites_nothing(here: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "x")
    in_store(here, lambda store: store.transfer.write(Target("odd", "recording"), [entry("nul\0")]))
    with pytest.raises(UsageError, match="an id holds a NUL"):
        out(here, "c.npz")
    with pytest.raises(SourceError, match="can't be written: no such file or directory"):
        out(here, "no/c.npz")
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "c.jsonl").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        out(here, "c.jsonl")
    assert (tmp_path / "c.jsonl").read_text() == "mine"
    out(here, "c.jsonl", overwrite=True)
    assert "nul" in (tmp_path / "c.jsonl").read_text()


def test_a_file_that_is_overwritten_keeps_its_permissions_and_a_link_to_it_stays(here: Path, tmp_path: Path) -> None:
    file = tmp_path / "real.jsonl"
    file.write_text("mine")
    file.chmod(0o640)
    (tmp_path / "c.jsonl").symlink_to("real.jsonl")
    with pytest.raises(UsageError, match="is there already"):
        out(here, "c.jsonl")
    out(here, "c.jsonl", overwrite=True)
    assert (tmp_path / "c.jsonl").is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.read_bytes() == out(here, "d.jsonl").read_bytes()


def test_what_is_no_file_is_written_to_as_it_is(here: Path, tmp_path: Path) -> None:
    whole = out(here, "d.jsonl").read_bytes()
    os.mkfifo(tmp_path / "c.jsonl")
    # Open for both, it waits for nobody; the whole fits into it.
    descriptor = os.open(tmp_path / "c.jsonl", os.O_RDWR)
    out(here, "c.jsonl")
    assert os.read(descriptor, len(whole) + 1) == whole
    os.close(descriptor)
    # As a shell names the end of a pipe, such as /dev/stdout: what such a link says is no path.
    reading, writing = os.pipe()
    (tmp_path / "p.jsonl").symlink_to(f"/dev/fd/{writing}")
    out(here, "p.jsonl")
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == whole
    (tmp_path / "e.jsonl").mkdir()
    with pytest.raises(SourceError, match="can't be written: is a directory"):
        out(here, "e.jsonl", overwrite=True)
    with pytest.raises(SourceError, match="can't be written: file name too long"):
        out(here, f"{'x' * 300}.jsonl")


class Unread(io.RawIOBase):
    """A pipe that nobody reads any more."""

    def writable(self) -> bool:
        return True

    def write(self, _: object) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_an_export_that_nobody_reads_ends_in_silence(
    here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=Unread()))
    request = ExportRequest("odd", "-", None, Shape(), "", overwrite=False, database=here)
    with pytest.raises(BrokenPipeError):
        export(request)
    gc.collect()
    assert caplog.records == []


def test_without_vectors_there_is_what_submit_reads(here: Path, tmp_path: Path) -> None:
    shape = Shape(vectors=False)
    with pytest.raises(UsageError, match="binary contents can't be submitted"):
        out(here, "c.jsonl", shape=shape)
    with pytest.raises(UsageError, match="both texts and bytes"):
        out(here, "c.parquet", shape=shape)
    with pytest.raises(UsageError, match="npz is for vectors"):
        out(here, "c.npz", shape=shape)
    texts = [each for each in ODD if not isinstance(each.content, bytes)]
    in_store(here, lambda store: store.transfer.write(Target("texts", "recording"), texts))
    in_store(here, lambda store: store.transfer.write(Target("blobs", "recording"), [entry("b", b"\xff")]))
    request = ExportRequest("texts", str(tmp_path / "t.jsonl"), None, shape, "", False, here)
    with_content = [each for each in texts if each.content is not None]
    assert export(request) == Exported("texts", request.file, "jsonl", len(with_content), 2)
    rows = [json.loads(line) for line in Path(request.file).read_text().split("\n")[:-1]]
    assert {row["id"]: row["content"] for row in rows} == {each.id: each.content for each in with_content}
    out(here, "t.parquet", "texts", shape)
    assert pq.read_table(tmp_path / "t.parquet").to_pylist()[0] == {"id": "Z", "content": "z", "metadata": None}
    out(here, "b.parquet", "blobs", shape)
    assert pq.read_table(tmp_path / "b.parquet").to_pylist()[0]["content"] == b"\xff"
    with pytest.raises(SourceError, match="has no embedding: 'embedq submit"):
        into(here, tmp_path / "t.jsonl", "new")
    with pytest.raises(SourceError, match="has no column 'embedding': 'embedq submit"):
        into(here, tmp_path / "t.parquet", "new")


def test_metadata_of_other_tools_becomes_strict_json_for_submit() -> None:
    text = strict_metadata('{"a": NaN, "b": [-Infinity, 1], "c": {"d": 1.5}}')
    assert msgspec.json.decode(text or "") == {"a": None, "b": [None, 1], "c": {"d": 1.5}}
    assert strict_metadata('{"a":  1}') == '{"a":  1}'
    assert strict_metadata("null") is None


def test_what_differs_is_replaced_only_when_that_is_said(here: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.db"
    file = out(here, "c.jsonl")
    into(there, file)
    changed = ODD[0]._replace(metadata='{"changed": true}')
    in_store(there, lambda store: store.transfer.write(Target("odd", "recording"), [changed], replace=True))
    assert in_store(there, lambda store: store.transfer.write(Target("odd", "recording"), [ODD[0]])) == (0, 0)
    before = all_of(there, "odd")
    with pytest.raises(UsageError, match="has 1 entry of the file's ids with another content"):
        into(there, file)
    assert all_of(there, "odd") == before
    assert into(there, file, replace=True) == Imported("odd", "recording", 0, 1, len(ODD) - 1)
    assert all_of(there, "odd") == all_of(here, "odd")


def test_an_import_that_was_killed_goes_on(here: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.db"
    in_store(there, lambda store: store.transfer.write(Target("odd", "recording", CONFIGURATION), ODD[3:6]))
    assert into(there, out(here, "c.parquet")) == Imported("odd", "recording", len(ODD) - 3, 0, 3)
    assert all_of(there, "odd") == all_of(here, "odd")


def test_models_are_never_mixed(here: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.db"
    file = out(here, "c.npz")
    in_store(there, lambda store: store.create_collection("odd", "hashing"))
    with pytest.raises(ModelMismatch, match="were made with recording, and the collection has hashing"):
        into(there, file)
    with pytest.raises(ModelMismatch, match="were made with recording, and -m names hashing"):
        into(there, file, "new", model="hashing")
    in_store(there, lambda store: store.transfer.write(Target("other", "recording", {}), [entry("x")]))
    with pytest.raises(ConfigurationMismatch):
        into(there, file, "other")
    in_store(
        there,
        lambda store: store.transfer.write(
            Target("four", "recording", CONFIGURATION), [entry("x", vector=encode([1] * 4))]
        ),
    )
    with pytest.raises(BadVectors, match="3 dimensions, where others have 4"):
        into(there, file, "four")
    for name in ("odd@next", " ", "odd@copying", "odd@removing-7"):
        with pytest.raises(UsageError):
            into(there, file, name)


def line(**fields: Any) -> str:
    return json.dumps({"id": "x", "content": "x", "embedding": [1.0, 2.0]} | fields, ensure_ascii=False)


@pytest.mark.parametrize(
    ("lines", "error", "problem"),
    [
        ([line(), line(id="y", embedding=[1.0])], BadVectors, "'y' has a vector of 1 dimensions, where others have 2"),
        ([line(embedding=[1.0, 1e39])], BadVectors, "vector of 'x' holds NaN or infinity"),
        ([line(embedding_base64="AAAAAAAAgH8=")], BadVectors, "vector of 'x' holds NaN or infinity"),
        ([line(embedding_base64="AAA=")], SourceError, "isn't made of 32-bit floats"),
        ([line(content_hash="00" * 16)], SourceError, "the hash is that of another content"),
        ([line(content_hash="xx")], SourceError, "line 1: its content_hash is no hexadecimal"),
        ([line(metadata=5)], SourceError, "line 1: its metadata is no object"),
        ([line(metadata={"a": "\xff"})], SourceError, "line 1: its metadata is not text in UTF-8"),
        ([line(updated=2**64 - 1)], SourceError, "'x': its time can't be stored"),
        ([line(), line()], SourceError, "1 id more than once"),
        ([line(), '{"id": '], SourceError, "line 2 is no entry"),
        ([line(), '{"content": "x", "embedding": [1, 2]}'], SourceError, "line 2: has no id"),
        ([line(id="")], SourceError, "the id is empty"),
        ([line(), line(id="y", embedding=None)], SourceError, "line 2: has no embedding"),
        ([line(embedq_collection={"embedq_export": 2})], SourceError, "another version of embedq"),
    ],
)
def test_a_file_that_can_not_be_stored_whole_changes_nothing(
    tmp_path: Path, lines: list[str], error: type[EmbedqError], problem: str
) -> None:
    file = tmp_path / "c.jsonl"
    # As Latin-1, what is not ASCII is no UTF-8.
    file.write_bytes("\n".join(lines).encode("latin-1"))
    with pytest.raises(error, match=problem):
        into(tmp_path / "there.db", file, model="hashing")
    assert in_store(tmp_path / "there.db", lambda store: store.collections()) == []


def test_files_of_other_tools_are_read_with_a_model_that_is_named(tmp_path: Path) -> None:
    there, vectors = tmp_path / "there.db", np.array([[1, 2], [3, 4]], np.float64)
    np.savez(tmp_path / "c.npz", ids=np.array(["a", "b"]), vectors=vectors)
    (tmp_path / "c.jsonl").write_text('{"id": 7, "embedding": [1, 2], "metadata": {"a":1}, "more": []}\n')
    lists = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64()))
    columns = {"id": ["a", "b"], "embedding": lists, "content": ["x", None], "metadata": [{"k": 1}, None]}
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")
    with pytest.raises(NoModel, match="name it with -m"):
        into(there, tmp_path / "c.npz", "n")
    for name in ("npz", "jsonl", "parquet"):
        into(there, tmp_path / f"c.{name}", name, model="hashing")
    rows = all_of(there, "npz")["rows"]
    assert rows == [("a", encode([1, 2]), *[None] * 5), ("b", encode([3, 4]), *[None] * 5)]
    assert all_of(there, "jsonl")["rows"] == [("7", encode([1, 2]), None, None, None, '{"a":1}', None)]
    first, second = all_of(there, "parquet")["rows"]
    assert first == ("a", encode([1, 2]), "x", None, content_hash("x"), '{"k": 1}', None)
    assert second == ("b", encode([3, 4]), *[None] * 5)
    assert into(there, tmp_path / "c.parquet", "parquet") == Imported("parquet", "hashing", 0, 0, 2)


@pytest.fixture
def piped() -> Iterator[Callable[[bytes], Path]]:
    """A pipe out of which these bytes come, once; by the name that a shell gives to `<(command)`."""
    with ExitStack() as stack:

        def give(data: bytes) -> Path:
            reading, writing = os.pipe()
            stack.callback(os.close, reading)
            with os.fdopen(writing, "wb") as pipe:  # they are few enough to stand in it before anybody reads
                pipe.write(data)
            return Path(f"/dev/fd/{reading}")

        yield give


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
def test_what_comes_out_of_a_pipe_is_checked_and_written_like_a_file(
    here: Path, tmp_path: Path, piped: Callable[[bytes], Path], packed: Callable[[bytes], bytes]
) -> None:
    file, there = out(here, "c.jsonl"), tmp_path / "elsewhere" / "there.db"
    assert into(there, piped(packed(file.read_bytes())), format="jsonl") == Imported("odd", "recording", len(ODD), 0, 0)
    assert all_of(there, "odd") == all_of(here, "odd")
    empty = out(here, "none.jsonl", "empty").read_bytes()
    assert into(there, piped(empty), "empty", format="jsonl") == Imported("empty", "recording", 0, 0, 0)
    assert all_of(there, "empty")["model"] == "recording"
    # What was kept of it is gone.
    assert [path.name for path in there.parent.iterdir() if not path.name.startswith("there.db")] == []


def test_a_pipe_that_ended_before_its_time_changes_nothing(
    here: Path, tmp_path: Path, piped: Callable[[bytes], Path]
) -> None:
    lines = out(here, "c.jsonl").read_bytes().splitlines(keepends=True)
    there = tmp_path / "there.db"
    for left, problem in (
        (lines[:-1], rf"/dev/fd/\d+ ended after {len(ODD) - 1} of {len(ODD)} entries: nothing was imported"),
        ([*lines[:-1], lines[-1][:20]], rf"/dev/fd/\d+ line {len(ODD)} is no entry"),
        ([], r"/dev/fd/\d+ was empty: nothing was imported"),
    ):
        with pytest.raises(SourceError, match=problem):
            into(there, piped(b"".join(left)), format="jsonl")
    assert in_store(there, lambda store: store.collections()) == []
    # In a file, whoever has put it there may have left some out.
    (tmp_path / "fewer.jsonl").write_bytes(b"".join(lines[:-1]))
    assert into(there, tmp_path / "fewer.jsonl").new == len(ODD) - 1
    with pytest.raises(SourceError, match=r"can't be kept in .*fewer.jsonl until it is checked: "):
        into(tmp_path / "fewer.jsonl" / "there.db", piped(b"".join(lines)), format="jsonl")


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"ids": np.array(["a"])}, "has no array 'vectors'"),
        ({"ids": np.array([1]), "vectors": np.ones((1, 2))}, "'ids' must be texts"),
        ({"ids": np.array(["a"]), "vectors": np.ones(2)}, "a matrix of floats"),
        ({"ids": np.array(["a"]), "vectors": np.ones((2, 2))}, "has 1 ids and 2 vectors"),
        ({"ids": np.array(["a"]), "vectors": np.asfortranarray(np.ones((2, 2)))}, "column by column"),
    ],
)
def test_arrays_that_hold_no_entries_are_explained(tmp_path: Path, arrays: dict[str, Any], problem: str) -> None:
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(SourceError, match=problem):
        into(tmp_path / "there.db", tmp_path / "c.npz", "n", model="hashing")


@pytest.mark.parametrize("name", ["c.npz", "c.parquet"])
def test_a_damaged_file_is_explained(here: Path, tmp_path: Path, name: str) -> None:
    file = out(here, name)
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(SourceError, match="or is damaged"):
        into(tmp_path / "there.db", file)


def test_packed_data_that_is_damaged_is_explained(here: Path, tmp_path: Path) -> None:
    file = out(here, "c.npz")
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo("entries.jsonl").header_offset + 60
    data = bytearray(file.read_bytes())
    data[start : start + 10] = bytes(255 - byte for byte in data[start : start + 10])
    file.write_bytes(data)
    with pytest.raises(SourceError, match="or is damaged"):
        into(tmp_path / "there.db", file)


# --- other names


def test_a_collection_is_renamed_with_its_dead_letters(here: Path) -> None:
    letter = DeadLetter("r", 0, "odd", "bad", "bad", None, "recording", "E", "m", 1, 1.0)
    before = all_of(here, "odd")

    async def run(store: Store) -> list[str]:
        await store.write(Write(Target("odd", "recording"), dead=[letter]))
        with pytest.raises(CollectionExists):
            await store.transfer.rename("odd", "empty")
        with pytest.raises(UsageError):
            await store.transfer.rename("odd", "new@previous")
        await store.transfer.rename("odd", "new")
        await store.delete_collection((await store.collection("new")).id)
        with pytest.raises(CollectionExists, match="dead letters for a collection 'new'"):
            await store.transfer.rename("empty", "new")
        return [each.collection for each in await store.dead.letters()]

    copied = here.with_name("copied.db")
    copied.write_bytes(here.read_bytes())
    in_store(copied, lambda store: store.transfer.rename("odd", "new"))
    assert all_of(copied, "new") == before
    assert in_store(here, run) == ["new"]


def test_what_is_being_embedded_anew_is_not_renamed(here: Path) -> None:
    in_store(here, lambda store: store.create_collection("odd@next", "hashing"))
    with pytest.raises(StoreError, match="is being embedded anew"):
        in_store(here, lambda store: store.transfer.rename("odd", "new"))


async def test_what_stands_beside_a_collection_keeps_its_name(store: Store) -> None:
    await store.create_collection("docs", "recording")
    record = await store.reembeddings.begin("docs", "hashing")
    with pytest.raises(StoreError, match=r"'docs@next' stands beside 'docs'"):
        await store.transfer.rename("docs@next", "mine")
    await store.reembeddings.switch(record)
    with pytest.raises(StoreError, match=r"'docs@previous' stands beside 'docs'"):
        await store.transfer.rename("docs@previous", "mine")
    with pytest.raises(StoreError, match="'embedq collections drop-old docs'"):
        await store.transfer.rename("docs", "mine")


async def test_letters_of_a_model_before_find_their_collection_under_its_new_name(store: Store) -> None:
    await store.create_collection("docs", "recording")
    await store.reembeddings.switch(await store.reembeddings.begin("docs", "hashing"))
    await store.reembeddings.drop("docs")
    await store.transfer.rename("docs", "texts")
    assert (await store.standing("r", 0, "texts", "recording")).moved == Moved("texts", "hashing")
    await store.create_collection("docs", "other")
    assert (await store.standing("r", 0, "docs", "recording")).moved is None, "another collection of that name"


def test_a_copy_is_whole_or_not_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedq_store.renaming, "_AT_ONCE", 2)
    told: list[int] = []

    async def left_over(store: Store) -> None:
        await store.transfer.write(Target("new@copying", "hashing", {}), [entry("left over", vector=encode([1.0]))])

    async def copy(store: Store) -> tuple[int, list[str]]:
        _, done = await store.transfer.copy(await store.collection("odd"), "new", told.append)
        return done, [info.name for info in await store.collections()]

    in_store(here, left_over)
    assert in_store(here, copy) == (len(ODD), ["empty", "new", "odd"])
    assert told[:2] == [2, 4]
    assert told[-1] == len(ODD)
    assert all_of(here, "new") == all_of(here, "odd")
    with pytest.raises(CollectionExists):
        in_store(here, copy)

    async def interrupted(store: Store) -> list[str]:
        def stop(_: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            await store.transfer.copy(await store.collection("odd"), "newer", stop)
        return [info.name for info in await store.collections()]

    assert in_store(here, interrupted) == ["empty", "new", "odd"]


async def test_a_copy_of_what_is_deleted_meanwhile_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedq_store.renaming, "_AT_ONCE", 1)
    async with await Store.open(tmp_path / "x.db") as store:
        await store.transfer.write(Target("odd", "recording"), ODD[:3])
        info = await store.collection("odd")
        deleting: list[asyncio.Task[int]] = []

        def progress(_: int) -> None:
            deleting.append(asyncio.create_task(store.delete_collection(info.id)))

        with pytest.raises(StoreError, match="was deleted or renamed while it was copied"):
            await store.transfer.copy(info, "new", progress)
        await asyncio.gather(*deleting)
        assert await store.collections() == []
