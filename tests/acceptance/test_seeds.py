"""The examples of the two pages that embedq follows, in their order, with `embedq` for `llm`."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlite_utils

from support.command_line import CommandLine

# --- the page on plugins: its complete example, installed as a package

PLUGIN = """
import embedq
from sentence_transformers import SentenceTransformer


@embedq.hookimpl
def register_embedding_models(register):
    model_id = "sentence-transformers/all-MiniLM-L6-v2"
    register(SentenceTransformerModel(model_id, model_id), aliases=("all-MiniLM-L6-v2",))


class SentenceTransformerModel(embedq.EmbeddingModel):
    def __init__(self, model_id, model_name):
        self.model_id = model_id
        self.model_name = model_name
        self._model = None

    def embed_batch(self, texts):
        if self._model is None:
            self._model = SentenceTransformer(self.model_name)
        results = self._model.encode(texts)
        return (list(map(float, result)) for result in results)
"""

# Stands for the library, which is large: as strict about its input, and returns an array as well.
LIBRARY = """
import numpy as np
from pathlib import Path


class SentenceTransformer:
    def __init__(self, name):
        with Path("loaded.txt").open("a") as file:
            file.write(name + "\\n")

    def encode(self, texts):
        assert isinstance(texts, list)
        return np.array([[len(text), text.count("e"), 0.5] for text in texts], dtype=np.float32)
"""

MODEL_ID = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def plugin(embedq: CommandLine, tmp_path: Path) -> CommandLine:
    """The command line with the page's plugin installed: its module, and the entry point of its package."""
    site = tmp_path / "site"
    information = site / "embedq_sentence_transformers-0.1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: embedq-sentence-transformers\nVersion: 0.1\n")
    (information / "entry_points.txt").write_text("[embedq]\nsentence_transformers = embedq_st\n")
    (site / "embedq_st.py").write_text(PLUGIN)
    (site / "sentence_transformers.py").write_text(LIBRARY)
    embedq.environment["PYTHONPATH"] = os.pathsep.join([str(site), embedq.environment["PYTHONPATH"]])
    return embedq


def test_the_plugin_embeds_under_its_full_id_and_its_alias(plugin: CommandLine) -> None:
    text = b"three words here"
    for name in (MODEL_ID, "all-MiniLM-L6-v2"):
        assert json.loads(plugin("embed", "-m", name, input=text).out) == [16.0, 4.0, 0.5]


def test_the_plugins_library_loads_its_model_with_the_first_batch_and_not_before(plugin: CommandLine) -> None:
    listed = plugin("models", "list").out
    assert MODEL_ID in listed
    assert "all-MiniLM-L6-v2" in listed
    assert not (plugin.directory / "loaded.txt").exists()
    plugin("embed", "-m", "all-MiniLM-L6-v2", "-c", "hound")
    assert (plugin.directory / "loaded.txt").read_text() == MODEL_ID + "\n"


def test_a_corpus_goes_through_the_plugin_and_answers_come_out(plugin: CommandLine) -> None:
    rows = plugin.directory / "rows.csv"
    rows.write_text("id,content\nshort,e\nlong,a long text without that letter\n")
    plugin("ingest", "phrases", rows, "-m", "all-MiniLM-L6-v2")
    (entry,) = map(json.loads, plugin("similar", "phrases", "-c", "ee", "-n", "1").out.splitlines())
    assert entry["id"] == "short"
    assert json.loads(plugin("collections", "list", "--json").out)[0]["model"] == MODEL_ID


# --- the page on the Python API, call by call


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "program"
    directory.mkdir()
    monkeypatch.chdir(directory)


def test_loading_a_model_and_embedding_strings() -> None:
    import embedq

    embedding_model = embedq.get_embedding_model("hash")
    vector = embedding_model.embed("my happy hound")
    assert isinstance(vector, list)
    assert {type(value) for value in vector} == {float}

    if embedding_model.supports_binary:
        raise AssertionError("the built-in model takes text")
    assert embedding_model.supports_text
    with pytest.raises(ValueError, match="text only"):
        embedding_model.embed(b"\x89PNG")

    vectors = list(embedding_model.embed_multi(["my happy hound", "my dissatisfied cat"]))
    assert vectors[0] == vector
    assert len(list(embedding_model.embed_multi((f"text {number}" for number in range(50)), batch_size=20))) == 50


