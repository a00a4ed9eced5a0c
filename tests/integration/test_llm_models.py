"""The embedding models of the real `llm` tool, with a plugin of ours installed for it, in the real program."""

import json
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import llm
import pytest

from support.command_line import CommandLine
from support.waiting import BOUND_SECONDS

# An entry point is all that llm needs to find it: no installer is involved.
PLUGIN = {
    "llm_letters.py": """
import os
import llm


class Letters(llm.EmbeddingModel):
    model_id = "letters"
    supports_binary = True
    batch_size = 10

    def embed_batch(self, items):
        items = list(items)
        with open(os.environ["EMBEDQ_TEST_CALLS"], "a") as log:
            log.write(f"{len(items)}\\n")
        for item in items:
            text = item.decode() if isinstance(item, bytes) else item
            yield [text.count("a"), text.count("b"), 1]


class Locked(llm.EmbeddingModel):
    supports_binary = True
    model_id = "locked"
    needs_key = "locker"
    key_env_var = "LOCKER_KEY"

    def embed_batch(self, items, *, key=None):
        if key != "s3cret":
            raise ValueError(f"wrong key: {key}")
        return [[len(item), 1.0] for item in items]


class Hashing(Letters):
    model_id = "hashing"


@llm.hookimpl
def register_embedding_models(register):
    register(Letters(), aliases=("abc",))
    register(Locked())
    register(Hashing(), aliases=("hash", "mini"))
""",
    "llm_letters-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: llm-letters\nVersion: 1.0\n",
    "llm_letters-1.0.dist-info/entry_points.txt": "[llm]\nletters = llm_letters\n",
}


@pytest.fixture
def with_llm(tmp_path: Path, embedq: CommandLine) -> CommandLine:
    """The program where the plugin is installed."""
    site = tmp_path / "site"
    for name, text in PLUGIN.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    embedq.environment["PYTHONPATH"] = os.pathsep.join([str(site), embedq.environment["PYTHONPATH"]])
    return embedq


def written(name: str, text: str) -> None:
    """Write one of the files that llm keeps for its user."""
    file = Path(llm.user_dir()) / name  # type: ignore[no-untyped-call] # llm says no type
    file.write_text(text)


def test_models_of_llm_are_listed_with_their_aliases_and_ours_keep_their_names(with_llm: CommandLine) -> None:
    written("aliases.json", '{"mine": "letters"}')
    written("default_embedding_model.txt", "letters")
    listed = with_llm("models", "--json")
    assert listed.err == ""
    models = {model["id"]: model for model in json.loads(listed.out)}
    assert len(models) == len(json.loads(listed.out))
    assert models["letters"]["aliases"] == ["abc", "mine", "llm"]
    assert {key: models["letters"][key] for key in ("plugin", "text", "binary", "batch_size")} == {
        "plugin": "llm",
        "text": True,
        "binary": True,
        "batch_size": 10,
    }
    assert models["text-embedding-3-small"]["aliases"] == ["3-small"]
    assert models["hashing"]["plugin"] == "built-in"


def test_a_corpus_is_embedded_by_a_model_of_llm_in_its_batches(with_llm: CommandLine) -> None:
    (with_llm.directory / "notes.csv").write_text("id,content\n" + "".join(f"{n},{'a' * n} b\n" for n in range(25)))
    with_llm("ingest", "notes", "notes.csv", "-m", "abc")
    assert sorted(with_llm.batch_sizes) == [5, 10, 10]
    assert json.loads(with_llm("collections", "--json").out)[0]["model"] == "letters"
    found = [json.loads(line) for line in with_llm("similar", "notes", "-c", "aaa b", "-n", "1").out.splitlines()]
    assert [(entry["id"], round(entry["score"], 6)) for entry in found] == [("3", 1.0)]


def test_the_default_model_of_llm_can_be_named_and_set(with_llm: CommandLine) -> None:
    refused = with_llm("embed", "-c", "ab", "-m", "llm", exit_code=2)
    assert refused.err.startswith("embedq: there is no model 'llm'.")
    written("default_embedding_model.txt", "abc")
    assert json.loads(with_llm("embed", "-c", "ab", "-m", "llm").out) == [1, 1, 1]
    assert with_llm("models", "default", "llm").out == "letters\n"


def test_a_key_that_is_missing_is_said_in_one_line_and_nothing_is_lost(with_llm: CommandLine) -> None:
    for name in ("1", "2", "3"):
        (with_llm.directory / f"{name}.bin").write_bytes(b"\x89\0" + name.encode())
    message = "locked: No key found - add one using 'llm keys set locker' or set the LOCKER_KEY environment variable"
    assert with_llm("embed", "-c", "one", "-m", "locked", exit_code=1).err == f"embedq: {message}\n"
    assert with_llm("ingest", "notes", "-", "-m", "locked", input="id,content\na,one\n", exit_code=1).err == (
        f"embedq: {message}\n"
    )
    with_llm("submit", "notes", "--binary", "--files", ".", "*.bin", "-m", "locked")
    worker = with_llm.start("worker", "--burst")
    assert worker.stderr is not None
    assert any(message in line for line in worker.stderr)
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=BOUND_SECONDS)
    assert json.loads(with_llm("dead", "--json").out) == []
    # They wait half a minute for the next attempt: as long is not waited here.
    assert json.loads(with_llm("status", "--json").out)["items"] == 3
    written("keys.json", '{"locker": "s3cret"}')
    with_llm("ingest", "notes", "--binary", "--files", ".", "*.bin", "-m", "locked")
    with closing(sqlite3.connect(with_llm.database)) as database:
        stored = dict(database.execute("SELECT id, content_blob FROM embeddings"))
    assert stored == {f"{name}.bin": b"\x89\0" + name.encode() for name in ("1", "2", "3")}


def test_a_key_that_is_refused_is_in_no_message(with_llm: CommandLine) -> None:
    (with_llm.directory / "notes.csv").write_text("id,content\n1,one\n")
    wrong = {"LOCKER_KEY": "sk-wrong"}
    result = with_llm("ingest", "notes", "notes.csv", "-m", "locked", exit_code=1, environment=wrong)
    shown = result.out + result.err + with_llm("dead", "show", "1").out
    assert "wrong key: [key]" in shown
    assert "sk-wrong" not in shown


def test_a_plugin_that_llm_can_not_load_costs_models_of_llm_only(with_llm: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "site" / "llm_letters.py").write_text("import no_such_library")
    listed = with_llm("models")
    assert "hashing" in listed.out
    assert "embedq: plugin llm: ModuleNotFoundError: No module named 'no_such_library'" in listed.err
    assert len(json.loads(with_llm("embed", "-c", "x", "-m", "hashing").out)) == 384
