from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Any

import numpy as np
import pytest

from embedq_core.errors import BadVectors, UsageError, WrongVectorCount
from embedq_core.model import Model, embed_checked
from embedq_plugins import EmbeddingModel, HashingModel


class Returning(EmbeddingModel):
    """A model whose embed_batch is the given function of the batch."""

    model_id = "returning"

    def __init__(self, function: Callable[[list[Any]], Any]) -> None:
        self.function = function
        self.calls = 0

    def embed_batch(self, items: Iterable[str | bytes]) -> Any:
        self.calls += 1
        return self.function(list(items))


RETURNS: dict[str, Callable[[list[Any]], Any]] = {
    "list of lists": lambda items: [[0.5, len(item)] for item in items],
    "tuple of tuples": lambda items: tuple((0.5, len(item)) for item in items),
    "float32 array": lambda items: np.array([[0.5, len(item)] for item in items], np.float32),
    "float16 array": lambda items: np.array([[0.5, len(item)] for item in items], np.float16),
    "list of arrays": lambda items: [np.array([0.5, len(item)]) for item in items],
    "generator of lists": lambda items: ([0.5, len(item)] for item in items),
    "generator of arrays": lambda items: (np.array([0.5, len(item)], np.float32) for item in items),
    "rows read once": lambda items: (map(float, (0.5, len(item))) for item in items),
    "array.array rows": lambda items: [array("f", (0.5, len(item))) for item in items],
    "numpy scalars": lambda items: [[np.float32(0.5), np.float64(len(item))] for item in items],
}


@pytest.mark.parametrize("name", RETURNS)
def test_whatever_embed_batch_returns_vectors_are_lists_of_floats(name: str) -> None:
    model = Returning(RETURNS[name])
    vectors = [model.embed("a"), *model.embed_multi(["bc", ""], 5)]
    assert vectors == [[0.5, 1.0], [0.5, 2.0], [0.5, 0.0]]
    assert all(type(vector) is list for vector in vectors)
    assert all(type(value) is float for vector in vectors for value in vector)


def test_integers_become_floats() -> None:
    assert [type(value) for value in Returning(lambda _: np.array([[1, 2]])).embed("a")] == [float, float]


def test_a_models_own_precision_is_kept() -> None:
    assert Returning(lambda _: [[0.1, 1 / 3]]).embed("a") == [0.1, 1 / 3]


def test_embed_multi_takes_no_more_input_than_a_batch_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[str]:
        for number in range(100):
            taken.append(number)
            yield str(number)

    model = Returning(lambda batch: [[1.0] for _ in batch])
    vectors = model.embed_multi(items(), batch_size=10)
    assert (taken, model.calls) == ([], 0)
    next(vectors)
    assert (len(taken), model.calls) == (10, 1)


def test_endless_input_is_embedded_as_far_as_it_is_asked_for() -> None:
    model = Returning(lambda batch: [[1.0] for _ in batch])
    assert next(model.embed_multi(repeat("a"), batch_size=2)) == [1.0]


def test_without_items_the_model_is_not_called() -> None:
    model = Returning(lambda _: pytest.fail("called"))
    assert list(model.embed_multi([])) == []
    assert list(model.embed_multi([], batch_size=3)) == []


def test_a_full_last_batch_is_not_followed_by_an_empty_one() -> None:
    model = Returning(lambda batch: [[1.0] for _ in batch])
    list(model.embed_multi("abcd", batch_size=2))
    assert model.calls == 2


@pytest.mark.parametrize("size", [0, -1, True, 2.0, "3"])
def test_a_batch_size_that_makes_no_sense_is_refused_at_once(size: Any) -> None:
    with pytest.raises(UsageError, match="batch_size must be a whole number"):
        Returning(lambda _: []).embed_multi(["a"], batch_size=size)


@pytest.mark.parametrize("item", [None, 3, ["a"], bytearray(b"a")])
def test_what_is_neither_text_nor_bytes_is_refused(item: Any) -> None:
    with pytest.raises(ValueError, match=f"not {type(item).__name__}"):
        Returning(lambda _: []).embed(item)


