"""What docs/plugins.md says is so: each of its files is loaded, run and put through the conformance suite."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedq_core.errors import MissingKey
from embedq_plugins import Registry
from embedq_plugins.discovery import named_in
from embedq_plugins.kinds import configured_in
from embedq_plugins.loading import load
from embedq_plugins.testing import check_model
from support.parsing import parsed
from support.waiting import BOUND_SECONDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
BINARY = (b"\x89PNG 1", b"\x89PNG and more")


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCKS if found == language]


def files() -> dict[str, str]:
    """The blocks of Python by their names, which are in their first lines."""
    return {text.split("\n", 1)[0].removeprefix("# "): text for text in blocks("python")}


PLUGINS = [name for name, text in files().items() if "@embedq.hookimpl" in text]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with all files of the page, from which modules are imported."""
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("REMOTE_KEY", "secret")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def test_every_block_is_a_file_a_command_or_a_table() -> None:
    assert {language for language, _ in BLOCKS} == {"python", "sh", "toml"}
    assert len(files()) == len(blocks("python"))
    assert all(re.fullmatch(r"\w+\.py", name) for name in files())
    assert {*files()} - {*PLUGINS} == {"test_letters.py", "check_histogram.py"}


@pytest.mark.parametrize("name", PLUGINS)
def test_every_plugin_of_the_page_loads_and_its_models_keep_all_promises(folder: Path, name: str) -> None:
    loaded = load(named_in(str(folder / name)))
    assert loaded.problems == []
    models = [registration.model for registration in loaded.registrations]
    models += [kind.make(f"{kind.name}:aeiou", {"model": "aeiouyx"}) for kind in loaded.kinds.values()]
    assert models
    for model in models:
        assert check_model(model, binary=BINARY) == []


def test_the_first_plugin_of_the_page_has_ten_lines_or_fewer_and_is_that_of_the_readme() -> None:
    code = files()["letters.py"].split("\n", 1)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    assert code in (ROOT / "README.md").read_text()


def test_a_key_that_is_missing_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REMOTE_KEY")
    (registration,) = load(named_in(str(folder / "remote.py"))).registrations
    with pytest.raises(MissingKey, match="set REMOTE_KEY"):
        registration.model.embed("x")


def test_the_table_of_the_settings_file_describes_a_model(folder: Path) -> None:
    (settings,) = [text for text in blocks("toml") if "[models." in text]
    (folder / "settings.toml").write_text(settings)
    loaded = load(named_in(str(folder / "repeated.py")))
    plugin = sys.modules[type(next(iter(loaded.kinds.values()))).__module__]
    registry = Registry({"page": plugin}, configured=lambda: configured_in(folder / "settings.toml"))
    assert registry.get_embedding_model("v").embed("a banana") == [4.0, 0, 0, 0, 0] * 2
    assert registry.get_embedding_model("repeated:aeiou").dimension == 5
    assert registry.plugin_problems() == []


def test_the_packaged_plugin_names_a_module_of_the_page() -> None:
    (text,) = [text for text in blocks("toml") if "entry-points" in text]
    packaged = tomllib.loads(text)
    assert packaged["project"]["entry-points"]["embedq"] == {"letters": "letters"}
    assert packaged["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"] == ["letters.py"]
    assert "letters.py" in files()


def test_the_tests_of_the_page_pass_and_its_program_prints_what_is_said(folder: Path) -> None:
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    checked = [sys.executable, "check_histogram.py"]
    tested = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "test_letters.py"]
    for command, expected in ((checked, "[]\n"), (tested, " passed")):
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BOUND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert expected in done.stdout


def test_every_command_line_is_one_that_embedq_understands() -> None:
    example = (ROOT / "plugins" / "examples" / "embedq-colours" / "README.md").read_text()
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    lines += [line for line in example.splitlines() if line.startswith("embedq ")]
    assert len(lines) > 12
    for line in lines:
        words = shlex.split(line, comments=True)
        while "=" in words[0]:
            words.pop(0)
        assert words.pop(0) == "embedq"
        assert isinstance(parsed(words), dict), line


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", PAGE)
    assert links
    for link in links:
        assert (ROOT / "docs" / link).exists(), link
