"""Searching for documents that are stored in parts: each once, by its best part, whatever has to be read for it."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import embedq as package
from embedq_core.digests import content_hash
from embedq_core.items import Item
from embedq_core.parts import belongs_to, parts_of
from embedq_core.vectors import encode
from embedq_store import Entry, Row, Store, Target, Write
from support.command_line import CommandLine
from support.models import RecordingModel, vector_of


def document(id_: str, *parts: str) -> list[Item]:
    return parts_of(Item(id_, "whole"), [(number, part) for number, part in enumerate(parts)])


async def put(store: Store, items: Iterable[Item]) -> int:
    rows = [Row(item, content_hash(item.content), encode(vector_of(item.content))) for item in items]
    await store.write(Write(Target("pets", "recording"), rows))
    return (await store.collection("pets")).id


def best_parts(items: Iterable[Item], query: list[float], skip: str | None = None) -> list[tuple[str, str, Any]]:
    """Document, content of its best part, score; best first. Worked out from every part."""
    best: dict[str, tuple[float, str, str | bytes]] = {}
    for item in items:
        vector = np.array(vector_of(item.content))
        score = float(vector @ query / np.linalg.norm(vector) / np.linalg.norm(query))
        id_ = belongs_to(item.id, item.metadata)
        if id_ != skip and (id_ not in best or (-score, item.id) < (-best[id_][0], best[id_][1])):
            best[id_] = (score, item.id, item.content)
    ranked = sorted(best.items(), key=lambda pair: (-pair[1][0], pair[1][1]))
    return [(id_, str(content), pytest.approx(score)) for id_, (score, _, content) in ranked]


def seen(entries: Iterable[Entry]) -> list[tuple[str, str | None, float | None]]:
    return [(entry.id, entry.content, entry.score) for entry in entries]


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 40), min_size=1),
    st.integers(1, 9),
    st.integers(0, 1000),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_documents_are_answered_by_their_best_parts_as_if_all_were_compared(
    sizes: dict[str, int], number: int, seed: int
) -> None:
    items = [Item("whole", f"{seed}")]
    for id_, count in sizes.items():
        items += document(id_, *(f"{id_} {each} {seed}" for each in range(count)))
    queries = [vector_of(f"query {each} {seed}") for each in range(3)]
    async with await Store.open() as store:
        pets = await put(store, items)
        wanted = [best_parts(items, query)[:number] for query in queries]
        assert [seen(await store.search.similar(pets, query, number, group=True)) for query in queries] == wanted
        assert [seen(found) for found in await store.search.similar_many(pets, queries, number, group=True)] == wanted


async def test_the_document_that_is_compared_is_left_out_with_all_its_parts() -> None:
    items = [*document("a", "one", "two", "three"), *document("b", "four", "five"), Item("c", "six")]
    async with package.AsyncCollection("pets", model=RecordingModel()) as pets:
        for item in items:
            await pets.embed(item.id, item.content, json.loads(item.metadata or "null"), store=True)
        expected = best_parts(items, vector_of("two"), skip="a")
        assert seen(await pets.similar_by_id("a#1", group=True)) == expected
        assert [seen(found) for found in await pets.similar_many_by_id(["a#1"], group=True)] == [expected]
        found = await pets.similar("five", 1, group=True)
        assert found[0].metadata == {"parent": "b", "part": 1, "parts": 2, "start": 1}
        assert [entry.id for entry in await pets.similar("five", 1)] == ["b#1"]


def test_similar_with_group(embedq: CommandLine) -> None:
    rows = "\n".join(json.dumps({"id": id_, "content": f"{id_} one.\n\n{id_} two."}) for id_ in ("x", "y"))
    embedq("ingest", "docs", "-", "-m", "recording", "--chunk", "6", input=rows)
    lines = embedq("similar", "docs", "-c", "y two.", "--group").out.splitlines()
    found = [json.loads(line) for line in lines]
    assert [entry["id"] for entry in found] == ["y", "x"]
    assert found[0]["content"] == "y two."
    batch = json.loads(embedq("similar", "docs", "--batch", "-", "--group", input="x one.\n").out)
    assert [entry["id"] for entry in batch["results"]] == ["x", "y"]
