"""The wheel, built from what is in the repository and unpacked: it is the wheel that people install."""

import os
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from support.waiting import BOUND_SECONDS

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "embedq",
    "embedq_core",
    "embedq_jobs",
    "embedq_plugins",
    "embedq_producer",
    "embedq_store",
    "embedq_worker",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel. The build backend is run as pip runs it, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=BOUND_SECONDS)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, as it lies in site-packages after an installation."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(unpacked: Path) -> PathDistribution:
    (information,) = unpacked.glob("*.dist-info")
    return PathDistribution(information)


def run_unpacked(unpacked: Path, code: str) -> str:
    """What `code` prints in a Python that sees the wheel's content before the checkout."""
    # The coverage that is measured is that of the checkout.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=unpacked,
        env={**kept, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        timeout=BOUND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_all_seven_packages_with_every_module_and_nothing_else(wheel: Path) -> None:
    inside = {name for name in names(wheel) if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in inside} == set(PACKAGES)
    for package in PACKAGES:
        (folder,) = [path for path in (ROOT / package, *ROOT.glob(f"*/{package}")) if (path / "__init__.py").exists()]
        modules = {f"{package}/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*.py")}
        assert modules == {name for name in inside if name.startswith(f"{package}/") and name.endswith(".py")}


def test_every_package_says_that_it_is_typed(wheel: Path) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= names(wheel)


def test_no_test_and_no_cache_is_in_the_wheel(wheel: Path) -> None:
    for name in names(wheel):
        assert not {"tests", "benchmarks", "__pycache__"} & set(name.split("/")), name
        assert name.endswith((".py", ".typed")) or ".dist-info/" in name, name


def test_the_licence_and_the_readme_come_along(wheel: Path, unpacked: Path) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names(wheel))
    description = metadata(unpacked).metadata.json["description"]
    assert str(description).strip() == (ROOT / "README.md").read_text().strip()


def test_only_the_extras_and_the_dependencies_of_the_project_are_required(unpacked: Path) -> None:
    required = metadata(unpacked).requires or []
    assert any(line.startswith("arq") for line in required)
    # Tools of development stay at home.
    assert not [line for line in required if line.startswith(("pytest", "mypy", "ruff"))]
    assert not [line for line in required if line.startswith(("llm", "pyarrow")) and "extra ==" not in line]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert sorted(metadata(unpacked).metadata.get_all("Provides-Extra") or []) == sorted(extras)


def test_the_entry_point_of_the_wheel_is_the_command_line(unpacked: Path) -> None:
    (script,) = metadata(unpacked).entry_points.select(group="console_scripts")
    assert script.name == "embedq"
    module, _, function = script.value.partition(":")
    # As the script does that an installer writes for it.
    code = f"import sys; sys.argv[1:] = ['--version']; import {module} as m; print(m.__file__); m.{function}()"
    file, version = run_unpacked(unpacked, code).split()
    assert Path(file).is_relative_to(unpacked)
    assert version == metadata(unpacked).version


def test_what_embedq_promises_can_be_imported_from_the_wheel(unpacked: Path) -> None:
    code = "from embedq import *; import embedq; print(embedq.__file__, Collection.__module__, len(embedq.__all__))"
    file, module, count = run_unpacked(unpacked, code).split()
    assert Path(file).is_relative_to(unpacked)
    assert module == "embedq.collections"
    assert int(count) > 10
