from collections.abc import Iterable
from typing import Any

import pytest

from embedq_plugins import EmbeddingModel
from embedq_plugins.validation import model_fault, name_fault


class Model(EmbeddingModel):
    model_id = "model"

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def embed_batch(self, items: Iterable[str | bytes]) -> list[list[float]]:
        return [[1.0] for _ in items]


def test_a_sound_model_has_no_fault() -> None:
    assert model_fault(Model(batch_size=1, concurrency=8)) is None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Model, r"the class Model: register an instance, register\(Model\(\)\)"),
        (object(), "object, which is no EmbeddingModel"),
        (Model(model_id=""), "model_id must not be empty"),
        (Model(model_id=None), "model_id must be a str, not NoneType"),
        (Model(model_id=" a"), "must not begin or end with white space"),
        (Model(model_id="a\n"), "must not begin or end with white space"),
        (Model(model_id="a\x00b"), "must not hold control characters"),
        (Model(batch_size=0), "batch_size must be .* not 0"),
        (Model(batch_size=True), "batch_size must be .* not True"),
        (Model(batch_size="32"), "batch_size must be .* not '32'"),
        (Model(batch_tokens=0), "batch_tokens must be .* not 0"),
        (Model(concurrency=0), "concurrency must be .* not 0"),
        (Model(concurrency=None), "concurrency must be .* not None"),
        (Model(supports_text=False), "supports neither text nor binary data"),
    ],
)
def test_a_fault_says_what_is_wrong(model: object, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert model_fault(model) is None, model_fault(model)


def test_a_model_without_an_id_has_a_fault() -> None:
    class Nameless(EmbeddingModel):
        def embed_batch(self, items: Iterable[str | bytes]) -> list[list[float]]:
            return [[1.0] for _ in items]

    assert model_fault(Nameless()) == "Nameless has no model_id: set it on the class or in __init__"


@pytest.mark.parametrize("name", ["a", "sentence-transformers/all-MiniLM-L6-v2", "two words", "模型", "a:b"])
def test_names_of_all_kinds_are_allowed(name: str) -> None:
    assert name_fault(name) is None
