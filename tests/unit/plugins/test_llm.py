"""The `llm` tool is looked for without being imported, and imported when one of its models is asked for."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from llm.models import EmbeddingModel as TheirModel

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