def test_an_unsupported_item_is_named_by_its_number_and_its_batch_is_not_embedded() -> None:
    model = Returning(lambda batch: [[1.0] for _ in batch])
    vectors = model.embed_multi(["a", "b", "c", b"d"], batch_size=2)
    assert [next(vectors), next(vectors)] == [[1.0], [1.0]]
    with pytest.raises(UsageError, match="item 3: returning takes text only"):
        next(vectors)
    assert model.calls == 1


def test_unsupported_says_why_or_none() -> None:
    model = Returning(lambda _: [])
    assert model.unsupported("a") is None
    assert model.unsupported(b"a") == "returning takes text only, not binary data (bytes)"
    assert model.unsupported(None) == "only text (str) and binary data (bytes) can be embedded, not NoneType"


@pytest.mark.parametrize("returned", [[], [[1.0]], [[1.0]] * 3, np.ones((3, 2)), None, repeat([1.0])])
def test_too_few_or_too_many_vectors_are_never_silent(returned: Any) -> None:
    with pytest.raises(WrongVectorCount, match=r"^returning: the model returned"):
        list(Returning(lambda _: returned).embed_multi(["a", "b"]))


def test_embed_checks_the_count_as_well() -> None:
    with pytest.raises(WrongVectorCount):
        Returning(lambda _: []).embed("a")


@pytest.mark.parametrize("row", [[float("nan")], [float("inf")], [1e300], [], None, "ab", [[1.0]]])
def test_a_row_that_is_no_vector_of_finite_numbers_is_refused(row: Any) -> None:
    with pytest.raises(BadVectors, match="returning, item 0: the model returned"):
        Returning(lambda _: [row]).embed("a")


def test_vectors_before_a_bad_one_come_first() -> None:
    vectors = Returning(lambda _: [[1.0], [float("nan")]]).embed_multi(["a", "b"])
    assert next(vectors) == [1.0]
    with pytest.raises(BadVectors, match="item 1"):
        next(vectors)


def test_an_error_of_the_model_passes_through() -> None:
    def fail(_: list[Any]) -> Any:
        raise ConnectionError("429")

    with pytest.raises(ConnectionError, match="429"):
        Returning(fail).embed("a")


def test_a_model_shows_its_class_and_id() -> None:
    model = Returning(lambda _: [])
    assert (str(model), repr(model)) == ("Returning: returning", "<Returning: returning>")
    model.model_id = "evil\x1b[2J"
    assert repr(model) == "<Returning: evil\\x1b[2J>"


def test_a_model_without_an_id_can_be_shown_and_used() -> None:
    class Nameless(EmbeddingModel):
        def embed_batch(self, items: Iterable[str | bytes]) -> list[list[float]]:
            return [[1.0] for _ in items]

    assert repr(Nameless()) == "<Nameless: Nameless>"
    assert Nameless().embed("a") == [1.0]


def test_a_model_is_what_the_other_rooms_ask_for() -> None:
    model: Model = HashingModel()
    assert embed_checked(model, ["a", "b"]).matrix.shape == (2, 384)
    assert (model.batch_size, model.concurrency) == (256, 1)


def test_a_plugin_is_free_to_use_private_names() -> None:
    public = {"model_id", "supports_text", "supports_binary", "batch_size", "batch_tokens", "concurrency", "dimension"}
    public |= {"document_prefix", "query_prefix", "library", "install", "configuration", "queries_by_prefix"}
    public |= {"estimates_tokens"}
    methods = {"embed_batch", "embed_query_batch", "embed", "embed_multi", "count_tokens", "unsupported", "check_setup"}
    assert {name for name in vars(EmbeddingModel) if not name.startswith("__")} <= public | methods | {"_abc_impl"}


def test_a_model_that_is_not_asynchronous_pays_for_no_event_loop(run_python: Callable[..., str]) -> None:
    code = "import sys; from embedq_plugins import HashingModel; HashingModel().embed('a')"
    assert run_python(f"{code}; print('asyncio' in sys.modules)") == "False\n"
