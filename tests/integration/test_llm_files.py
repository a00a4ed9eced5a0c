"""One file, two tools: what embedq writes answers `llm similar`, what `llm embed-multi` writes answers embedq."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import llm as llm_package
import pytest
from hypothesis import given
from hypothesis import strategies as st

import embedq as package
from support import forked
from support.command_line import CommandLine
from support.models import EitherModel, RecordingModel

Llm: TypeAlias = Callable[..., str]

# The tests' model as a plugin of llm. An entry point is all that llm needs to find it: no installer is involved.
PLUGIN = {
    "llm_twin.py": """
import llm
from support.models import vector_of


class Twin(llm.EmbeddingModel):
    supports_binary = True

    def __init__(self, model_id):
        self.model_id = model_id

    def embed_batch(self, items, *, key=None):
        return [vector_of(item) for item in items]


@llm.hookimpl
def register_embedding_models(register):
    register(Twin("recording"))
    register(Twin("either"))
""",
    "llm_twin-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: llm-twin\nVersion: 1.0\n",
    "llm_twin-1.0.dist-info/entry_points.txt": "[llm]\ntwin = llm_twin\n",
}


@pytest.fixture
def llm(tmp_path: Path, embedq: CommandLine) -> Llm:
    """The real command line of llm, with the tests' model, on the same database."""
    plugins = tmp_path / "llm-plugins"
    for name, text in PLUGIN.items():
        (plugins / name).parent.mkdir(parents=True, exist_ok=True)
        (plugins / name).write_text(text)

    path = os.pathsep.join([str(plugins), embedq.environment["PYTHONPATH"]])

    def run(*arguments: str | Path) -> str:
        done = embedq.run(forked.llm, *arguments, "-d", embedq.database, environment={"PYTHONPATH": path})
        assert done.exit_code == 0, done
        return done.out

    return run


TEXTS = {
    "hound": "my happy hound",
    "cat": "my dissatisfied cat",
    "cow": "how now brown cow",
    "tom": "my dissatisfied cat",
}


QUESTIONS = (["-c", "my happy hound"], ["cow", "--prefix", "c", "-n", "5"])


@pytest.fixture
def corpus(embedq: CommandLine) -> Path:
    path = embedq.directory / "texts.csv"
    path.write_text("id,content\n" + "".join(f"{id_},{text}\n" for id_, text in TEXTS.items()))
    return path


def answers(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def same_answers(ours: str, theirs: str) -> bool:
    """Whether both tools give the same entries with the same scores; equal scores may stand in any order."""
    pairs = zip(*(sorted(answers(out), key=lambda entry: str(entry["id"])) for out in (ours, theirs)), strict=True)
    descending = [entry["score"] for entry in answers(ours)]
    assert descending == pytest.approx([entry["score"] for entry in answers(theirs)], abs=1e-12)
    return all(left == {**right, "score": pytest.approx(right["score"], abs=1e-12)} for left, right in pairs)


def test_a_file_that_embedq_ingested_answers_llm_similar_with_the_same_scores(
    embedq: CommandLine, llm: Llm, corpus: Path
) -> None:
    embedq("ingest", "texts", corpus, "-m", "recording")
    for question in QUESTIONS:
        ours, theirs = embedq("similar", "texts", *question).out, llm("similar", "texts", *question)
        assert answers(theirs), question
        assert same_answers(ours, theirs), question


def test_a_file_that_llm_embedded_answers_embedq_similar_with_the_same_scores(
    embedq: CommandLine, llm: Llm, corpus: Path
) -> None:
    llm("embed-multi", "texts", corpus, "-m", "recording", "--store")
    for question in QUESTIONS:
        ours, theirs = embedq("similar", "texts", *question).out, llm("similar", "texts", *question)
        assert answers(ours), question
        assert same_answers(ours, theirs), question


def test_embedq_asks_no_model_for_what_llm_has_embedded(embedq: CommandLine, llm: Llm, corpus: Path) -> None:
    llm("embed-multi", "texts", corpus, "-m", "recording")
    embedq("ingest", "texts", corpus, "-m", "recording")
    assert embedq.batch_sizes == []
    # The content, which llm was not asked to keep, is there now.
    assert {entry["id"]: entry["content"] for entry in answers(llm("similar", "texts", "-c", "x"))} == TEXTS


def test_both_tools_write_by_turns_and_each_sees_the_others_rows(embedq: CommandLine, llm: Llm, corpus: Path) -> None:
    llm("embed-multi", "texts", corpus, "-m", "recording", "--store")
    with package.Collection("texts", embedq.database, model=RecordingModel()) as texts:
        texts.embed("new", "a text of embedq", metadata={"by": "embedq"}, store=True)
        llm("embed", "texts", "newer", "-c", "a text of llm", "--store", "--metadata", '{"by": "llm"}')
        assert texts.similar("a text of llm", 1)[0] == package.Entry(
            "newer", texts.similar("a text of llm", 1)[0].score, "a text of llm", {"by": "llm"}
        )
        assert texts.count() == len(TEXTS) + 2
    (entry,) = answers(llm("similar", "texts", "-c", "a text of embedq", "-n", "1"))
    assert (entry["id"], entry["content"], entry["metadata"]) == ("new", "a text of embedq", {"by": "embedq"})


def test_llm_lists_and_deletes_embedqs_collections(embedq: CommandLine, llm: Llm) -> None:
    with package.Collection("texts", embedq.database, model=RecordingModel()) as texts:
        texts.embed_multi(TEXTS.items())
        assert json.loads(llm("collections", "list", "--json")) == [
            {"name": "texts", "model": "recording", "num_embeddings": len(TEXTS)}
        ]
        assert len(texts.similar("x")) == len(TEXTS)
        llm("collections", "delete", "texts")
        assert texts.similar("x") == []
    assert package.Collection.exists(embedq.database, "texts") is False


def test_bytes_are_exchanged_as_well(embedq: CommandLine, llm: Llm) -> None:
    picture = embedq.directory / "picture.png"
    picture.write_bytes(b"\x89PNG\x00\xff")
    with package.Collection("pictures", embedq.database, model=EitherModel("either")) as pictures:
        pictures.embed("ours", picture.read_bytes() + b"1", store=True)
        llm("embed", "pictures", "theirs", "-i", picture, "--binary", "--store")
        assert pictures.similar(picture.read_bytes(), 1)[0].id == "theirs"
        assert pictures.similar(picture.read_bytes(), 1)[0].score == pytest.approx(1.0)
    found = answers(llm("similar", "pictures", "-i", picture, "--binary"))
    assert [entry["id"] for entry in found] == ["theirs", "ours"]


def test_both_tools_print_a_vector_alike(embedq: CommandLine, llm: Llm) -> None:
    command = ["embed", "-m", "recording", "-c", "my happy hound", "-f", "hex"]
    assert embedq(*command).out.strip() == llm(*command).strip()


@given(st.lists(st.floats(width=32), max_size=8))
def test_vectors_are_encoded_and_decoded_as_llm_does_it(vector: list[float]) -> None:
    blob = llm_package.encode(vector)  # type: ignore[no-untyped-call] # llm has no type there
    assert package.encode(vector) == blob
    theirs = llm_package.decode(blob)  # type: ignore[no-untyped-call]
    assert repr(package.decode(blob)) == repr(theirs)  # NaN is not equal to itself
