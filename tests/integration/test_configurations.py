"""The configuration of a collection's model is recorded with its first vectors, and nothing else may join them."""

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

import embedq as package
from embedq_core.errors import ConfigurationMismatch
from embedq_core.items import Item
from embedq_store import Incoming, Row, Standing, Store, Target, Write
from embedq_worker.claims import Claims
from embedq_worker.pipeline import process
from embedq_worker.runner import ModelRunner
from support.chunks import chunk
from support.command_line import CommandLine
from support.models import ConfiguredModel, RecordingModel, vector_of

PASSAGES = ConfiguredModel(document_prefix="passage: ", query_prefix="query: ")


def rows(*ids: str) -> list[Row]:
    return [Row(*entry, b"\0\0\x80?") for entry in Incoming.of([Item(id_, f"text {id_}") for id_ in ids])]


async def recorded(store: Store, name: str = "docs") -> object:
    return await store.configuration((await store.collection(name)).id)


async def test_the_first_vectors_bring_the_record_and_others_must_agree(store: Store) -> None:
    passages = Target("docs", "m", {"document_prefix": "passage: "})
    await store.write(Write(passages, rows("a")))
    await store.write(Write(passages, rows("b")))
    assert await recorded(store) == {"document_prefix": "passage: "}
    for other in ({}, {"document_prefix": "doc: "}):
        with pytest.raises(ConfigurationMismatch, match='document_prefix "passage: ", now'):
            await store.write(Write(Target("docs", "m", other), rows("c")))
    assert await store.count((await store.collection("docs")).id) == 2


async def test_vectors_of_another_tool_count_as_texts_as_they_stand(store: Store) -> None:
    await store.write(Write(Target("docs", "m"), rows("a")))
    with pytest.raises(ConfigurationMismatch, match='document_prefix none, now "passage: "'):
        await store.write(Write(Target("docs", "m", PASSAGES.configuration), rows("b")))
    await store.write(Write(Target("docs", "m", {}), rows("b")))
    assert await recorded(store) == {}


async def test_a_collection_that_is_made_anew_has_no_record_whoever_deleted_it(store: Store) -> None:
    await store.write(Write(Target("docs", "m", {"revision": "a1"}), rows("a")))
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("DELETE FROM embeddings")
        other.execute("DELETE FROM collections")
    await store.write(Write(Target("notes", "m", {"revision": "a2"}), rows("a")))
    assert await recorded(store, "notes") == {"revision": "a2"}


async def test_a_collection_without_vectors_binds_nobody(store: Store) -> None:
    await store.create_collection("docs", "m")
    assert await recorded(store) is None
    await store.write(Write(Target("docs", "m", {"revision": "a1"}), rows("a")))
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("DELETE FROM embeddings")
    await store.write(Write(Target("docs", "m", {"revision": "a2"}), rows("a")))
    assert await recorded(store) == {"revision": "a2"}


async def test_a_worker_with_another_configuration_makes_dead_letters_that_say_so(store: Store) -> None:
    await store.write(Write(Target("pets", "recording", {"document_prefix": "passage: "}), rows("a")))
    runner = ModelRunner(model := RecordingModel())
    try:
        counts = await process(
            chunk([Item("b", "one"), Item("a", "text a", '{"new": 1}'), Item("c", "two")]), runner, store, Claims()
        )
    finally:
        await runner.stop(5)
    assert counts.nonzero() == {"failed": 2, "unchanged": 1, "updated": 1}
    assert model.batches == []
    letters = await store.dead.letters()
    assert {(letter.id, letter.error) for letter in letters} == {
        ("b", "ConfigurationMismatch"),
        ("c", "ConfigurationMismatch"),
    }
    assert 'document_prefix "passage: ", now none' in letters[0].message


