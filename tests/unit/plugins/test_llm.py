"""The `llm` tool is looked for without being imported, and imported when one of its models is asked for."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from llm.models import EmbeddingModel as TheirModel

from embedq_core.errors import ModelError
from embedq_plugins.llm_models import LlmModel
from embedq_plugins.testing import ModelConformance


class Theirs(TheirModel):
    model_id = "theirs"
    supports_binary = True
    batch_size = 4

    def embed_batch(self, items: Iterable[str | bytes], *, key: str | None = None) -> Any:  # noqa: ARG002 - theirs
        return ([float(len(item)), float(sum(item if isinstance(item, bytes) else item.encode()))] for item in items)


class TestConformance(ModelConformance):
    model = LlmModel(Theirs())
    binary = (b"one", b"another")


class OddError(Exception):
    """Has its text from elsewhere than from its arguments."""

    def __str__(self) -> str:
        return "refused: sk-secret"


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (ValueError("refused: sk-secret"), ValueError, r"^refused: \[key\]$"),
        (ValueError("refused", 401), ValueError, r"^\('refused', 401\)$"),
        (OddError(), ModelError, r"^OddError: refused: \[key\]$"),
    ],
)
def test_the_key_is_in_no_error_and_the_error_keeps_its_class(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception], message: str
) -> None:
    class Refusing(Theirs):
        needs_key = "refusing"
        key_env_var = "REFUSING_KEY"

        def embed_batch(self, items: Iterable[str | bytes], *, key: str | None = None) -> Any:  # noqa: ARG002 - theirs
            raise error

    monkeypatch.setenv("REFUSING_KEY", "sk-secret")
    with pytest.raises(raised, match=message):
        LlmModel(Refusing()).embed("x")


def test_llm_is_not_imported_where_no_model_of_it_is_asked_for(run_python: Callable[..., str]) -> None:
    code = """
import sys
import embedq_plugins
embedq_plugins.get_embedding_model("hash").embed("x")
embedq_plugins.plugin_problems(), embedq_plugins.model_kinds()
print("llm" in sys.modules)
embedq_plugins.get_embedding_model("3-small")
print("llm" in sys.modules)
"""
    assert run_python(code).split() == ["False", "True"]


def test_a_folder_called_llm_is_not_taken_for_it(run_python: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "llm").mkdir()
    code = """
import sys
from embedq_plugins.discovery import discovered_later
sys.path[:] = [path for path in sys.path if "site-packages" not in path]
print(list(discovered_later()))
"""
    assert run_python(code).strip() == "[]"
