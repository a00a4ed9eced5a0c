"""What README.md and docs/ say is so: tables are compared, examples are run, command lines are parsed."""

import ast
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import embedq as face
from embedq_core import settings as settings_module
from embedq_core.settings import ENV_PREFIX, Settings, load_settings
from embedq_jobs import RUN_NOTE
from embedq_plugins import Registry
from embedq_plugins.discovery import ENTRY_POINT_GROUP, PLUGINS_VARIABLE
from embedq_plugins.kinds import configured_in
from support.parsing import parsed
from support.waiting import BOUND_SECONDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DESIGN = (ROOT / "docs" / "design.md").read_text()

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What differs from run to run.
_RUN = re.compile(r"\brun \d{8}-\d{6}-\w{5}\b")
_TIME = re.compile(r" in [\d.]+ s \([\d,]+/s\)")
_PATH = re.compile(r" in \S+/embeddings\.db")
_SCORE = re.compile(r"(0\.\d{6})\d+")


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in this language, in order."""
    return [text for found, text in _FENCED.findall(README) if found == language]


def steady(text: str) -> str:
    """`text` with what differs from run to run left out, and scores to six digits."""
    for pattern, replacement in ((_RUN, "run RUN"), (_TIME, " in TIME"), (_PATH, " in DATABASE"), (_SCORE, r"\1")):
        text = pattern.sub(replacement, text)
    return text


@pytest.fixture
def environment() -> dict[str, str]:
    """The test's own environment, with the `embedq` of this Python on the PATH and output in the order of writing."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """What a command prints, standard error among it. It must end well."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BOUND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


# --- tables


def meanings() -> dict[str, str]:
    """The docstring of each field of Settings."""
    (definition,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for statement, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            assert isinstance(after, ast.Expr), f"{statement.target.id} has no docstring"
            assert isinstance(after.value, ast.Constant)
            found[statement.target.id] = str(after.value.value)
    return found


def test_the_table_of_settings_is_that_of_the_program() -> None:
    defaults = {field.name: getattr(load_settings(), field.name) for field in fields(Settings)}
    said = meanings()
    rows = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for name, default in defaults.items():
        shown = "none" if default is None else f"`{default}`"
        if name == "database":
            assert Path(default).name == "embeddings.db"
            shown = "`embeddings.db` in your data folder"
        rows.append(f"| `{ENV_PREFIX}{name.upper()}` | {shown} | {said[name]} |")
    assert "\n".join(rows) + "\n" in README


def test_no_other_variable_is_read_than_the_readme_names() -> None:
    packages = [path.parent for path in ROOT.glob("*/embedq_*/__init__.py")] + [ROOT / "embedq"]
    read = {
        name
        for package in packages
        for path in package.rglob("*.py")
        for name in re.findall(rf"\b{ENV_PREFIX}[A-Z][A-Z_]+\b", path.read_text())
    }
    read -= {"EMBEDQ_TABLES", "EMBEDQ_X_Y"}  # a constant of the store, and any field in a docstring
    read -= {RUN_NOTE}  # what a worker tells the command of a schedule: nobody else sets it
    extra = {ENV_PREFIX + "SETTINGS", PLUGINS_VARIABLE}
    assert read <= {ENV_PREFIX + field.name.upper() for field in fields(Settings)} | extra
    named = set(re.findall(rf"`({ENV_PREFIX}[A-Z_]+)`", README))
    assert extra <= named
    assert read <= named


def test_the_settings_file_of_the_readme_is_one_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = [block for block in blocks("toml") if "[embedq]" in block]
    file = tmp_path / "settings.toml"
    file.write_text(text)
    monkeypatch.setenv(ENV_PREFIX + "SETTINGS", str(file))
    loaded = load_settings()
    said = tomllib.loads(text)[settings_module.APP_NAME]
    assert {name: str(getattr(loaded, name)) for name in said} == {name: str(value) for name, value in said.items()}


def test_the_models_that_the_readme_describes_can_be_made(tmp_path: Path) -> None:
    described = [block for block in blocks("toml") if "[models." in block]
    assert described
    for number, text in enumerate(described):
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        registry = Registry(configured=lambda file=file: configured_in(file))  # type: ignore[misc] # the loop's file
        assert registry.plugin_problems() == []
        for name, table in tomllib.loads(text)["models"].items():
            for known in (name, *table.get("aliases", [])):
                assert registry.get_embedding_model(known).model_id == name


# --- commands


def command_lines() -> Iterator[str]:
    """Every command line of embedq in the README's blocks, without the name of the program."""
    for block in [*blocks("sh"), *blocks("console")]:
        for line in block.splitlines():
            for part in re.split(r"[|;&]", line.removeprefix("$ ")):
                words = part.split()
                while words and ("=" in words[0] or words[0] == "export"):
                    words.pop(0)
                if words[:1] == ["embedq"] or words[:3] == ["docker", "compose", "run"]:
                    yield part.split(" producer " if words[0] == "docker" else "embedq ", 1)[1]


def test_every_command_line_in_the_readme_is_one_that_embedq_understands() -> None:
    lines = list(command_lines())
    assert len(lines) > 20
    for line in lines:
        assert isinstance(parsed(shlex.split(line, comments=True)), dict), line


def test_every_command_that_the_readme_speaks_of_is_one_of_embedq() -> None:
    names = re.findall(r"`embedq ((?:[a-z]+ ?)+)[^`]*`", _FENCED.sub("", README))
    assert len(names) > 5
    for name in names:
        words = name.split()
        problem = ""
        try:
            parsed(words)
        except Exception as error:
            problem = str(error)
        # What is spoken of may lack what it must be given, but it has to be there.
        assert not problem or "Missing parameter" in problem, name


def test_a_command_line_that_embedq_does_not_understand_would_be_noticed() -> None:
    for words in (
        ["ingest"],
        ["ingest", "notes", "--no-such-option"],
        ["no-such-command"],
        ["similar", "x", "-n", "y"],
    ):
        with pytest.raises(Exception, match=r"Missing|No such|not|valid"):
            parsed(words)


def test_the_first_steps_print_what_the_readme_says(tmp_path: Path, environment: dict[str, str]) -> None:
    (corpus,) = blocks("csv")
    (session,) = blocks("console")
    (tmp_path / "notes.csv").write_text(corpus)
    commands = re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]
    assert len(commands) == 3
    for text in commands:
        command, _, output = text.partition("\n")
        printed = run(shlex.split(command), tmp_path, environment)
        assert steady(printed).strip() == steady(output).strip()


