"""What the seeds' class reference promises, kept by both faces: `Collection` and `AsyncCollection`."""

import inspect
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import sqlite_utils

import embedq
from embedq_core.errors import (
    BadVectors,
    CollectionMissing,
    DatabaseUnusable,
    EmbedqError,
    EntryMissing,
    ModelMismatch,
    NoModel,
    UnknownModel,
    UnsupportedContent,
    UsageError,
)
from support.models import BinaryModel, EitherModel, FaultyModel, RecordingModel, raising, vector_of

# Any: a collection of either face; what it returns is awaited where it must be.
Face: TypeAlias = Any
Opened: TypeAlias = Callable[..., Awaitable[Any]]


async def done(result: Any) -> Any:
    """The result of a call of either face."""
    return await result if inspect.isawaitable(result) else result


@pytest.fixture(params=[embedq.Collection, embedq.AsyncCollection], ids=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    return request.param


@pytest.fixture
async def opened(face: Face) -> AsyncIterator[Opened]:
    """Open a collection of this face; it is closed at the end."""
    collections: list[Any] = []

    async def open_one(*arguments: Any, **options: Any) -> Any:
        collection = await done(face(*arguments, **options))
        collections.append(collection)
        return collection

    yield open_one
    for collection in collections:
        await done(collection.close())


@pytest.fixture
def model() -> RecordingModel:
    return RecordingModel()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "embeddings.db"


@pytest.fixture
async def pets(opened: Opened, path: Path, model: RecordingModel) -> Any:
    return await opened("pets", path, model=model)


def rows(path: Path, columns: str = "id, content, metadata") -> list[tuple[Any, ...]]:
    """What another program reads in the file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT {columns} FROM embeddings ORDER BY id").fetchall()


def vectors(path: Path) -> dict[str, list[float]]:
    return {id_: list(embedq.decode(blob)) for id_, blob in rows(path, "id, embedding")}


async def scores(answer: Any) -> dict[str, float]:
    return {entry.id: entry.score for entry in await done(answer)}


# --- making and finding a collection


async def test_a_collection_has_an_id_a_name_and_its_models_id(pets: Any, model: RecordingModel) -> None:
    assert isinstance(pets.id, int)
    assert (pets.name, pets.model_id) == ("pets", "recording")
    assert pets.model() is model


async def test_a_collection_can_be_made_with_the_id_or_an_alias_of_a_model(opened: Opened, path: Path) -> None:
    by_id = await opened("one", path, model_id="hashing")
    by_alias = await opened("two", path, model_id="hash")
    assert by_id.model_id == by_alias.model_id == "hashing"
    assert by_alias.model() is embedq.get_embedding_model("hashing")


async def test_the_model_can_be_left_out_where_the_collection_is_there(opened: Opened, path: Path) -> None:
    first = await opened("pets", path, model_id="hashing")
    again = await opened("pets", path)
    assert (again.id, again.model_id) == (first.id, "hashing")
    assert again.model().model_id == "hashing"


@pytest.mark.parametrize("options", [{"model_id": "hash"}, {"model_id": "hashing"}])
async def test_naming_the_model_that_it_has_is_no_mismatch(opened: Opened, path: Path, options: dict[str, str]) -> None:
    await opened("pets", path, model_id="hashing")
    assert (await opened("pets", path, **options)).model_id == "hashing"


@pytest.mark.parametrize("options", [{"model_id": "hashing"}, {"model": RecordingModel("other")}])
@pytest.mark.usefixtures("pets")
async def test_another_model_than_the_collections_is_refused(
    opened: Opened, path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(ModelMismatch, match=r"'pets' was embedded with recording, not with (hashing|other)") as caught:
        await opened("pets", path, **options)
    assert isinstance(caught.value, ValueError)


async def test_a_new_collection_needs_a_model(opened: Opened, path: Path) -> None:
    with pytest.raises(NoModel, match=r"model= or model_id= must be given: the collection 'pets' is new") as caught:
        await opened("pets", path)
    assert isinstance(caught.value, ValueError)


async def test_a_model_that_there_is_not_is_named_with_close_ones(opened: Opened, path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"'hashin'\. Did you mean 'hashing'"):
        await opened("pets", path, model_id="hashin")


async def test_without_create_a_missing_collection_does_not_exist(face: Face, opened: Opened, path: Path) -> None:
    with pytest.raises(face.DoesNotExist, match="there is no collection 'pets' in"):
        await opened("pets", path, model_id="hashing", create=False)
    assert await done(face.exists(path, "pets")) is False


async def test_without_create_an_existing_collection_is_opened(opened: Opened, pets: Any, path: Path) -> None:
    assert (await opened("pets", path, create=False)).id == pets.id


async def test_both_faces_raise_the_same_does_not_exist(face: Face) -> None:
    assert face.DoesNotExist is embedq.AsyncCollection.DoesNotExist
    assert issubclass(face.DoesNotExist, EmbedqError)
    assert issubclass(face.DoesNotExist, CollectionMissing)
    assert issubclass(face.DoesNotExist, EntryMissing)


@pytest.mark.usefixtures("pets")
async def test_exists_says_whether_a_collection_is_there(face: Face, path: Path, tmp_path: Path) -> None:
    assert await done(face.exists(path, "pets")) is True
    assert await done(face.exists(path, "docs")) is False
    assert await done(face.exists(tmp_path / "missing.db", "pets")) is False
    assert not (tmp_path / "missing.db").exists()


async def test_several_collections_share_a_file_and_not_their_entries(opened: Opened, pets: Any, path: Path) -> None:
    docs = await opened("docs", path, model=RecordingModel("other"))
    await done(pets.embed("a", "hound"))
    await done(docs.embed("a", "cat"))
    await done(docs.embed("b", "hound"))
    assert (await done(pets.count()), await done(docs.count())) == (1, 2)
    assert docs.model().inputs == 2


async def test_it_can_be_a_context_manager(face: Face, path: Path, model: RecordingModel) -> None:
    if face is embedq.Collection:
        with face("pets", path, model=model) as pets:
            pets.embed("a", "hound")
    else:
        async with face("pets", path, model=model) as pets:
            await pets.embed("a", "hound")
    assert [row[0] for row in rows(path)] == ["a"]


async def test_closing_twice_is_closing_once_and_a_closed_one_says_so(pets: Any) -> None:
    await done(pets.close())
    await done(pets.close())
    with pytest.raises(UsageError, match="is not open"):
        await done(pets.count())


async def test_its_repr_names_it_and_its_file(face: Face, pets: Any, path: Path) -> None:
    assert repr(pets) == f"<{face.__name__} 'pets' in {path}>"


# --- the database argument


async def test_without_a_database_it_is_in_memory_and_of_its_own(opened: Opened, model: RecordingModel) -> None:
    one, two = await opened("pets", model=model), await opened("pets", model=model)
    await done(one.embed("a", "hound"))
    assert (await done(one.count()), await done(two.count())) == (1, 0)
    assert await scores(one.similar("hound")) == {"a": pytest.approx(1.0)}


@pytest.mark.parametrize("kind", [str, Path, sqlite3.connect, sqlite_utils.Database])
async def test_the_database_is_a_path_or_a_connection_to_a_file(
    face: Face, opened: Opened, path: Path, model: RecordingModel, kind: Callable[[str], Any]
) -> None:
    database = kind(str(path))
    try:
        pets = await opened("pets", database, model=model)
        await done(pets.embed("a", "hound", store=True))
        assert await done(face.exists(database, "pets"))
        if isinstance(database, sqlite3.Connection):
            assert database.execute("SELECT content FROM embeddings").fetchall() == [("hound",)]
        elif isinstance(database, sqlite_utils.Database):
            assert [row["content"] for row in database["embeddings"].rows] == ["hound"]
    finally:
        if not isinstance(database, str | Path):
            database.close()
    assert rows(path) == [("a", "hound", None)]


@pytest.mark.parametrize("kind", [sqlite3.connect, sqlite_utils.Database])
async def test_a_connection_to_a_database_in_memory_cant_be_shared(
    opened: Opened, model: RecordingModel, kind: Callable[[str], Any]
) -> None:
    with closing(kind(":memory:")) as database, pytest.raises(UsageError, match="in memory can't be shared"):
        await opened("pets", database, model=model)


async def test_what_is_no_database_is_refused_with_its_type(opened: Opened, model: RecordingModel) -> None:
    with pytest.raises(UsageError, match="must be a path or a connection, not int"):
        await opened("pets", 5, model=model)


async def test_a_file_that_is_no_database_is_refused(opened: Opened, model: RecordingModel) -> None:
    with pytest.raises(DatabaseUnusable, match="is not a SQLite database"):
        await opened("pets", __file__, model=model)


# --- embedding one


async def test_embed_keeps_the_models_vector_under_the_id(pets: Any, path: Path) -> None:
    await done(pets.embed("hound", "my happy hound"))
    assert vectors(path) == {"hound": pytest.approx(vector_of("my happy hound"))}
    assert await done(pets.count()) == 1


async def test_embed_keeps_the_text_only_with_store(pets: Any, path: Path) -> None:
    await done(pets.embed("a", "hound"))
    await done(pets.embed("b", "cat", store=True))
    assert rows(path) == [("a", None, None), ("b", "cat", None)]


async def test_embed_keeps_metadata_as_json(pets: Any, path: Path) -> None:
    await done(pets.embed("a", "hound", metadata={"name": "Hund", "ages": [1, 2]}, store=True))
    assert rows(path) == [("a", "hound", '{"name": "Hund", "ages": [1, 2]}')]


async def test_the_arguments_can_be_given_by_place(pets: Any, path: Path) -> None:
    await done(pets.embed("a", "hound", {"a": 1}, True))
    await done(pets.embed_multi([("b", "cat")], True, 1))
    await done(pets.embed_multi_with_metadata([("c", "cow", None)], True, 1))
    assert rows(path) == [("a", "hound", '{"a": 1}'), ("b", "cat", None), ("c", "cow", None)]


async def test_the_same_id_with_the_same_content_is_a_no_op(pets: Any, path: Path, model: RecordingModel) -> None:
    await done(pets.embed("a", "hound", metadata={"a": 1}, store=True))
    before = rows(path, "rowid, *")
    await done(pets.embed("a", "hound", metadata={"a": 1}, store=True))
    await done(pets.embed("a", "hound"))
    assert rows(path, "rowid, *") == before
    assert model.inputs == 1


async def test_a_second_id_with_equal_content_is_stored_without_a_model_call(
    pets: Any, path: Path, model: RecordingModel
) -> None:
    await done(pets.embed("a", "hound"))
    await done(pets.embed("b", "hound", metadata={"b": 1}, store=True))
    assert model.inputs == 1
    assert rows(path) == [("a", None, None), ("b", "hound", '{"b": 1}')]
    assert vectors(path)["b"] == vectors(path)["a"]


async def test_an_id_whose_content_changes_is_embedded_anew(pets: Any, path: Path, model: RecordingModel) -> None:
    await done(pets.embed("a", "hound", metadata={"old": 1}, store=True))
    await done(pets.embed("a", "cat", store=True))
    assert rows(path) == [("a", "cat", None)]
    assert vectors(path)["a"] == pytest.approx(vector_of("cat"))
    assert model.inputs == 2


async def test_metadata_of_unchanged_content_is_brought_up_to_date(
    pets: Any, path: Path, model: RecordingModel
) -> None:
    await done(pets.embed("a", "hound", metadata={"a": 1}))
    await done(pets.embed("a", "hound", metadata={"a": 2}))
    assert rows(path) == [("a", None, '{"a": 2}')]
    await done(pets.embed("a", "hound"))  # says nothing about metadata
    assert rows(path) == [("a", None, '{"a": 2}')]
    assert model.inputs == 1


async def test_store_fills_in_missing_content(pets: Any, path: Path, model: RecordingModel) -> None:
    await done(pets.embed("a", "hound", metadata={"a": 1}))
    await done(pets.embed("a", "hound", store=True))
    assert rows(path) == [("a", "hound", '{"a": 1}')]
    await done(pets.embed("a", "hound"))  # takes nothing away
    assert rows(path) == [("a", "hound", '{"a": 1}')]
    assert model.inputs == 1


@pytest.mark.parametrize("id_", [1, None, b"a", ("a",)])
async def test_an_id_that_is_no_text_is_refused(pets: Any, id_: Any, model: RecordingModel) -> None:
    with pytest.raises(ValueError, match=f"an id must be a str, not {type(id_).__name__}"):
        await done(pets.embed(id_, "hound"))
    assert model.inputs == 0


@pytest.mark.parametrize("value", [1, None, ["hound"], bytearray(b"hound")])
async def test_a_value_that_is_neither_text_nor_bytes_is_refused_with_its_id(pets: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=f"'a': a value must be str or bytes, not {type(value).__name__}"):
        await done(pets.embed("a", value))


@pytest.mark.parametrize("entry", [("\ud800", "hound"), ("a", "hound \ud800")])
async def test_text_that_has_no_encoding_is_refused(pets: Any, entry: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="a lone surrogate"):
        await done(pets.embed(*entry))
    assert await done(pets.count()) == 0


@pytest.mark.parametrize("metadata", [["a"], "a", {"a": object()}])
async def test_metadata_that_is_no_json_object_is_refused(pets: Any, metadata: Any) -> None:
    with pytest.raises(ValueError, match="metadata"):
        await done(pets.embed("a", "hound", metadata=metadata))


async def test_bytes_for_a_model_of_text_are_refused(pets: Any) -> None:
    with pytest.raises(UnsupportedContent, match="recording takes text only") as caught:
        await done(pets.embed("a", b"\x89PNG"))
    assert isinstance(caught.value, ValueError)
    assert await done(pets.count()) == 0


async def test_text_for_a_model_of_bytes_is_refused(opened: Opened, path: Path) -> None:
    pictures = await opened("pictures", path, model=BinaryModel("binary"))
    with pytest.raises(ValueError, match="binary takes binary data"):
        await done(pictures.embed("a", "hound"))


async def test_bytes_are_kept_as_bytes(opened: Opened, path: Path) -> None:
    pictures = await opened("pictures", path, model=BinaryModel("binary"))
    await done(pictures.embed("a", b"\x89PNG\x00", store=True))
    await done(pictures.embed("b", b"", store=False))
    assert rows(path, "id, content, content_blob") == [("a", None, b"\x89PNG\x00"), ("b", None, None)]
    assert list(await scores(pictures.similar(b"\x89PNG\x00", 1))) == ["a"]


async def test_a_text_and_the_bytes_that_spell_it_are_two_inputs(opened: Opened, path: Path) -> None:
    model = EitherModel("either")
    both = await opened("both", path, model=model)
    await done(both.embed_multi([("a", "hound"), ("b", b"hound")], store=True))
    assert model.batches == [["hound", b"hound"]]
    assert rows(path, "id, content, content_blob") == [("a", "hound", None), ("b", None, b"hound")]


async def test_a_model_that_raises_stores_nothing_of_the_batch(opened: Opened, path: Path) -> None:
    pets = await opened("pets", path, model=FaultyModel(raising))
    with pytest.raises(ValueError, match="can't take poison"):
        await done(pets.embed_multi([("a", "hound"), ("b", "poison")]))
    assert await done(pets.count()) == 0
    await done(pets.embed("a", "hound"))
    assert await done(pets.count()) == 1


FAULTS: dict[str, Callable[[list[str | bytes]], Any]] = {
    "too few": lambda batch: [vector_of(item) for item in batch[1:]],
    "too many": lambda batch: [vector_of(item) for item in [*batch, "more"]],
    "NaN": lambda batch: [[float("nan")] * 8 for _ in batch],
    "infinity": lambda batch: [[float("inf")] * 8 for _ in batch],
    "ragged": lambda batch: [vector_of(item, 8 + number) for number, item in enumerate(batch)],
    "empty": lambda batch: [[] for _ in batch],
    "nothing": lambda _: 5,
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_vectors_that_cant_be_stored_are_an_error_and_nothing_is_written(
    opened: Opened, path: Path, fault: str
) -> None:
    pets = await opened("pets", path, model=FaultyModel(FAULTS[fault]))
    with pytest.raises(BadVectors):
        await done(pets.embed_multi([("a", "hound"), ("b", "cat")]))
    assert await done(pets.count()) == 0


async def test_a_model_that_changes_its_dimension_is_an_error(opened: Opened, pets: Any, path: Path) -> None:
    await done(pets.embed("a", "hound"))
    wider = await opened("pets", path, model=RecordingModel(dimension=9))
    with pytest.raises(BadVectors, match="a vector of 9 dimensions; the collection 'pets' holds vectors of 8"):
        await done(wider.embed("b", "cat"))
    assert await done(pets.count()) == 1


# --- embedding many


async def test_embed_multi_keeps_every_pair(pets: Any, path: Path) -> None:
    await done(pets.embed_multi([("a", "hound"), ("b", "cat")], store=True))
    assert rows(path) == [("a", "hound", None), ("b", "cat", None)]


async def test_embed_multi_with_metadata_keeps_every_triple(pets: Any, path: Path) -> None:
    await done(pets.embed_multi_with_metadata([("a", "hound", {"n": 1}), ("b", "cat", None)], store=True))
    assert rows(path) == [("a", "hound", '{"n": 1}'), ("b", "cat", None)]


async def test_entries_may_come_from_a_generator_and_are_taken_as_they_are_needed(
    pets: Any, model: RecordingModel
) -> None:
    calls_at_entry: list[int] = []

    def entries() -> Iterator[tuple[str, str]]:
        for number in range(25):
            calls_at_entry.append(len(model.batches))
            yield str(number), f"text {number}"

    await done(pets.embed_multi(entries(), batch_size=10))
    assert [len(batch) for batch in model.batches] == [10, 10, 5]
    assert calls_at_entry[0] == 0
    assert calls_at_entry[-1] == 2
    assert await done(pets.count()) == 25


async def test_the_batch_size_is_100_if_nothing_is_said(pets: Any, model: RecordingModel) -> None:
    await done(pets.embed_multi((str(number), f"text {number}") for number in range(250)))
    assert [len(batch) for batch in model.batches] == [100, 100, 50]


async def test_the_model_never_gets_more_than_its_own_batch_size(opened: Opened, path: Path) -> None:
    model = RecordingModel(batch_size=32)
    pets = await opened("pets", path, model=model)
    await done(pets.embed_multi((str(number), f"text {number}") for number in range(100)))
    assert [len(batch) for batch in model.batches] == [32, 32, 32, 4]


@pytest.mark.parametrize("batch_size", [0, -1])
async def test_a_batch_size_below_1_is_refused(pets: Any, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, not {batch_size}"):
        await done(pets.embed_multi([("a", "hound")], batch_size=batch_size))


async def test_no_entries_are_no_work(pets: Any, model: RecordingModel) -> None:
    await done(pets.embed_multi([]))
    assert (await done(pets.count()), model.batches) == (0, [])


async def test_ten_equal_texts_are_one_input_and_ten_entries(pets: Any, path: Path, model: RecordingModel) -> None:
    await done(pets.embed_multi([(str(number), "hound") for number in range(10)]))
    assert model.batches == [["hound"]]
    assert len(vectors(path)) == 10
    assert len({tuple(vector) for vector in vectors(path).values()}) == 1


async def test_equal_texts_in_several_batches_are_one_input(pets: Any, model: RecordingModel) -> None:
    await done(pets.embed_multi([(str(number), "hound") for number in range(10)], batch_size=3))
    assert model.batches == [["hound"]]
    assert await done(pets.count()) == 10


async def test_two_ids_that_swap_contents_both_end_right(pets: Any, path: Path, model: RecordingModel) -> None:
    await done(pets.embed_multi([("a", "hound"), ("b", "cat")], store=True))
    await done(pets.embed_multi([("a", "cat"), ("b", "hound")], store=True))
    assert rows(path) == [("a", "cat", None), ("b", "hound", None)]
    assert vectors(path) == {"a": pytest.approx(vector_of("cat")), "b": pytest.approx(vector_of("hound"))}
    assert model.inputs == 2


async def test_of_two_entries_with_one_id_the_last_wins(pets: Any, path: Path, model: RecordingModel) -> None:
    await done(pets.embed_multi([("a", "hound"), ("b", "cat"), ("a", "cow")], store=True))
    assert rows(path) == [("a", "cow", None), ("b", "cat", None)]
    assert "hound" not in model.batches[0]


async def test_in_bulk_changed_content_is_embedded_and_unchanged_is_not(
    pets: Any, path: Path, model: RecordingModel
) -> None:
    await done(pets.embed_multi_with_metadata([("a", "hound", {"n": 1}), ("b", "cat", {"n": 1})], store=False))
    await done(
        pets.embed_multi_with_metadata(
            [("a", "hound", {"n": 2}), ("b", "cow", {"n": 2}), ("c", "cat", {"n": 2})], store=True
        )
    )
    assert rows(path) == [("a", "hound", '{"n": 2}'), ("b", "cow", '{"n": 2}'), ("c", "cat", '{"n": 2}')]
    assert model.batches == [["hound", "cat"], ["cow"]]


async def test_the_batches_before_a_failing_one_are_kept(opened: Opened, path: Path) -> None:
    pets = await opened("pets", path, model=FaultyModel(raising))
    entries = [(str(number), "poison" if number == 7 else f"text {number}") for number in range(10)]
    with pytest.raises(ValueError, match="poison"):
        await done(pets.embed_multi(entries, batch_size=5))
    assert await done(pets.count()) == 5


async def test_an_empty_text_is_a_text(pets: Any, path: Path) -> None:
    await done(pets.embed("a", "", store=True))
    assert rows(path) == [("a", "", None)]


# --- asking


@pytest.fixture
async def asked(pets: Any) -> Any:
    await done(
        pets.embed_multi_with_metadata(
            [("dogs/hound", "hound", {"legs": 4}), ("dogs/poodle", "poodle", None), ("cats/tom", "tom", None)],
            store=True,
        )
    )
    return pets


async def test_similar_gives_entries_best_first(asked: Any) -> None:
    entries = await done(asked.similar("hound"))
    assert entries[0] == embedq.Entry("dogs/hound", entries[0].score, "hound", {"legs": 4})
    assert entries[0].score == pytest.approx(1.0)
    assert [entry.score for entry in entries] == sorted((entry.score for entry in entries), reverse=True)
    assert len(entries) == 3


async def test_scores_are_cosine_similarities(asked: Any) -> None:
    for id_, score in (await scores(asked.similar("poodle"))).items():
        text = {"dogs/hound": "hound", "dogs/poodle": "poodle", "cats/tom": "tom"}[id_]
        assert score == pytest.approx(embedq.cosine_similarity(vector_of(text), vector_of("poodle")))


async def test_entries_without_stored_text_and_metadata_have_none(pets: Any) -> None:
    await done(pets.embed("a", "hound"))
    (entry,) = await done(pets.similar("hound"))
    assert (entry.content, entry.metadata) == (None, None)


async def test_number_bounds_the_answer(asked: Any) -> None:
    assert len(await done(asked.similar("hound", number=2))) == 2
    assert len(await done(asked.similar("hound", 1))) == 1
    assert len(await done(asked.similar_by_id("dogs/hound", number=1))) == 1
    assert len(await done(asked.similar_by_vector(vector_of("x"), number=2))) == 2
    assert len(await done(asked.similar("hound", number=1000))) == 3


async def test_ten_entries_are_the_most_if_nothing_is_said(pets: Any) -> None:
    await done(pets.embed_multi((str(number), f"text {number}") for number in range(12)))
    for answer in (pets.similar("text 1"), pets.similar_by_id("1"), pets.similar_by_vector(vector_of("x"))):
        assert len(await done(answer)) == 10


async def test_similar_by_id_leaves_the_entry_itself_out(asked: Any) -> None:
    found = await scores(asked.similar_by_id("dogs/hound"))
    assert set(found) == {"dogs/poodle", "cats/tom"}
    assert found["cats/tom"] == pytest.approx(embedq.cosine_similarity(vector_of("tom"), vector_of("hound")))


async def test_similar_by_id_of_an_id_that_isnt_there_does_not_exist(face: Face, asked: Any) -> None:
    with pytest.raises(face.DoesNotExist, match="the collection 'pets' has no entry 'nobody'"):
        await done(asked.similar_by_id("nobody"))


async def test_similar_by_vector_takes_a_raw_vector_and_can_skip_an_id(asked: Any) -> None:
    assert list(await scores(asked.similar_by_vector(vector_of("tom"), 1))) == ["cats/tom"]
    assert "cats/tom" not in await scores(asked.similar_by_vector(vector_of("tom"), skip_id="cats/tom"))
    assert "cats/tom" not in await scores(asked.similar_by_vector(vector_of("tom"), 10, "cats/tom"))


async def test_a_prefix_bounds_the_ids(asked: Any) -> None:
    assert set(await scores(asked.similar("tom", prefix="dogs/"))) == {"dogs/hound", "dogs/poodle"}
    assert set(await scores(asked.similar_by_id("dogs/hound", prefix="dogs/"))) == {"dogs/poodle"}
    assert set(await scores(asked.similar_by_vector(vector_of("x"), prefix="cats/"))) == {"cats/tom"}


async def test_where_bounds_the_metadata(asked: Any) -> None:
    await done(asked.embed("cats/kitty", "kitty", {"legs": 4, "by": {"name": "Ann"}}))
    assert set(await scores(asked.similar("tom", where={"legs": 4}))) == {"dogs/hound", "cats/kitty"}
    assert set(await scores(asked.similar("tom", 10, "cats/", {"legs": [3, 4]}))) == {"cats/kitty"}
    assert set(await scores(asked.similar_by_id("dogs/hound", where={"by.name": "Ann"}))) == {"cats/kitty"}
    assert await scores(asked.similar_by_vector(vector_of("x"), where={"legs": "4"})) == {}
    await done(asked.embed("dogs/hound", "hound", {"legs": 3}))
    assert set(await scores(asked.similar("tom", where={"legs": 4}))) == {"cats/kitty"}
    with pytest.raises(ValueError, match="where"):
        await done(asked.similar("tom", where="legs=4"))


async def test_many_at_once_have_the_answers_that_each_would_have(asked: Any) -> None:
    texts = ["hound", "x", "hound", "tom"]
    for options in ({}, {"prefix": "dogs/"}, {"where": {"legs": 4}}, {"number": 1}):
        alone = [await done(asked.similar(text, **options)) for text in texts]
        assert await done(asked.similar_many(texts, **options)) == alone
        assert await done(asked.similar_many_by_vector(map(vector_of, texts), **options)) == alone
        ids = ["cats/tom", "dogs/hound"]
        alone = [await done(asked.similar_by_id(id_, **options)) for id_ in ids]
        assert await done(asked.similar_many_by_id(iter(ids), **options)) == alone


async def test_many_queries_are_embedded_in_batches_and_equal_ones_once(opened: Opened, path: Path) -> None:
    model = RecordingModel(batch_size=3)
    pets = await opened("pets", path, model=model)
    await done(pets.embed("a", "hound"))
    model.batches.clear()
    answers = await done(pets.similar_many(["a", "b", "a", "c", "d", "a"]))
    assert model.batches == [["a", "b", "c"], ["d"]]
    assert [len(entries) for entries in answers] == [1] * 6
    assert answers[0] == answers[2]
    assert answers[0][0] is not answers[2][0]
    assert await done(pets.similar_many([])) == []


async def test_many_with_an_id_that_isnt_there_do_not_exist(face: Face, asked: Any) -> None:
    with pytest.raises(face.DoesNotExist, match="the collection 'pets' has no entry 'nobody'"):
        await done(asked.similar_many_by_id(["cats/tom", "nobody"]))


async def test_an_empty_collection_answers_nothing(pets: Any) -> None:
    assert await done(pets.similar("hound")) == []
    assert await done(pets.similar_by_vector([1.0, 2.0])) == []


async def test_a_vector_of_another_dimension_is_refused(asked: Any) -> None:
    with pytest.raises(ValueError, match="the query has 2 dimensions; the collection's vectors have 8"):
        await done(asked.similar_by_vector([1.0, 2.0]))


@pytest.mark.parametrize("number", [0, -1])
async def test_a_number_below_1_is_refused(asked: Any, number: int) -> None:
    with pytest.raises(ValueError, match="number must be at least 1"):
        await done(asked.similar("hound", number=number))


async def test_a_query_of_a_kind_that_the_model_cant_take_is_refused(asked: Any) -> None:
    with pytest.raises(ValueError, match="takes text only"):
        await done(asked.similar(b"\x89PNG"))


async def test_a_zero_vector_scores_0_and_crashes_nothing(opened: Opened, path: Path) -> None:
    model = FaultyModel(lambda batch: [[0.0] * 8 if item == "zero" else vector_of(item) for item in batch])
    pets = await opened("pets", path, model=model)
    await done(pets.embed_multi([("z", "zero"), ("a", "hound")]))
    assert (await scores(pets.similar("hound")))["z"] == 0.0
    assert await scores(pets.similar("zero")) == {"a": 0.0, "z": 0.0}


async def test_what_was_embedded_since_the_last_question_is_found(asked: Any) -> None:
    await done(asked.similar("hound"))
    await done(asked.embed("new", "hound"))
    assert "new" in await scores(asked.similar("hound", 2))


# --- deleting


async def test_delete_takes_the_collection_and_its_entries_and_no_others(
    face: Face, opened: Opened, asked: Any, path: Path
) -> None:
    docs = await opened("docs", path, model=RecordingModel("other"))
    await done(docs.embed("kept", "hound"))
    await done(asked.delete())
    assert await done(face.exists(path, "pets")) is False
    assert await done(face.exists(path, "docs")) is True
    assert [row[0] for row in rows(path)] == ["kept"]
    assert await done(asked.count()) == 0
    assert await done(asked.similar("hound")) == []


async def test_a_deleted_collection_can_be_made_again(opened: Opened, asked: Any, path: Path) -> None:
    await done(asked.delete())
    again = await opened("pets", path, model=RecordingModel("another", dimension=3))
    await done(again.embed("a", "hound"))
    assert await done(again.count()) == 1
    assert again.model_id == "another"


async def test_embedding_into_a_collection_that_was_deleted_makes_it_again(
    opened: Opened, asked: Any, path: Path
) -> None:
    await opened("docs", path, model=RecordingModel("other"))  # takes the next key
    await done(asked.delete())
    await done(asked.embed("a", "hound"))
    assert await done(asked.count()) == 1
    assert await scores(asked.similar("hound")) == {"a": pytest.approx(1.0)}


async def test_many_ids_are_answered_in_their_order(opened: Opened, path: Path) -> None:
    pets = await opened("pets", path, model_id="hashing")
    await done(pets.embed_multi([(str(number), f"text {number}") for number in range(600)]))
    ids = [str(number) for number in range(599, -1, -7)] + ["3", "3"]
    answers = await done(pets.similar_many_by_id(ids, 2))
    assert [[entry.id for entry in answer] for answer in answers] == [
        [entry.id for entry in await done(pets.similar_by_id(id_, 2))] for id_ in ids
    ]


async def test_a_search_keeps_within_the_bytes_that_it_was_given_or_that_are_set(
    opened: Opened, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDQ_SEARCH_BYTES", "5000")
    for given, expected in ((None, 5000), (70, 70)):
        pets = await opened("pets", path, model_id="hashing", search_bytes=given)
        await done(pets.embed("hound", "my happy hound"))
        await done(pets.similar("hound"))
        asynchronous: Any = getattr(pets, "_collection", pets)
        store = asynchronous._store
        assert [index._rows._search_bytes for index in store.search._indexes.values()] == [expected]
    with pytest.raises(UsageError, match="at least 1"):
        await opened("pets", path, search_bytes=0)
