"""An audit of a real store: slices, what is cleared, and what is left when a repair dies."""

import sqlite3
import struct
from contextlib import closing

import pytest

import embedq_store.auditing
from embedq_core.items import Item
from embedq_store import Incoming, Problem, Row, Store, Target, Write
from embedq_store.auditing import BEFORE_ALL
from support.chunks import items
from support.models import vector_of


def rows(some: list[Item]) -> list[Row]:
    return [Row(*entry, struct.pack("<8f", *vector_of(entry.item.content))) for entry in Incoming.of(some)]


async def filled(store: Store, some: list[Item], collection: str = "pets") -> int:
    """The key of a collection that holds `some`."""
    await store.write(Write(Target(collection, "recording"), rows(some), store=True))
    return (await store.collection(collection)).id


@pytest.mark.parametrize(("most_rows", "most_bytes"), [(3, 10**6), (1000, 1), (7, 300)])
async def test_slices_of_any_size_hold_every_row_of_the_collection_once_and_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch, most_rows: int, most_bytes: int
) -> None:
    monkeypatch.setattr(embedq_store.auditing, "SLICE_ROWS", most_rows)
    monkeypatch.setattr(embedq_store.auditing, "SLICE_BYTES", most_bytes)
    first = await filled(store, items(20))
    await filled(store, items(5, text="other"), "others")
    await filled(store, items(20, first=20))
    found = await store.audits.findings(first, sample=100, seed=1)
    assert (found.entries, found.dimension, found.problems) == (40, 8, {})
    assert [entry.id for entry in found.sample] == [item.id for item in items(40)]
    assert await store.audits.clear(first, 8, []) == 0


async def test_all_rows_with_a_content_that_has_drifted_are_cleared_and_found_again_by_the_next_audit(
    store: Store,
) -> None:
    same = [Item("a", "same", '{"n": 1}'), Item("b", "same"), Item("c", "another")]
    key = await filled(store, same)
    await filled(store, same, "others")
    (digest,) = {entry.digest for entry in Incoming.of(same[:1])}
    # And here the repair dies: nothing was queued.
    assert await store.audits.clear(key, 8, [digest]) == 2
    found = await store.audits.findings(key, sample=10, seed=1)
    assert found.problems[Problem.CLEARED].ids == ["a", "b"]
    assert [entry.id for entry in found.sample] == ["c"]
    assert not (await store.audits.findings((await store.collection("others")).id, sample=0, seed=1)).problems
    last = await store.audits.last_rowid()
    page = await store.audits.cleared_page(key, BEFORE_ALL, last, max_items=1, max_bytes=10**6)
    assert page.items == same[:1]
    assert page.after is not None
    page = await store.audits.cleared_page(key, page.after, last, max_items=10, max_bytes=10**6)
    assert page.items == same[1:2]
    # Neither is its content found by others, which would copy the vector, nor is the id unchanged.
    known = await store.known("pets", Incoming.of([*same, Item("d", "same")]))
    assert known.vectors == {}
    assert known.by_id["a"].digest is None
    assert [entry.id for entry in await store.search.similar(key, vector_of("same"), 2)] == ["a", "b"], "searches go on"


async def test_a_row_without_a_vector_keeps_nobody_from_writing_and_is_found(store: Store) -> None:
    """Another tool may have left one, and what tells the dimension reads any row."""
    key = await filled(store, items(1))
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("UPDATE embeddings SET embedding = NULL")
    await filled(store, items(3))
    assert await store.dimension("pets") == 8
    assert (await store.audits.findings(key, sample=0, seed=1)).problems == {}
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("UPDATE embeddings SET embedding = NULL WHERE id = '000000'")
    assert await store.dimension("pets") == 8
    await filled(store, items(3, first=3))
    assert (await store.audits.findings(key, sample=0, seed=1)).problems[Problem.EMPTY].ids == ["000000"]


async def test_a_vector_that_can_not_be_compared_is_zeros_until_it_is_embedded_anew(store: Store) -> None:
    some = items(5)
    key = await filled(store, some)
    bad = [row._replace(vector=struct.pack("<8f", *[float("inf")] * 8)) for row in rows(some[:1])]
    await store.write(Write(Target("pets", "recording"), bad, store=True))
    assert (await store.audits.findings(key, sample=0, seed=1)).problems[Problem.NOT_FINITE].ids == ["000000"]
    assert await store.audits.clear(key, 8, []) == 1
    assert await store.vector(key, "000000") == (0.0,) * 8
    assert await store.audits.clear(key, 8, []) == 1, "until then it stays cleared"


async def test_only_a_slice_in_which_something_is_wrong_keeps_others_from_writing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedq_store.auditing, "SLICE_ROWS", 3)
    key = await filled(store, items(20))
    bad = [row._replace(vector=b"") for row in rows(items(20)[4:5])]
    with closing(sqlite3.connect(store.path)) as db, db:
        db.executemany("UPDATE embeddings SET embedding = ? WHERE id = ?", [(row.vector, row.item.id) for row in bad])
    statements: list[str] = []
    assert store._access.writing is not None
    await store._access.writing.set_trace_callback(statements.append)
    assert await store.audits.clear(key, 8, []) == 1
    assert statements.count("BEGIN IMMEDIATE") == 1
    assert await store.vector(key, "000004") == (0.0,) * 8
