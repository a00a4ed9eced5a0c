"""The plugin guide, sentence by sentence, with its own examples."""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from types import GeneratorType, ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

import embedq_plugins
from embedq_plugins import EmbeddingModel, Registry

PLUGIN = """
import embedq_plugins
from sentence_transformers import SentenceTransformer


@embedq_plugins.hookimpl
def register_embedding_models(register):
    model_id = "sentence-transformers/all-MiniLM-L6-v2"
    register(SentenceTransformerModel(model_id, model_id), aliases=("all-MiniLM-L6-v2",))


class SentenceTransformerModel(embedq_plugins.EmbeddingModel):
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


class SentenceTransformer:
    """Stands for the library: as slow to make, and returns numpy rows."""

    made: ClassVar[list[str]] = []

    def __init__(self, name: str) -> None:
        self.made.append(name)

    def encode(self, texts: list[str]) -> Any:
        assert isinstance(texts, list)
        return np.array([[len(text), text.count("e"), 0.5] for text in texts], dtype=np.float32)


@pytest.fixture
def guide_plugin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    library = ModuleType("sentence_transformers")
    library.SentenceTransformer = SentenceTransformer  # type: ignore[attr-defined] # a module made here
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    monkeypatch.setattr(SentenceTransformer, "made", [])
    plugin = ModuleType("guide_plugin")
    exec(PLUGIN, plugin.__dict__)  # noqa: S102 - the guide's text is the plugin
    return plugin


class MyEmbeddingModel(EmbeddingModel):
    model_id = "my-model"
    batch_size = 32

    def __init__(self) -> None:
        self.calls: list[list[str | bytes]] = []

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterator[list[float]]:
        assert isinstance(items, list)
        self.calls.append(items)
        for item in items:
            yield [float(len(item)), 1.0]


class ClipEmbeddingModel(MyEmbeddingModel):
    model_id = "clip"
    supports_binary = True
    supports_text = True


def test_a_model_must_implement_embed_batch() -> None:
    class Unfinished(EmbeddingModel):
        model_id = "unfinished"

    with pytest.raises(TypeError, match="embed_batch"):
        Unfinished()  # type: ignore[abstract]


def test_a_model_takes_text_only_in_one_call_unless_it_says_otherwise() -> None:
    assert EmbeddingModel.supports_text is True
    assert EmbeddingModel.supports_binary is False
    assert EmbeddingModel.batch_size is None


def test_the_complete_example_is_found_by_its_full_id_and_by_its_alias(guide_plugin: ModuleType) -> None:
    registry = Registry({"guide": guide_plugin})
    by_id = registry.get_embedding_model("sentence-transformers/all-MiniLM-L6-v2")
    assert registry.get_embedding_model("all-MiniLM-L6-v2") is by_id
    assert registry.plugin_problems() == []


def test_the_complete_example_loads_its_library_model_with_the_first_batch(guide_plugin: ModuleType) -> None:
    model = Registry({"guide": guide_plugin}).get_embedding_model("all-MiniLM-L6-v2")
    assert SentenceTransformer.made == []
    assert model.embed("three") == [5.0, 2.0, 0.5]
    assert list(model.embed_multi(["", "e"])) == [[0.0, 0.0, 0.5], [1.0, 1.0, 0.5]]
    assert SentenceTransformer.made == ["sentence-transformers/all-MiniLM-L6-v2"]


def test_register_without_aliases() -> None:
    class Plugin:
        @embedq_plugins.hookimpl
        def register_embedding_models(self, register: Callable[..., None]) -> None:
            register(MyEmbeddingModel())

    (entry,) = Registry({"mine": Plugin()}).get_embedding_models_with_aliases()
    assert (entry.model.model_id, entry.aliases, entry.plugin) == ("my-model", (), "mine")


def test_aliases_are_one_or_more_short_names() -> None:
    class Plugin:
        @embedq_plugins.hookimpl
        def register_embedding_models(self, register: Callable[..., None]) -> None:
            register(MyEmbeddingModel(), aliases=("m", "mine"))

    registry = Registry({"mine": Plugin()})
    assert registry.get_embedding_model("m") is registry.get_embedding_model("mine")


def test_embed_returns_a_list_of_floats() -> None:
    vector = MyEmbeddingModel().embed("my happy hound")
    assert vector == [14.0, 1.0]
    assert isinstance(vector, list)
    assert all(type(value) is float for value in vector)


def test_a_text_model_refuses_bytes_before_it_is_called() -> None:
    model = MyEmbeddingModel()
    with pytest.raises(ValueError, match="my-model takes text only, not binary data"):
        model.embed(b"\x89PNG")
    assert model.calls == []


def test_a_model_that_rejects_text_refuses_it_before_it_is_called() -> None:
    class Images(ClipEmbeddingModel):
        supports_text = False

    model = Images()
    assert model.embed(b"\x89PNG") == [4.0, 1.0]
    with pytest.raises(ValueError, match=r"takes binary data .* only, not text"):
        model.embed("hound")
    assert model.calls == [[b"\x89PNG"]]


def test_a_model_of_both_kinds_gets_a_mixed_list() -> None:
    model = ClipEmbeddingModel()
    assert list(model.embed_multi([b"12", "a"])) == [[2.0, 1.0], [1.0, 1.0]]
    assert model.calls == [[b"12", "a"]]


def test_embed_multi_is_a_generator() -> None:
    vectors = MyEmbeddingModel().embed_multi(["a"])
    assert isinstance(vectors, GeneratorType)
    assert inspect.getgeneratorstate(vectors) == inspect.GEN_CREATED


def test_embed_multi_splits_large_inputs_into_batches_of_batch_size() -> None:
    model = MyEmbeddingModel()
    assert len(list(model.embed_multi(str(number) for number in range(70)))) == 70
    assert [len(call) for call in model.calls] == [32, 32, 6]


def test_the_batch_size_argument_wins_over_the_attribute() -> None:
    model = MyEmbeddingModel()
    list(model.embed_multi(["a", "b", "c"], batch_size=2))
    assert model.calls == [["a", "b"], ["c"]]


def test_without_a_batch_size_all_items_are_passed_in_a_single_call() -> None:
    class AtOnce(MyEmbeddingModel):
        batch_size = None  # type: ignore[assignment] # the base class of this test narrowed it to int

    model = AtOnce()
    assert len(list(model.embed_multi(map(str, range(1000))))) == 1000
    assert [len(call) for call in model.calls] == [1000]
