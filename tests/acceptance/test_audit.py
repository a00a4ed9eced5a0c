"""`embedq collections audit`: what is wrong in a collection is found, and embedded anew, without paying twice."""

import json
import sqlite3
import struct
from contextlib import closing
from typing import Any

import pytest

from embedq_core.digests import content_hash
from support.command_line import CommandLine
from support.models import vector_of

# Answers otherwise, for texts with the word in them, once it has drifted.
PLUGIN = """
import os
from embedq import hookimpl
from support.models import RecordingModel

class Drifting(RecordingModel):
    def embed_batch(self, items):
        word = os.environ.get("DRIFTED")
        return super().embed_batch([f"now {item}" if word and word in item else item for item in items])

@hookimpl
def register_embedding_models(register):
    register(Drifting("drifting"))
"""


@pytest.fixture
def docs(embedq: CommandLine) -> CommandLine:
    """Ten entries of a model that may drift, and their contents; two have the same."""
    (embedq.directory / "drifting.py").write_text(PLUGIN)
    embedq.environment["EMBEDQ_PLUGINS"] += f":{embedq.directory / 'drifting.py'}"
    embedq("ingest", "docs", "-", "-m", "drifting", input=source())
    embedq.calls_file.unlink()
    return embedq


def text(number: int) -> str:
    return "shared" if number in (8, 9) else f"text {number}"


def source() -> str:
    return "id,content\n" + "".join(f"{number},{text(number)}\n" for number in range(10))


def change(embedq: CommandLine, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(embedq.database)) as db, db:
        assert db.execute(sql, values).rowcount > 0


def vectors(embedq: CommandLine) -> dict[str, tuple[float, ...]]:
    with closing(sqlite3.connect(embedq.database)) as db:
        return {row[0]: struct.unpack("<8f", row[1]) for row in db.execute("SELECT id, embedding FROM embeddings")}


def audit(embedq: CommandLine, *options: str, exit_code: int = 1, drifted: str = "") -> dict[str, Any]:
    result = embedq(
        "collections", "audit", "docs", "--json", *options, exit_code=exit_code, environment={"DRIFTED": drifted}
    )
    found: dict[str, Any] = json.loads(result.out)
    return found


def test_a_collection_without_problems_is_well(docs: CommandLine) -> None:
    words = docs("collections", "audit", "docs", "--seed", "3", environment={"COLUMNS": "60"}).out
    assert "10 entries embedded anew, similarity 1.0000 and more (seed 3)" in words
    assert words.splitlines()[-1].split(maxsplit=1) == ["result", "all well"]
    docs.calls_file.unlink()
    found = audit(docs, "--sample", "0", "--repair", exit_code=0)
    assert (found["ok"], found["wrong"], found["entries"], found["sample"]) == (True, 0, 10, None)
    assert docs.batch_sizes == [], "which costs nothing"


def test_what_is_wrong_is_found_and_embedded_anew_and_nothing_else_is(docs: CommandLine) -> None:
    set_ = "UPDATE embeddings SET"
    # Whatever reads one row to tell the dimension reads this one.
    change(docs, f"{set_} embedding = zeroblob(12) WHERE id = '0'")
    change(docs, f"{set_} embedding = NULL WHERE id = '1'")
    change(docs, f"{set_} content_hash = ? WHERE id = '2'", content_hash("another text"))
    change(docs, f"{set_} embedding = ? WHERE id = '3'", struct.pack("<8f", *[float("nan")] * 8))
    change(docs, f"{set_} content = NULL, embedding = x'' WHERE id = '4'")
    found = audit(docs, "--sample", "0")
    assert {name: flawed["ids"] for name, flawed in found["problems"].items()} == {
        "dimension": ["0"],
        "empty": ["1", "4"],
        "hash": ["2"],
        "not_finite": ["3"],
    }
    assert (found["wrong"], found["without_content"], found["repair"]) == (5, 1, None)
    result = docs("collections", "audit", "docs", "--sample", "0", "--repair", exit_code=1)
    assert "1 entry had no content to embed anew: submit the source again" in result.err
    run = json.loads(docs("runs", "show", result.out.split()[-1], "--json").out)
    assert (run["source"], run["items"]) == ("audit docs", 4)
    # What was cleared is told as such, and queued again by whoever repairs again, which costs nothing more.
    assert audit(docs, "--sample", "0")["problems"]["cleared"]["entries"] == 5
    audit(docs, "--sample", "0", "--repair")
    docs("worker", "--burst")
    assert sum(docs.batch_sizes) == 4
    assert audit(docs, "--sample", "0")["problems"] == {"cleared": {"entries": 1, "without_content": 1, "ids": ["4"]}}
    docs("ingest", "docs", "-", input=source())
    assert sum(docs.batch_sizes) == 5, "the source brings what had no content"
    assert audit(docs, exit_code=0)["ok"]
    assert vectors(docs) == {str(number): tuple(vector_of(text(number))) for number in range(10)}


def test_what_a_model_embeds_otherwise_is_seen_and_is_not_copied_from_its_like(docs: CommandLine) -> None:
    found = audit(docs, "--sample", "99", drifted="shared")
    assert [entry["id"] for entry in found["sample"]["below"]] == ["8", "9"]
    assert found["sample"]["lowest"] == min(entry["similarity"] for entry in found["sample"]["below"]) < 0.99
    assert found["as_a_whole"] is None
    repair = audit(docs, "--sample", "99", "--repair", exit_code=0, drifted="shared")["repair"]
    assert (repair["cleared"], repair["queued"]) == (2, 2)
    docs.calls_file.unlink()
    docs("worker", "--burst", environment={"DRIFTED": "shared"})
    assert docs.batch_sizes == [1], "once for both"
    assert vectors(docs)["8"] == vectors(docs)["9"] == tuple(vector_of("now shared"))
    assert audit(docs, "--sample", "99", exit_code=0, drifted="shared")["ok"]


def test_where_the_collection_as_a_whole_is_not_the_model_s_nothing_is_repaired(docs: CommandLine) -> None:
    before = vectors(docs)
    change(docs, "UPDATE embeddings SET content_hash = NULL WHERE id = '0'")
    result = docs(
        "collections", "audit", "docs", "--repair", exit_code=1, environment={"DRIFTED": "e", "COLUMNS": "60"}
    )
    assert "not repaired: the model now embeds most of the sample otherwise" in result.err
    assert "'embedq reembed docs --force'" in result.err
    change(docs, "UPDATE embedq_configurations SET configuration = ?", '{"document_prefix":"passage: "}')
    found = audit(docs, "--repair")
    assert found["configuration"] == ['document_prefix "passage: ", now none']
    assert "another configuration of drifting" in found["as_a_whole"]
    change(docs, "UPDATE collections SET model = 'gone'")
    assert "gone" in audit(docs, "--repair")["as_a_whole"]
    assert vectors(docs) == before
    assert json.loads(docs("runs", "list", "--json").out)[0]["source"] == "standard input", "no run was made"


def test_what_can_not_be_audited_is_refused(docs: CommandLine) -> None:
    assert "there is no collection 'dogs'" in docs("collections", "audit", "dogs", exit_code=2).err
    docs("collections", "audit", "docs", "--sample=-1", exit_code=2)
    docs("reembed", "docs", "-m", "recording", "--wait")
    refused = docs("collections", "audit", "docs@previous", "--repair", exit_code=2).err
    assert "--repair is for vectors in use: 'docs@previous' stands beside 'docs'" in refused
    docs("collections", "audit", "docs@previous")
    assert "no such database" in docs("collections", "audit", "docs", "-d", "none.db", exit_code=1).err
