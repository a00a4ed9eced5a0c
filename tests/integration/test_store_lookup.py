"""What the store knows about what comes in, a chunk at a time."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from embedq_core.digests import content_hash
from embedq_core.errors import StoreError
from embedq_core.items import Item
from embedq_core.vectors import decode, encode
from embedq_store import Incoming, Known, Row, Store, Stored, Target, Write, decide
from support.copies import change

VECTOR = encode([1.0, 2.0])


@pytest.fixture
async def vectors(tmp_path: Path) -> AsyncIterator[Store]:
    async with await Store.open(tmp_path / "embeddings.db") as store:
        yield store


async def put(store: Store, collection: str, items: list[Item], *, keep: bool = True) -> None:
    rows = [Row(*entry, VECTOR) for entry in Incoming.of(items)]
    await store.write(Write(Target(collection, "recording"), rows, store=keep))


async def test_of_a_collection_that_isnt_there_nothing_is_known(vectors: Store) -> None:
    assert await vectors.known("pets", Incoming.of([Item("a", "hound")])) == Known()


async def test_what_is_stored_under_an_id_is_known(vectors: Store) -> None:
    await put(vectors, "pets", [Item("a", "hound", '{"a": 1}'), Item("b", b"hound")])
    await put(vectors, "pets", [Item("c", "cat")], keep=False)
    known = await vectors.known("pets", Incoming.of([Item(id_, "new") for id_ in "abcd"]))
    assert known.by_id == {
        "a": Stored(content_hash("hound"), '{"a": 1}', True),
        "b": Stored(content_hash("hound"), None, True),
        "c": Stored(content_hash("cat"), None, False),
    }
    assert known.vectors == {}


async def test_a_content_under_another_id_is_known_by_its_vector(vectors: Store) -> None:
    await put(vectors, "pets", [Item("a", "hound")])
    known = await vectors.known("pets", Incoming.of([Item("b", "hound"), Item("c", "cat")]))
    assert known == Known({}, {content_hash("hound"): VECTOR})


async def test_contents_of_another_collection_are_not_known(vectors: Store) -> None:
    await put(vectors, "docs", [Item("a", "hound")])
    await put(vectors, "pets", [Item("x", "cat")])
    assert await vectors.known("pets", Incoming.of([Item("a", "hound")])) == Known()


@pytest.mark.parametrize("count", [1, 511, 512, 513, 2048, 5000])
async def test_any_number_of_ids_and_contents_can_be_asked_for(vectors: Store, count: int) -> None:
    await put(vectors, "pets", [Item(str(number), f"text {number}") for number in range(0, count, 2)])
    same = Incoming.of([Item(str(number), f"text {number}") for number in range(count)])
    decided = decide(same, await vectors.known("pets", same), store=True)
    assert decided.unchanged == list(range(0, count, 2))
    assert decided.embedded == list(range(1, count, 2))
    moved = Incoming.of([Item(f"new {number}", f"text {number}") for number in range(count)])
    decided = decide(moved, await vectors.known("pets", moved), store=True)
    assert [index for index, _ in decided.reused] == list(range(0, count, 2))
    assert decided.embedded == list(range(1, count, 2))


@pytest.mark.parametrize("id_", ["", " ", "a\0b", "ü", "🐕", "' OR 1=1 --", "a" * 100_000])
async def test_any_text_is_an_id(vectors: Store, id_: str) -> None:
    await put(vectors, "pets", [Item(id_, "hound"), Item("other", "cat")])
    known = await vectors.known("pets", Incoming.of([Item(id_, "hound")]))
    assert list(known.by_id) == [id_]
    assert await vectors.vector(1, id_) == (1.0, 2.0)


async def test_a_hundred_thousand_equal_contents_slow_no_lookup(vectors: Store) -> None:
    await put(vectors, "pets", [Item(str(number), "the same") for number in range(100_000)])
    await put(vectors, "docs", [Item("a", "another")])
    new = Incoming.of([Item(f"new {number}", "the same") for number in range(2048)])
    old = Incoming.of([Item(str(number), "the same") for number in range(2048)])
    started = time.perf_counter()
    assert len((await vectors.known("pets", new)).vectors) == 1
    assert len((await vectors.known("pets", old)).by_id) == 2048
    assert (await vectors.known("docs", new)) == Known()
    # 15 ms here; a look at all rows for each item would take minutes.
    assert time.perf_counter() - started < 20


async def test_an_entry_to_which_another_tool_has_given_no_vector_is_nobody_s_copy(vectors: Store) -> None:
    await put(vectors, "pets", [Item("none", "hound"), Item("empty", "hound"), Item("whole", "hound")])
    change(Path(vectors.path), "UPDATE embeddings SET embedding = NULL WHERE id = 'none'")
    change(Path(vectors.path), "UPDATE embeddings SET embedding = x'' WHERE id = 'empty'")
    (found,) = (await vectors.known("pets", Incoming.of([Item("new", "hound")]))).vectors.values()
    assert decode(found) == (1.0, 2.0)
    key = (await vectors.collection("pets")).id
    for id_ in ("none", "empty"):
        with pytest.raises(StoreError, match=f"the entry '{id_}' has no vector: see 'embedq collections audit'"):
            await vectors.vector(key, id_)
    assert {id_: len(one) for id_, one in (await vectors.vectors(key, ["none", "whole"])).items()} == {
        "none": 0,
        "whole": 2,
    }
    async with vectors.transfer.snapshot(await vectors.collection("pets")) as snapshot:
        assert (await snapshot.figures()).dimensions == (0, 2)
        assert [[each.vector for each in page] async for page in snapshot.pages()] == [[b"", b"", found]]
