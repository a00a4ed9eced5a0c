"""The example plugin, installed as users install it; with it, bytes all the way through the program."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from support.command_line import CommandLine
from support.waiting import BOUND_SECONDS

EXAMPLE = Path(__file__).parents[2] / "plugins" / "examples" / "embedq-colours"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin installed in it, without a network."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--target",
        str(folder),
    ]
    command += ["--no-deps", "--no-index", "--no-build-isolation", str(EXAMPLE)]
    subprocess.run(command, check=True, capture_output=True, timeout=BOUND_SECONDS)
    return folder


@pytest.fixture
def with_colours(site: Path, embedq: CommandLine) -> CommandLine:
    """The program where the plugin is installed."""
    embedq.environment["PYTHONPATH"] = os.pathsep.join([str(site), embedq.environment["PYTHONPATH"]])
    return embedq


def image(*colours: str) -> bytes:
    picture = Image.new("RGB", (8 * len(colours), 8))
    for number, colour in enumerate(colours):
        picture.paste(colour, (8 * number, 0, 8 * number + 8, 8))
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def pictures(with_colours: CommandLine) -> CommandLine:
    """A collection of three images and a text; a fourth image is broken, and dead."""
    folder = with_colours.directory / "images"
    (folder / "sub").mkdir(parents=True)
    (folder / "red.png").write_bytes(image("red"))
    (folder / "sea.png").write_bytes(image("navy", "teal"))
    (folder / "sub" / "sand.png").write_bytes(image("gold", "tan"))
    (folder / "broken.png").write_bytes(image("red")[:40])
    (with_colours.directory / "words.csv").write_text("id,content\nfire,red and orange\n")
    result = with_colours(
        "ingest", "pictures", "--binary", "--files", "images", "**/*.png", "-m", "colors", exit_code=1
    )
    assert "3 embedded, 1 dead" in result.out
    assert "1 embedded" in with_colours("ingest", "pictures", "words.csv").out
    return with_colours


def found(program: CommandLine, *arguments: str | Path) -> list[str]:
    lines = program("similar", "pictures", *arguments).out.splitlines()
    return [json.loads(line)["id"] for line in lines]


def test_the_installed_plugin_is_listed(with_colours: CommandLine) -> None:
    models = {model["id"]: model for model in json.loads(with_colours("models", "--json").out)}
    expected = {"aliases": ["colors"], "plugin": "colours", "text": True, "binary": True, "batch_size": 64}
    assert {name: models["colours"][name] for name in expected} == expected


def test_images_and_words_are_found_by_images_words_and_ids(pictures: CommandLine) -> None:
    (pictures.directory / "asked.png").write_bytes(image("blue", "teal"))
    assert found(pictures, "-i", "asked.png", "--binary", "-n", "1") == ["sea.png"]
    assert found(pictures, "-c", "red", "-n", "2") == ["red.png", "fire"]
    assert found(pictures, "fire", "-n", "1") == ["red.png"]
    (line,) = pictures("similar", "pictures", "-c", "gold", "-n", "1").out.splitlines()
    assert json.loads(line)["content"] is None
    plain = pictures("similar", "pictures", "-c", "gold", "-n", "1", "--plain").out
    assert plain.startswith("sub/sand.png (")


def test_the_bytes_are_stored_as_they_were_and_paid_for_once(pictures: CommandLine) -> None:
    with closing(sqlite3.connect(pictures.database)) as database:
        rows = database.execute("SELECT id, content, content_blob FROM embeddings ORDER BY id").fetchall()
    assert rows == [
        ("fire", "red and orange", None),
        ("red.png", None, image("red")),
        ("sea.png", None, image("navy", "teal")),
        ("sub/sand.png", None, image("gold", "tan")),
    ]
    again = ("ingest", "pictures", "--binary", "--files", "images", "**/*.png", "--prefix", "copy/")
    told = json.loads(pictures(*again, "--dry-run", "--json").out)
    assert (told["reused"], told["new"], told["characters"], told["bytes"]) == (3, 1, 0, 40)
    assert "and 40 bytes of binary content to embed" in pictures(*again, "--dry-run").out
    assert "3 reused, 1 dead" in pictures(*again, exit_code=1).out


def test_a_broken_image_is_a_dead_letter_that_can_be_saved_requeued_and_mended(pictures: CommandLine) -> None:
    (letter,) = json.loads(pictures("dead", "--json").out)
    assert (letter["id"], letter["model"], letter["attempts"]) == ("broken.png", "colours", 3)
    pictures("dead", "show", "broken.png", "--raw", "saved.png")
    assert (pictures.directory / "saved.png").read_bytes() == image("red")[:40]
    pictures("dead", "requeue", "--all")
    pictures("worker", "--burst")
    assert json.loads(pictures("dead", "--json").out)[0]["attempts"] > letter["attempts"]
    (pictures.directory / "images" / "broken.png").write_bytes(image("lime"))
    pictures("ingest", "pictures", "--binary", "--files", "images", "**/*.png")
    assert found(pictures, "-c", "lime", "-n", "1") == ["broken.png"]


def test_one_image_at_a_time(pictures: CommandLine) -> None:
    (pictures.directory / "one.png").write_bytes(image("hotpink"))
    assert len(json.loads(pictures("embed", "-i", "one.png", "--binary", "-m", "colours").out)) == 64
    pictures("embed", "pictures", "one", "-i", "one.png", "--binary")
    assert found(pictures, "-c", "hotpink", "-n", "1") == ["one"]
    assert len(json.loads(pictures("embed", "--binary", "-m", "colours", input=image("red")).out)) == 64


REFUSED = {
    "similar pictures -i words.csv --binary": "the model colours failed: UnidentifiedImageError: cannot identify",
    "embed -m colours -i words.csv --binary": "the model colours failed: UnidentifiedImageError: cannot identify",
    "embed pictures x -i words.csv --binary": "the model colours failed: UnidentifiedImageError: cannot identify",
    "similar pictures -i images/red.png": "images/red.png: is not text in UTF-8; use --binary",
    "embed -c red --binary": "--binary is for -i FILE and standard input",
}


def test_what_is_no_image_is_said_in_one_line(pictures: CommandLine) -> None:
    for command, message in REFUSED.items():
        result = pictures(*command.split(), exit_code=None)
        assert result.exit_code in (1, 2)
        assert result.err.startswith(f"embedq: {message}")
        assert result.err.count("\n") == 1


def test_bytes_come_from_sql_too_for_a_model_that_takes_nothing_else(embedq: CommandLine) -> None:
    with closing(sqlite3.connect(embedq.directory / "images.db")) as database, database:
        database.execute("CREATE TABLE images (name TEXT, data)")
        database.executemany("INSERT INTO images VALUES (?, ?)", [("a", b"\0\1"), ("b", b"\2"), ("c", "text")])
    select = ("images.db", "--sql", "SELECT name, data FROM images")
    result = embedq("ingest", "pictures", *select, "-m", "binary", exit_code=1)
    assert "2 embedded, 1 dead" in result.out


def test_the_plugins_own_tests_pass_as_they_stand(site: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(EXAMPLE / "tests")],
        env={**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=BOUND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