def test_the_makefile_has_the_targets_that_the_readme_names() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"`make (\w+)`", README))
    assert {"demo", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"


# --- Python


def test_the_python_examples_run_and_print_what_the_readme_says(tmp_path: Path, environment: dict[str, str]) -> None:
    pairs = re.findall(r"^```python\n([^`]*)^```\n\nprints\n\n```text\n([^`]*)^```$", README, re.MULTILINE)
    assert len(pairs) == 2
    # In order, in one folder: the second opens what the first has made.
    for code, output in pairs:
        assert run([sys.executable, "-c", code], tmp_path, environment) == output


def plugin() -> str:
    (code,) = [block for block in blocks("python") if "hookimpl" in block]
    return code


def test_the_plugin_of_the_readme_can_be_tried_with_its_file(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "letters.py").write_text(plugin())
    (tmp_path / "notes.csv").write_text(blocks("csv")[0])
    environment["EMBEDQ_PLUGINS"] = "./letters.py"
    assert re.search(r"^letters +abc +\./letters\.py ", run(["embedq", "models"], tmp_path, environment), re.MULTILINE)
    printed = run(["embedq", "ingest", "lettered", "notes.csv", "-m", "letters"], tmp_path, environment)
    assert "3 embedded" in printed
    assert '"id": "a1"' in run(["embedq", "similar", "lettered", "-c", "sort", "-n", "1"], tmp_path, environment)


def test_the_plugin_of_the_readme_has_ten_lines_or_fewer() -> None:
    assert len([line for line in plugin().splitlines() if line.strip()]) <= 10


def test_the_packaged_plugin_of_the_readme_is_found(tmp_path: Path, environment: dict[str, str]) -> None:
    (text,) = [block for block in blocks("toml") if "entry-points" in block]
    project = tomllib.loads(text)["project"]
    # The same in what an installer makes of it, and in what pyproject.toml says.
    points = project["entry-points"][ENTRY_POINT_GROUP]
    site = tmp_path / "site"
    information = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    information.mkdir(parents=True)
    (site / "letters.py").write_text(plugin())
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = "\n".join(f"{name} = {value}" for name, value in points.items())
    (information / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{lines}\n")
    environment["PYTHONPATH"] = str(site)
    assert re.search(r"^letters +abc +letters ", run(["embedq", "models"], tmp_path, environment), re.MULTILINE)


# --- docs


def test_every_link_to_a_file_leads_to_one() -> None:
    for folder, text in ((ROOT, README), (ROOT / "docs", DESIGN), (ROOT, (ROOT / "CHANGELOG.md").read_text())):
        for link in re.findall(r"\]\((?!https?://)([^)#]+)", text):
            assert (folder / link).exists(), link


def test_every_name_in_the_design_page_is_a_name_in_the_code() -> None:
    names = set(re.findall(r"`(embedq_\w+(?:\.\w+)+)(?:\(\))?`", DESIGN))
    assert len(names) > 20
    for name in names:
        parts = name.split(".")
        for count in range(len(parts), 0, -1):
            try:
                found: object = importlib.import_module(".".join(parts[:count]))
            except ModuleNotFoundError:
                continue
            for part in parts[count:]:
                assert hasattr(found, part), f"docs/design.md: {name}"
                found = getattr(found, part)
            break
        else:
            pytest.fail(f"docs/design.md: {name}")


def test_the_changelog_speaks_of_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf"^## \[?{re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_readme_names_what_the_face_offers_for_collections_and_models() -> None:
    for name in ("Collection", "AsyncCollection", "EmbeddingModel", "hookimpl", "get_embedding_model"):
        assert name in face.__all__
        assert f"embedq.{name}" in README
