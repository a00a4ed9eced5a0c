"""The suite for models: good ones pass all of it, and for each promise there is a model that breaks it."""

import itertools
import sys
import threading
import unittest
from collections.abc import Callable, Iterable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedq_plugins import EmbeddingModel, HashingModel, testing
from embedq_plugins.testing import PROMISES, ModelConformance, Promise, Subject, check_model


def vector_of(item: str | bytes) -> list[float]:
    text = item.decode(errors="replace") if isinstance(item, bytes) else item
    return [float(len(text)), float(sum(map(ord, text)) % 97), 1.0]


class Good(EmbeddingModel):
    """Keeps every promise, with text and with bytes."""

    model_id = "good"
    supports_binary = True
    batch_size: int | None = 16
    dimension = 3
    document_prefix = "stored: "

    def embed_batch(self, items: Iterable[str | bytes]) -> Any:
        return [vector_of(item) for item in items]


BYTES = (b"one", b"another")


class TestHashing(ModelConformance):
    model = HashingModel()


class TestUnittest(ModelConformance, unittest.TestCase):
    model = Good()
    binary = BYTES


class EmptyBatch(Good):
    batch_size = 0


class Unwritable(Good):
    @property
    def configuration(self) -> Mapping[str, Any]:
        return {"task": object()}


class Changing(Good):
    counter = itertools.count()

    @property
    def configuration(self) -> Mapping[str, int]:
        return {"revision": next(self.counter)}


class OtherDimension(Good):
    dimension = 4


class Nan(Good):
    def embed_batch(self, items: Iterable[str | bytes]) -> Any:
        return [[float("nan"), 1.0, 1.0] if len(item) > 300 else vector_of(item) for item in items]


class Ragged(Good):
    def embed_batch(self, items: Iterable[str | bytes]) -> Any:
        return [[*vector_of(item), 1.0] if isinstance(item, bytes) else vector_of(item) for item in items]


class TooMany(Good):
    def embed_batch(self, items: Iterable[str | bytes]) -> Any:
        return [vector_of(item) for item in [*items, "one more"]]


class Constant(Good):
    def embed_batch(self, items: Iterable[str | bytes]) -> Any:
        return [[1.0, 2.0, 3.0] for _ in items]


class SortedByLength(Good):
    """Puts long texts together, and forgets to put them back."""

    def embed_batch(self, items: Iterable[str | bytes]) -> Any:
        return [vector_of(item) for item in sorted(items, key=len)]


class Random(Good):
    generator = np.random.default_rng(1)

    def embed_batch(self, items: Iterable[str | bytes]) -> Any:
        return np.array([vector_of(item) for item in items]) + self.generator.normal(size=(len(list(items)), 3))


class Centred(Good):
    """Takes the mean of the batch away."""

    def embed_batch(self, items: Iterable[str | bytes]) -> Any:
        matrix = np.array([vector_of(item) for item in items])
        return matrix - matrix.mean(axis=0)


class Greedy(Good):
    """Says 32, and takes 31."""

    batch_size = 32

    def embed_batch(self, items: Iterable[str | bytes]) -> Any:
        if len(list(items)) > 31:
            raise ValueError("too many at once")
        return super().embed_batch(items)


class TakesAll(Good):
    supports_binary = False

    def unsupported(self, item: object) -> str | None:  # noqa: ARG002 - as the base class has it
        return None


class NoEmpty(Good):
    document_prefix = ""

    def embed_batch(self, items: Iterable[str | bytes]) -> Any:
        return [vector_of(item) for item in items if item]


class OneThread(Good):
    def __init__(self) -> None:
        self.thread: int | None = None

    def embed_batch(self, items: Iterable[str | bytes]) -> Any:
        self.thread = self.thread or threading.get_ident()
        if self.thread != threading.get_ident():
            raise RuntimeError("made in another thread")
        return super().embed_batch(items)


