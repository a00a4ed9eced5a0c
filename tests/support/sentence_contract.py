"""What models of sentence-transformers do, with the library itself and with what stands for it: the same tests.

A module that runs them imports all of this and defines two fixtures: `weights`, the folder of a model with the prompts
`query`, `document` and `title`, and `reference`, that model as the library itself opens it.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedq_core.errors import ModelMisconfigured
from embedq_core.model import embed_all, embed_checked, embed_queries
from embedq_core.vectors import Matrix
from embedq_plugins.sentences import SentenceKind, SentenceModel

# Of different lengths, not in order; the same as a query and as a document would be no test.
TEXTS = ["a hound", "to sort a list of dictionaries by the value of one key", "x", "bread that is baked in an oven"]
LONG = "one word and another " * 400


def model(weights: Path, **options: object) -> SentenceModel:
    return SentenceKind().make(f"st:{weights}", {"model": str(weights), **options})


def near(found: Matrix, expected: Any) -> bool:
    """Whether two matrices are equal up to the rounding of sums in float32, whatever the batches were."""
    assert found.dtype == np.float32
    return found.shape == np.shape(expected) and bool(np.allclose(found, np.asarray(expected, np.float32), atol=2e-6))


def test_documents_have_the_vectors_that_the_library_gives_them(weights: Path, reference: Any) -> None:
    found = embed_checked(model(weights), TEXTS)
    assert found.faults == {}
    assert near(found.matrix, reference.encode_document(TEXTS))


def test_queries_have_the_vectors_that_the_library_gives_them(weights: Path, reference: Any) -> None:
    found = embed_queries(model(weights), TEXTS)
    assert near(found, reference.encode_query(TEXTS))
    assert not near(found, reference.encode_document(TEXTS))


def test_in_small_batches_the_vectors_are_the_same(weights: Path, reference: Any) -> None:
    one = model(weights, batch_size=3, forward_batch_size=1)
    assert one.batch_size == 3
    assert near(embed_all(one, TEXTS, one.batch_size).matrix, reference.encode_document(TEXTS))


def test_a_prefix_takes_the_place_of_the_model_s_prompt(weights: Path, reference: Any) -> None:
    one = model(weights, document_prefix="doc: ", query_prefix="")
    assert near(embed_all(one, TEXTS).matrix, reference.encode_document([f"doc: {text}" for text in TEXTS], prompt=""))
    assert near(embed_queries(one, TEXTS), reference.encode_query(TEXTS, prompt=""))
    assert one.configuration == {"model": str(weights), "document_prefix": "doc: "}


def test_a_prompt_can_be_named(weights: Path, reference: Any) -> None:
    one = model(weights, document_prompt="title", query_prompt="document")
    assert near(embed_all(one, TEXTS).matrix, reference.encode_document(TEXTS, prompt_name="title"))
    assert near(embed_queries(one, TEXTS), reference.encode_query(TEXTS, prompt_name="document"))
    assert one.configuration["document_prompt"] == "title"


def test_a_prompt_that_the_model_has_not_is_named(weights: Path) -> None:
    with pytest.raises(ModelMisconfigured, match=r"has no prompt 'none'; it has .*query"):
        embed_all(model(weights, query_prompt="none"), TEXTS)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_half_the_size_give_float32_that_is_close(weights: Path, reference: Any, dtype: str) -> None:
    found = embed_checked(model(weights, dtype=dtype, device="cpu"), TEXTS).matrix
    expected = reference.encode_document(TEXTS)
    assert found.dtype == np.float32
    assert not near(found, expected)
    assert np.allclose(found, expected, atol=0.02)


def test_vectors_can_be_cut_and_scaled(weights: Path, reference: Any) -> None:
    one = model(weights, dimensions=8, normalize=True)
    found = embed_checked(one, TEXTS).matrix
    cut = np.asarray(reference.encode_document(TEXTS))[:, :8]
    assert near(found, cut / np.linalg.norm(cut, axis=1, keepdims=True))
    assert one.dimension == 8


def test_a_text_that_is_longer_than_the_model_reads_is_cut_and_that_is_said_once(
    weights: Path, reference: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="embedq.models"):
        one = model(weights)
        embed_checked(one, TEXTS)
        # As long as the limit in characters, not in tokens.
        embed_checked(one, ["a" * 10 + " b" * 130])
        assert caplog.messages == []
        assert near(embed_checked(one, [LONG]).matrix, reference.encode_document([LONG]))
        embed_checked(one, [LONG])
    assert caplog.messages == [
        f"{one.model_id} reads the first 256 tokens of a text; what longer texts have beyond is not embedded"
    ]


def test_less_of_a_text_can_be_read(weights: Path, reference: Any) -> None:
    one = model(weights, max_seq_length=16)
    assert near(embed_checked(one, ["x"]).matrix, reference.encode_document(["x"]))
    assert not near(embed_checked(one, [LONG]).matrix, reference.encode_document([LONG]))


@pytest.mark.parametrize("there", [False, True])
def test_weights_that_can_t_be_loaded_are_an_error_of_the_model_on_one_line(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "no" / "weights"
    if there:
        path.parent.mkdir()
        path.write_text("no folder")
    with pytest.raises(ModelMisconfigured) as caught:
        embed_all(model(path), TEXTS)
    assert type(caught.value) is ModelMisconfigured
    assert str(caught.value).startswith(f"st:{path}: {path} can't be loaded: ")
    assert "\n" not in str(caught.value)
