"""`embedq models list` and `embedq models test`, and what happens when the library of a model is missing."""

import importlib.util
import json
from pathlib import Path

import pytest

from embedq import Collection
from support.command_line import CommandLine
from support.models import RecordingModel

# The plugin is loaded after the built-in ones, the settings file before all.
PLUGIN = """
import embedq


class Needing(embedq.EmbeddingModel):
    model_id = "needing"
    library = "no_such_library"
    install = "pip install no-such-library"
    batch_size = 8
    dimension = 2

    def embed_batch(self, items):
        import no_such_library


class Broken(embedq.EmbeddingModel):
    model_id = "broken"

    def embed_batch(self, items):
        raise RuntimeError("first line\\nsecond line")


@embedq.hookimpl
def register_embedding_models(register):
    register(Needing(), aliases=("need",))
    register(Broken())
"""
NEEDS = "embedq: needing needs no_such_library, which is not installed: pip install no-such-library\n"


@pytest.fixture
def command(embedq: CommandLine, tmp_path: Path) -> CommandLine:
    plugin = tmp_path / "needing_plugin.py"
    plugin.write_text(PLUGIN)
    settings = tmp_path / "settings.toml"
    settings.write_text('[models.minutes]\nkind = "st"\nmodel = "all-MiniLM-L6-v2"\naliases = ["m"]\n')
    embedq.environment |= {"EMBEDQ_PLUGINS": f"{embedq.environment['EMBEDQ_PLUGINS']}:{plugin}"}
    embedq.environment |= {"EMBEDQ_SETTINGS": str(settings)}
    return embedq


def test_models_and_kinds_are_listed_with_what_they_need(command: CommandLine) -> None:
    listed = {model["id"]: model for model in json.loads(command("models", "list", "--json").out)}
    there = importlib.util.find_spec("sentence_transformers") is not None
    sentences = {
        "library": "sentence_transformers",
        "installed": there,
        "install": "pip install 'embedq[sentence-transformers]'",
    }
    takes = {"dimension": None, "text": True, "binary": False, "batch_size": 256}
    assert listed["minutes"] == {
        "id": "minutes",
        "kind": None,
        "aliases": ["m"],
        "plugin": "settings",
        **takes,
        **sentences,
    }
    assert listed["st:NAME"] == {
        "id": "st:NAME",
        "kind": "st",
        "aliases": [],
        "plugin": "sentence-transformers",
        **dict.fromkeys(takes),
        **sentences,
    }
    assert listed["needing"]["installed"] is False
    assert listed["hashing"]["installed"] is True
    assert (listed["hashing"]["library"], listed["hashing"]["dimension"]) == (None, 384)
    lines = command("models").out.splitlines()
    assert lines[0].split() == ["model", "aliases", "plugin", "dim", "takes", "batch", "library"]
    rows = {line.split()[0]: line.split() for line in lines[1:] if line}
    assert rows["hashing"] == ["hashing", "hash", "built-in", "384", "text", "256", "-"]
    assert rows["either"][-3:] == ["both", "any", "-"]
    assert rows["minutes"][-1] == ("ok" if there else "missing")
    assert rows["needing"][-1] == "missing"
    assert rows["st:NAME"][1:3] == ["sentence-transformers", "ok" if there else "missing"]
    assert "pip install 'embedq[sentence-transformers]'" in "\n".join(lines)
    assert lines[-1] == "Missing: pip install no-such-library"


def test_a_model_is_tried_out(command: CommandLine) -> None:
    shown = dict(line.split(maxsplit=1) for line in command("models", "test", "hash").out.splitlines())
    assert shown["model"] == "hashing"
    assert shown["dimension"] == "384"
    assert shown["norms"] == "1.0000, 1.0000"
    assert shown["speed"].endswith(" items/s")
    trial = json.loads(command("models", "test", "recording", "--json").out)
    assert (trial["model"], trial["dimension"], len(trial["norms"])) == ("recording", 8, 2)
    assert trial["items_per_second"] > 0
    assert -1 <= trial["similarity"] <= 1
    # Twice: the first call loads what there is to load.
    assert command.calls_file.read_text().split() == ["2", "2"]


@pytest.mark.parametrize(
    ("model", "exit_code", "message"),
    [
        ("needing", 1, NEEDS),
        ("broken", 1, "embedq: the model broken failed: RuntimeError: first line second line\n"),
        ("too-few", 1, "embedq: the model returned 1 vectors for a batch of 2\n"),
        ("binary", 1, "embedq: binary takes no text: try it with 'embedq embed --binary -i FILE -m MODEL'\n"),
    ],
)
def test_what_is_wrong_with_a_model_is_one_line(command: CommandLine, model: str, exit_code: int, message: str) -> None:
    result = command("models", "test", model, exit_code=exit_code)
    assert (result.out, result.err) == ("", message)


def test_a_model_that_there_is_not_can_t_be_tried(command: CommandLine) -> None:
    assert "there is no model 'needin'" in command("models", "test", "needin", exit_code=2).err


def test_nothing_is_queued_for_a_model_whose_library_is_missing(command: CommandLine) -> None:
    rows = "id,content\na,one\n"
    assert command("ingest", "docs", "-", "-m", "need", input=rows, exit_code=1).err == NEEDS
    assert "no runs yet" in command("runs").out
    assert command("embed", "-c", "one", "-m", "need", exit_code=1).err == NEEDS
    assert command("embed", "docs", "a", "-c", "one", "-m", "need", exit_code=1).err == NEEDS
    with Collection("docs", command.database, model=RecordingModel("needing")) as docs:
        docs.embed("a", "one")
    assert command("similar", "docs", "--batch", "-", input="one\n", exit_code=1).err == NEEDS
