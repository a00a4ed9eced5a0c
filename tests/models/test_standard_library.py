"""The standard library's docstrings, embedded with MiniLM by `embedq ingest`, found as the bare library finds them."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

import embedq
from embedq.docstrings import DocstringSource
from embedq_core.errors import RowError
from embedq_core.vectors import Matrix
from embedq_producer.readers import Reader, RowOptions

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(1500)]

NUMBER: Final = 5
QUESTIONS: Final = {
    "remove a directory and everything in it": "shutil.rmtree",
    "run a command and capture its output": "subprocess.check_output",
    "read lines from a compressed file": "bz2.BZ2File.readlines",
    "find the closest matches of a misspelled word": "difflib.get_close_matches",
    "the middle value of a list of numbers": "statistics.median",
    "break a paragraph into lines of a given width": "textwrap.wrap",
    "a temporary directory that is deleted afterwards": "tempfile.TemporaryDirectory",
    "turn an object into JSON text": "json.dumps",
    "show a web page in the browser": "webbrowser.open",
    "parse a date and time from a string": "datetime.datetime.strptime",
}
# Sums in float32 differ with the order of what is added, and so with what else is in a batch.
ROUNDING: Final = 1e-5


@pytest.fixture(scope="module")
def documents() -> dict[str, str]:
    """Text by id."""
    rejected: list[RowError] = []
    found = {item.id: str(item.content) for item in Reader([DocstringSource()], RowOptions(), rejected.append)}
    assert rejected == []
    return found


@pytest.fixture(scope="module")
def bare(library: Any, minilm: Path, documents: dict[str, str]) -> tuple[Matrix, Matrix]:
    """The library alone: what it makes of the documents, and of the questions. Rows have length 1."""
    model = library.SentenceTransformer(str(minilm))
    texts = list(documents.values())
    return model.encode(texts, show_progress_bar=False), model.encode(list(QUESTIONS), show_progress_bar=False)


@pytest.fixture(scope="module")
def database(documents: dict[str, str], minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documents in the collection `stdlib`, embedded by the real program."""
    folder = tmp_path_factory.mktemp("ingest")
    corpus = folder / "documents.jsonl"
    corpus.write_text("".join(json.dumps({"id": id_, "content": text}) + "\n" for id_, text in documents.items()))
    database = folder / "embeddings.db"
    command = [
        sys.executable,
        "-m",
        "embedq",
        "ingest",
        "stdlib",
        str(corpus),
        "-m",
        f"st:{minilm}",
        "-d",
        str(database),
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EMBEDQ_")}
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(documents):,} items" in done.stdout
    return database


def test_ten_questions_find_what_the_bare_library_finds_with_exact_search(
    database: Path, documents: dict[str, str], bare: tuple[Matrix, Matrix]
) -> None:
    collection = embedq.Collection("stdlib", database)
    ids = list(documents)
    rows = {id_: row for row, id_ in enumerate(ids)}
    here = there = 0
    for (question, answer), exact in zip(QUESTIONS.items(), bare[1] @ bare[0].T, strict=True):
        found = list(collection.similar(question, number=NUMBER))
        best = np.argsort(-exact)[:NUMBER]
        # The same scores, place by place, and each is that of its document.
        assert [entry.score for entry in found] == pytest.approx(exact[best].tolist(), abs=ROUNDING)
        assert [entry.score for entry in found] == pytest.approx(
            [float(exact[rows[entry.id]]) for entry in found], abs=ROUNDING
        )
        here += answer in [entry.id for entry in found]
        there += answer in [ids[row] for row in best]
    assert here >= there
    # Not that both find nothing.
    assert there >= 7


def test_every_document_has_the_vector_that_the_library_gives_it(
    database: Path, documents: dict[str, str], bare: tuple[Matrix, Matrix]
) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        stored = dict(connection.execute("SELECT id, embedding FROM embeddings"))
    assert stored.keys() == documents.keys()
    found = np.stack([np.frombuffer(stored[id_], dtype="<f4") for id_ in documents])
    assert np.allclose(found, bare[0], atol=ROUNDING)
