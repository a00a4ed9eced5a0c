import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedq_plugins import (
    Registry,
    default_registry,
    get_embedding_model,
    get_embedding_models,
    get_embedding_models_with_aliases,
    plugin_problems,
)
from embedq_plugins.discovery import PLUGINS_VARIABLE, discovered, named_in

PLUGIN = """
from dataclasses import dataclass
import embedq_plugins

@dataclass
class Constant(embedq_plugins.EmbeddingModel):
    model_id: str = "{id}"

    def embed_batch(self, items):
        return [[1.0, 2.0] for _ in items]

@embedq_plugins.hookimpl
def register_embedding_models(register):
    register(Constant(), aliases=("{id}-alias",))
"""


@pytest.fixture(autouse=True)
def keep_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.delenv(PLUGINS_VARIABLE, raising=False)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("embedq_plugin_") or name == "plugin_as_module":
            del sys.modules[name]


def written(path: Path, model_id: str) -> Path:
    path.write_text(PLUGIN.format(id=model_id))
    return path


def test_the_built_in_model_is_there_by_name_and_alias() -> None:
    registry = Registry()
    model = registry.get_embedding_model("hashing")
    assert registry.get_embedding_model("hash") is model
    assert registry.get_embedding_models_with_aliases()[0].plugin == "built-in"


def test_the_variable_names_modules_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "plugin_as_module.py", "one")
    file = written(tmp_path / "file with spaces.py", "two")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(PLUGINS_VARIABLE, os.pathsep.join(["plugin_as_module", "", str(file), str(file)]))
    registry = Registry()
    assert registry.plugin_problems() == []
    assert registry.get_embedding_model("one-alias").embed("x") == [1.0, 2.0]
    assert registry.get_embedding_model("two-alias").embed("x") == [1.0, 2.0]


def test_a_relative_path_starts_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "mine.py", "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PLUGINS_VARIABLE, "./mine.py")
    (entry,) = [entry for entry in Registry().get_embedding_models_with_aliases() if entry.plugin == "./mine.py"]
    assert entry.model.model_id == "mine"


def test_two_files_of_one_name_are_two_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder / "plugin.py", folder)
    files = [str(tmp_path / folder / "plugin.py") for folder in ("a", "b")]
    monkeypatch.setenv(PLUGINS_VARIABLE, os.pathsep.join(files))
    registry = Registry()
    assert registry.plugin_problems() == []
    assert {"a", "b"} <= {model.model_id for model in registry.get_embedding_models()}


def test_plugins_that_cannot_be_imported_are_problems_and_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {
        "missing.py": None,
        "syntax.py": "def",
        "exits.py": "import sys; sys.exit('needs a GPU')",
        "imports.py": "import no_such_library",
        "table.csv": "id,content",
    }
    for name, code in broken.items():
        if code is not None:
            (tmp_path / name).write_text(code)
    good = written(tmp_path / "good.py", "good")
    names = [*(str(tmp_path / name) for name in broken), "no_such_module", str(good)]
    monkeypatch.setenv(PLUGINS_VARIABLE, os.pathsep.join(names))
    registry = Registry()
    messages = {Path(plugin).name: message for plugin, message in registry.plugin_problems()}
    assert messages["missing.py"].startswith("FileNotFoundError: ")
    assert messages["syntax.py"].startswith("SyntaxError: ")
    assert messages["exits.py"] == "SystemExit: needs a GPU"
    assert messages["imports.py"] == "ModuleNotFoundError: No module named 'no_such_library'"
    assert messages["table.csv"].endswith("table.csv can't be loaded as a Python module")
    assert messages["no_such_module"] == "ModuleNotFoundError: No module named 'no_such_module'"
    assert all("\n" not in message for message in messages.values())
    assert registry.get_embedding_model("good").embed("x") == [1.0, 2.0]
    assert not any(name.startswith("embedq_plugin_syntax") for name in sys.modules)


def test_an_installed_distribution_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "plugin_as_module.py", "installed")
    info = tmp_path / "embedq_example-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: embedq-example\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[embedq]\nexample = plugin_as_module\nbroken = no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    # Named twice, it is one plugin.
    monkeypatch.setenv(PLUGINS_VARIABLE, "plugin_as_module")
    registry = Registry()
    plugins = {entry.model.model_id: entry.plugin for entry in registry.get_embedding_models_with_aliases()}
    assert plugins["installed"] == "example"
    assert [plugin for plugin, _ in registry.plugin_problems()] == ["broken"]


def test_entry_points_of_one_name_are_told_apart_by_their_distributions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[embedq]\nmodels = no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    names = [candidate.name for candidate in discovered()]
    assert [name for name in names if name.startswith("models")] == ["models (one)", "models (two)"]


def test_an_empty_variable_names_nothing() -> None:
    assert list(named_in("")) == []
    assert list(named_in(f" {os.pathsep} ")) == []


def test_the_functions_ask_the_default_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(default_registry.reset)
    file = written(tmp_path / "mine.py", "mine")
    monkeypatch.setenv(PLUGINS_VARIABLE, f"{file}{os.pathsep}no_such_module")
    default_registry.reset()
    assert get_embedding_model("mine-alias") in get_embedding_models()
    assert str(file) in [entry.plugin for entry in get_embedding_models_with_aliases()]
    assert "no_such_module" in [problem.plugin for problem in plugin_problems()]