class OtherQueries(Good):
    def embed_query_batch(self, items: Iterable[str | bytes]) -> Any:
        return [vector_of(item)[:2] for item in items]


BROKEN: list[tuple[Promise, type[Good], str]] = [
    (testing.attributes, EmptyBatch, "batch_size must be a whole number of at least 1, or None, not 0"),
    (testing.configuration, Unwritable, "TypeError"),
    (testing.configuration, Changing, "it is {'revision': 0}"),
    (testing.vectors, OtherDimension, "dimension is 4, and the vectors have 3"),
    (testing.vectors, Nan, "NaN"),
    (testing.vectors, Ragged, "dimension"),
    (testing.vectors, TooMany, "more than 11 vectors for a batch of 11"),
    (testing.difference, Constant, "all items got one vector"),
    (testing.order, SortedByLength, "is apart by"),
    (testing.repetition, Random, "is apart by"),
    (testing.company, Centred, "is apart by"),
    (testing.full_batches, Greedy, "too many at once"),
    (testing.kinds_of_content, TakesAll, "bytes: support is False, and unsupported() says None"),
    (testing.odd_contents, NoEmpty, "returned 0 vectors for a batch of 1"),
    (testing.threads, OneThread, "made in another thread"),
    (testing.queries, OtherQueries, "2 numbers, and 3 when stored"),
]


@pytest.mark.parametrize(("promise", "kind", "how"), BROKEN, ids=[kind.__name__ for _, kind, _ in BROKEN])
def test_a_promise_that_is_broken_is_noticed(promise: Promise, kind: type[Good], how: str) -> None:
    broken = testing.kept(promise, Subject(kind(), binary=BYTES))
    assert broken is not None
    assert broken.startswith(f"{promise.__doc__} Not so: ")
    assert how in broken


def test_every_promise_but_that_of_imports_is_among_those_that_are_broken_above() -> None:
    assert {promise for promise, _, _ in BROKEN} == {*PROMISES} - {testing.lazy_import}


EARLY = """
{at_once}
import embedq_plugins

class Early(embedq_plugins.EmbeddingModel):
    model_id = "early"
    library = "colorsys"

    def __init__(self):
        {when_made}

    def embed_batch(self, items):
        import colorsys

@embedq_plugins.hookimpl
def register_embedding_models(register):
    register(Early(), aliases=("e",))
"""


@pytest.mark.parametrize(
    ("at_once", "when_made", "noticed"),
    [("import colorsys", "pass", True), ("import json", "import colorsys", True), ("import json", "pass", False)],
)
def test_a_plugin_that_imports_its_library_too_early_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: str, when_made: str, noticed: bool
) -> None:
    (tmp_path / "early_plugin.py").write_text(EARLY.format(at_once=at_once, when_made=when_made))
    spec = spec_from_file_location("early_plugin", tmp_path / "early_plugin.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "early_plugin", module)
    spec.loader.exec_module(module)
    broken = testing.kept(testing.lazy_import, Subject(module.Early()))
    assert (broken or "").endswith("loading early_plugin imports colorsys") == noticed
    assert (broken is not None) == noticed


def test_bytes_can_not_be_tried_without_any_and_nothing_else_is_said() -> None:
    (broken,) = check_model(Good())
    assert "there are no bytes to try: give some as `binary`" in broken


def test_a_test_fails_for_a_model_that_breaks_its_promise() -> None:
    class Suite(ModelConformance):
        model = Constant()
        binary = BYTES

    with pytest.raises(AssertionError, match="all items got one vector"):
        Suite().test_difference()  # type: ignore[attr-defined] # made in a loop
    Suite().test_order()  # type: ignore[attr-defined]


def test_the_suite_needs_no_pytest(run_python: Callable[..., str]) -> None:
    code = "import sys; from embedq_plugins import HashingModel; from embedq_plugins.testing import check_model; "
    assert run_python(code + "print(check_model(HashingModel()), 'pytest' in sys.modules)") == "[] False\n"
