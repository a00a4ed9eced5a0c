"""A collection is embedded anew beside itself: what is missing, what covers it, the switch, the way back."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing

import pytest

from embedq_core.errors import (
    NotCovered,
)
from embedq_core.items import Item
from embedq_core.vectors import encode
from embedq_store import Coverage, DeadLetter, Incoming, Reembedding, Row, Store, Target, Write

OLD, NEW = [1.0, 0.0, 0.0], [0.0, 1.0]

VECTORS = {"old": encode(OLD), "new": encode(NEW)}


async def put(
    store: Store,
    collection: str,
    model: str,
    texts: Mapping[str, str | bytes],
    metadata: str | None = None,
    *,
    keep: bool = True,
) -> None:
    rows = [
        Row(*entry, VECTORS[model]) for entry in Incoming.of([Item(id_, text, metadata) for id_, text in texts.items()])
    ]
    await store.write(Write(Target(collection, model), rows, store=keep))


async def bury(store: Store, collection: str, model: str, texts: Mapping[str, str], run: str = "r") -> None:
    letters = [
        DeadLetter(run, 0, collection, id_, text, None, model, "ContentRefused", "no", 1, 1e9)
        for id_, text in texts.items()
    ]
    await store.write(Write(Target(collection, model), dead=letters))


async def embed_missing(store: Store, record: Reembedding) -> list[str]:
    """Do what a worker does, and return the ids that it was given."""
    ids: list[str] = []
    while page := await store.reembeddings.missing(record, ids[-1] if ids else None, max_items=2, max_bytes=1_000_000):
        ids += [item.id for item in page]
        rows = [Row(*entry, VECTORS[record.new_model]) for entry in Incoming.of(page)]
        await store.write(Write(Target(record.next_name, record.new_model), rows))
    return ids


async def contents(store: Store, collection: str) -> dict[str, tuple[str, int]]:
    """Content and dimension of each entry."""
    found = await store.collection(collection)
    with closing(sqlite3.connect(store.path)) as db:
        rows = db.execute(
            "SELECT id, coalesce(content, content_blob), length(embedding) / 4 FROM embeddings WHERE collection_id = ?",
            (found.id,),
        )
        return {row[0]: (row[1], row[2]) for row in rows}


def change(store: Store, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(store.path, isolation_level=None)) as db:
        db.execute(sql, values)


async def names(store: Store) -> dict[str, str]:
    return {info.name: info.model_id for info in await store.collections()}


async def letters(store: Store) -> set[tuple[str, str]]:
    return {(letter.collection, letter.id) for letter in await store.dead_letters()}


async def switched(store: Store) -> Reembedding:
    record = await store.reembeddings.begin("docs", "new")
    await embed_missing(store, record)
    return (await store.reembeddings.switch(record)).reembedding


async def test_new_vectors_are_made_beside_the_old_and_take_their_place(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound", "b": b"\x00cat", "c": "bird"}, '{"n": NaN}')
    record = await store.reembeddings.begin("docs", "new", golden="{}", recall=0.9)
    assert (record.collection, record.old_model, record.new_model, record.state) == ("docs", "old", "new", "embedding")
    assert await store.reembeddings.coverage(record) == Coverage(entries=3, missing=3)
    with pytest.raises(NotCovered, match="3 entries of 'docs' still to be embedded with new"):
        await store.reembeddings.switch(record)
    assert await names(store) == {"docs": "old", "docs@next": "new"}
    assert await embed_missing(store, record) == ["a", "b", "c"]
    assert (await store.reembeddings.coverage(record)).complete
    done = await store.reembeddings.switch(record)
    assert (done.entries, done.dead, done.reembedding.state) == (3, 0, "switched")
    assert await names(store) == {"docs": "new", "docs@previous": "old"}
    assert await contents(store, "docs") == {"a": ("hound", 2), "b": (b"\x00cat", 2), "c": ("bird", 2)}
    found = await store.collection("docs")
    assert [entry.id for entry in await store.similar(found.id, NEW, 3)] == ["a", "b", "c"]
    assert await store.reembeddings.open() == []