async def test_what_is_stored_is_brought_up_to_date_though_others_were_quicker_with_another_configuration(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing = store.standing

    async def just_before(run: str, number: int, collection: str, model_id: str) -> Standing:
        found = await standing(run, number, collection, model_id)
        await store.write(Write(Target("pets", "recording", {"document_prefix": "passage: "}), rows("a")))
        return found

    monkeypatch.setattr(store, "standing", just_before)
    runner = ModelRunner(RecordingModel(dimension=1))
    try:
        items = [Item("a", "text a", '{"new": 1}'), Item("b", "text a"), Item("c", "two")]
        counts = await process(chunk(items), runner, store, Claims())
    finally:
        await runner.stop(5)
    assert counts.nonzero() == {"failed": 2, "unchanged": 1, "updated": 1, "calls": 1, "inputs": 1}
    assert [letter.id for letter in await store.dead.letters()] == ["c", "b"]
    with closing(sqlite3.connect(store.path)) as other:
        assert other.execute("SELECT id, metadata FROM embeddings").fetchall() == [("a", '{"new": 1}')]


async def test_a_worker_records_what_its_model_is(store: Store) -> None:
    runner = ModelRunner(ConfiguredModel("recording", document_prefix="passage: "))
    try:
        await process(chunk([Item("a", "one")]), runner, store, Claims())
    finally:
        await runner.stop(5)
    assert await recorded(store, "pets") == {"document_prefix": "passage: "}


async def test_queries_take_the_form_that_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with package.AsyncCollection("docs", path, model=PASSAGES) as docs:
        await docs.embed("a", "one")
        assert (await docs.similar("one", 1))[0].score == pytest.approx(
            cosine(vector_of("query: one"), vector_of("passage: one"))
        )
    changed = ConfiguredModel(document_prefix="doc: ", query_prefix="search: ")
    async with package.AsyncCollection("docs", path, model=changed) as docs:
        await docs.similar("one", 1)
        await docs.similar_many(["two"], 1)
        assert changed.batches == [["query: one"], ["query: two"]]
        with pytest.raises(ConfigurationMismatch):
            await docs.embed("b", "two")
    assert changed.inputs == 2  # the refused writer has not paid


async def test_queries_that_can_t_be_made_as_recorded_are_refused(tmp_path: Path) -> None:
    class OwnForm(ConfiguredModel):
        def embed_query_batch(self, items: Iterable[str | bytes]) -> Iterable[list[float]]:
            return self.embed_batch(["as a question: " + str(item) for item in items])

    path = tmp_path / "x.db"
    async with package.AsyncCollection("docs", path, model=PASSAGES) as docs:
        await docs.embed("a", "one")
    revised = ConfiguredModel(document_prefix="passage: ", query_prefix="query: ", revision="b2")
    for model in (revised, OwnForm(document_prefix="passage: ", query_prefix="search: ")):
        async with package.AsyncCollection("docs", path, model=model) as docs:
            with pytest.raises(ConfigurationMismatch):
                await docs.similar("one")
            assert (await docs.similar_by_id("a")) == []  # which asks no model
        assert model.batches == []


def cosine(one: list[float], other: list[float]) -> float:
    def dot(left: list[float], right: list[float]) -> float:
        return sum(a * b for a, b in zip(left, right, strict=True))

    return dot(one, other) / float((dot(one, one) * dot(other, other)) ** 0.5)


def test_the_command_line_keeps_to_the_record(embedq: CommandLine, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    embedq.environment["EMBEDQ_SETTINGS"] = str(settings)
    text = '[models.notes]\nkind = "rec"\ndocument_prefix = "passage: "\nquery_prefix = "{}"\n'
    settings.write_text(text.format("query: "))
    embedq("ingest", "docs", "-", "-m", "notes", input="id,content\na,one\n")
    assert 'document_prefix = "passage: "' in " ".join(embedq("collections", "show", "docs").out.split())
    assert json.loads(embedq("collections", "show", "docs", "--json").out)["configuration"] == {
        "document_prefix": "passage: ",
        "query_prefix": "query: ",
    }
    answer = embedq("similar", "docs", "-c", "one").out

    settings.write_text(text.format("search: "))
    assert embedq("similar", "docs", "-c", "one").out == answer
    refused = embedq("ingest", "docs", "-", input="id,content\nb,two\n", exit_code=2)
    assert 'query_prefix "query: ", now "search: "' in refused.err
    assert "is no longer as it was when 'docs' was embedded" in embedq("doctor").out