def test_working_with_collections(capsys: pytest.CaptureFixture[str]) -> None:
    import embedq

    # A collection in memory, then one on disk.
    embedq.Collection("entries", model_id="hash").embed("hound", "my happy hound")
    db = sqlite_utils.Database("my-embeddings.db")
    collection = embedq.Collection("entries", db, model_id="hash")
    assert collection.model_id == "hashing"
    embedding_model = embedq.get_embedding_model("hash")
    assert embedq.Collection("entries", db, model=embedding_model).id == collection.id

    # It exists: the model can be left out.
    assert embedq.Collection("entries", db).model() is embedding_model
    with pytest.raises(embedq.Collection.DoesNotExist):
        embedq.Collection("missing", db, create=False)

    collection.embed("hound", "my happy hound")
    collection.embed("hound", "my happy hound", store=True)
    collection.embed("hound", "my happy hound", metadata={"name": "Hound"}, store=True)
    assert collection.count() == 1

    collection.embed_multi([("hound", "my happy hound"), ("cat", "my dissatisfied cat")], store=True)
    collection.embed_multi_with_metadata(
        [("hound", "my happy hound", {"name": "Hound"}), ("cat", "my dissatisfied cat", {"name": "Cat"})], store=True
    )
    collection.embed_multi(((str(number), f"text {number}") for number in range(30)), store=True, batch_size=10)
    assert collection.count() == 32

    for entry in collection.similar("a happy hound"):
        print(entry.id, entry.score)
    assert capsys.readouterr().out.startswith("hound 0.")
    assert len(collection.similar("a happy hound", number=5)) == 5
    first = collection.similar("my happy hound", number=1)[0]
    assert (first.id, first.content, first.metadata) == ("hound", "my happy hound", {"name": "Hound"})
    assert first.score == pytest.approx(1.0)

    neighbours = [entry.id for entry in collection.similar_by_id("cat")]
    assert "cat" not in neighbours
    assert len(neighbours) == 10

    vector = embedding_model.embed("my dissatisfied cat")
    assert collection.similar_by_vector(vector, number=1)[0].id == "cat"
    assert collection.similar_by_vector(vector, skip_id="cat")[0].id != "cat"

    assert embedq.Collection.exists(db, "entries")
    collection.delete()
    assert not embedq.Collection.exists(db, "entries")
    collection.close()
    db.close()


def test_the_tables_are_as_the_page_describes_them() -> None:
    import embedq

    with embedq.Collection("entries", "my-embeddings.db", model_id="hash") as collection:
        collection.embed("hound", "my happy hound", metadata={"name": "Hound"}, store=True)
        collection.embed("cat", "my dissatisfied cat")
    with closing(sqlite3.connect("my-embeddings.db")) as db:
        assert db.execute("SELECT name, model FROM collections").fetchall() == [("entries", "hashing")]
        rows: dict[str, Any] = {
            id_: row
            for id_, *row in db.execute("SELECT id, embedding, content, content_hash, metadata FROM embeddings")
        }
    embedding, content, digest, metadata = rows["hound"]
    assert embedq.decode(embedding) == pytest.approx(embedq.get_embedding_model("hash").embed("my happy hound"))
    assert (content, digest, metadata) == (
        "my happy hound",
        embedq.content_hash("my happy hound"),
        '{"name": "Hound"}',
    )
    assert rows["cat"][1] is None
    assert rows["cat"][3] is None
    assert embedq.encode(embedq.decode(embedding)) == embedding
    assert embedq.cosine_similarity(embedq.decode(embedding), embedq.decode(rows["cat"][0])) < 1


def test_every_name_of_the_face_is_there() -> None:
    import embedq

    assert set(embedq.__all__) <= set(dir(embedq))
    for name in embedq.__all__:
        assert getattr(embedq, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        embedq.nothing  # noqa: B018 - the access is the test
