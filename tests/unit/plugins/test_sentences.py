"""Models of sentence-transformers, with what stands for the library: `tests/models` has it itself."""

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from embedq_core.errors import MissingLibrary, ModelMisconfigured, ModelUnavailable, SettingsError
from embedq_core.model import embed_checked
from embedq_plugins.libraries import is_installed, load_failure
from embedq_plugins.sentences import BATCH_SIZE, SentenceKind
from support.sentence_contract import *  # noqa: F403 - the tests
from support.sentence_contract import TEXTS, model
from support.sentence_library import stand_in


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, module in stand_in().items():
        monkeypatch.setitem(sys.modules, name, module)
    return sys.modules["sentence_transformers"].SentenceTransformer


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    return folder


@pytest.fixture
def reference(library: Any, weights: Path) -> Any:
    return library(str(weights), truncate_dim=None)


def test_the_weights_are_loaded_once_by_the_first_text(library: Any, weights: Path) -> None:
    one = model(weights, device="cpu", revision="v2", trust_remote_code=True)
    assert library.made == []
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda text: embed_checked(one, [text]), TEXTS))
    assert library.made == [
        {
            "name": str(weights),
            "device": "cpu",
            "revision": "v2",
            "trust_remote_code": True,
            "truncate_dim": None,
        }
    ]


def test_code_that_a_model_brings_is_not_run_unless_that_is_asked_for(library: Any, weights: Path) -> None:
    embed_checked(model(weights), TEXTS)
    assert library.made[0]["trust_remote_code"] is False


def test_a_path_may_begin_with_the_home(library: Any, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(weights.parent))
    embed_checked(SentenceKind().make("st:~/weights", {"model": "~/weights"}), TEXTS)
    assert library.made[0]["name"] == str(weights)


def test_the_library_is_given_enough_at_a_time_to_sort_by_length(library: Any, weights: Path) -> None:
    one = model(weights)
    assert one.batch_size == BATCH_SIZE
    embed_checked(one, TEXTS)
    assert library.forward_sizes[0] * 4 <= BATCH_SIZE


def test_where_memory_does_not_suffice_fewer_texts_are_tried_from_then_on(library: Any, weights: Path) -> None:
    library.fits = 2
    one = model(weights, forward_batch_size=8)
    assert embed_checked(one, TEXTS).faults == {}
    embed_checked(one, TEXTS)
    assert library.forward_sizes == [8, 4, 2, 2]


def test_memory_that_does_not_suffice_for_one_text_is_the_model_s_error(library: Any, weights: Path) -> None:
    library.fits = 0
    with pytest.raises(RuntimeError, match="Tried to allocate"):
        embed_checked(model(weights), TEXTS[:1])
    assert library.forward_sizes[-1] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int4"}, "Invalid enum value"),
        ({"batch_size": 0}, ">= 1"),
        ({"forward_batch_size": "many"}, "Expected `int`"),
        ({"query_prefix": "q", "query_prompt": "query"}, "set query_prefix or query_prompt, not both"),
        ({"size": 3}, "there is no option 'size'"),
    ],
)
def test_options_that_can_t_be_used_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        SentenceKind().make("st:x", {"model": "x", **options})


# --- a library that is missing


def test_a_missing_library_is_said_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    one = model(weights)
    assert not is_installed(one)
    with pytest.raises(MissingLibrary) as caught:
        embed_checked(one, TEXTS)
    assert str(caught.value) == (
        f"st:{weights} needs sentence_transformers, which is not installed: pip install 'embedq[sentence-transformers]'"
    )


def test_nothing_is_imported_by_asking_for_a_model(run_python: Callable[..., str]) -> None:
    code = (
        "import sys, json; from embedq_plugins import get_embedding_model, is_installed, model_kinds;"
        "model = get_embedding_model('st:some-model'); is_installed(model);"
        "print(json.dumps([[kind.name for kind in model_kinds()], model.model_id, model.batch_size,"
        "[name for name in ('numpy', 'torch', 'sentence_transformers') if name in sys.modules]]))"
    )
    kinds, model_id, batch_size, imported = json.loads(run_python(code))
    assert "st" in kinds
    assert (model_id, batch_size, imported) == ("st:some-model", BATCH_SIZE, [])


# --- why weights can't be loaded


class ConnectError(Exception):
    """As a client of HTTP has it: known by its name."""


class OfflineModeIsEnabled(ConnectionError):  # noqa: N818
    """As the hub's client has it, where connections are switched off."""


def chained(outer: Exception, *causes: Exception) -> Exception:
    current = outer
    for cause in causes:
        current.__cause__ = cause
        current = cause
    return outer


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (chained(OSError("We couldn't connect"), FileNotFoundError("no cache"), ConnectError("x")), ModelUnavailable),
        (chained(OSError("no"), TimeoutError()), ModelUnavailable),
        (chained(OSError("no"), OfflineModeIsEnabled("off")), ModelMisconfigured),
        (ValueError("Unrecognized model"), ModelMisconfigured),
        (FileNotFoundError("Path /x not found"), ModelMisconfigured),
        (AssertionError(), ModelMisconfigured),
    ],
    ids=repr,
)
def test_only_a_connection_that_failed_may_pass_by_itself(error: Exception, kind: type[Exception]) -> None:
    found = load_failure(SentenceKind().make("st:x", {"model": "x"}), "x", error)
    assert type(found) is kind
    assert str(found).startswith("st:x: x can't be loaded: ")
