"""What is tested of models of sentence-transformers with what stands for the library, with the library and weights."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from embedq_core.model import embed_checked
from support.sentence_contract import *  # noqa: F403 - the tests
from support.sentence_contract import TEXTS, model

# What comes with libraries of others is theirs; and the first text waits for torch to be imported.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]


@pytest.fixture(scope="session")
def weights(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM as if it had been trained with prompts."""
    folder = tmp_path_factory.mktemp("prompted") / "minilm"
    folder.mkdir()
    for path in minilm.iterdir():
        (folder / path.name).symlink_to(path)
    configuration = folder / "config_sentence_transformers.json"
    said = json.loads(configuration.read_text())
    configuration.unlink()
    prompts = {"query": "query: ", "document": "passage: ", "title": "title: "}
    configuration.write_text(json.dumps({**said, "prompts": prompts}))
    return folder


@pytest.fixture(scope="session")
def reference(library: Any, weights: Path) -> Any:
    return library.SentenceTransformer(str(weights))


def test_the_real_library_brings_what_the_tests_ask_of_it(reference: Any) -> None:
    assert reference.prompts["title"] == "title: "
    assert reference.max_seq_length == 256


def test_without_prompts_documents_and_queries_have_the_vectors_of_encode(library: Any, minilm: Path) -> None:
    found = embed_checked(model(minilm), TEXTS).matrix
    assert near(found, library.SentenceTransformer(str(minilm)).encode(TEXTS))  # noqa: F405 - of the contract
    assert found.shape == (len(TEXTS), 384)


def test_loading_shows_no_progress_and_leaves_the_switch_as_it_was(
    minilm: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from importlib import import_module

    switch = import_module("transformers.utils.logging")
    assert switch.is_progress_bar_enabled()
    with caplog.at_level(logging.WARNING):
        embed_checked(model(minilm), TEXTS)
    assert switch.is_progress_bar_enabled()
    assert capfd.readouterr().err == ""
    assert caplog.messages == []
