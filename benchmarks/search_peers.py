"""Who else can search: each peer with its best fair settings, over the same vectors, in the same process."""

import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.machine import cores
from benchmarks.search_rows import COLLECTION, NUMBER, Rows

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

Search = Callable[["Floats"], Any]

BARE = "bare numpy"


def unit_rows(rows: Rows) -> "Floats":
    """The vectors with length 1, as every peer is given them: none of them has to divide by lengths."""
    norms = np.linalg.norm(rows.vectors, axis=1, keepdims=True)
    return np.asarray(rows.vectors / norms, dtype=np.float32)


def bare_numpy(matrix: "Floats") -> Search:
    """The product and the indices of its largest values, best first. No more can be left out."""

    def search(query: "Floats") -> object:
        scores = matrix @ (query / np.linalg.norm(query))
        best = np.argpartition(scores, -NUMBER)[-NUMBER:]
        return best[np.argsort(-scores[best])]

    return search


def peers(matrix: "Floats") -> tuple[dict[str, Search], dict[str, str]]:
    """The peers that are installed; and why the others are not there."""
    found: dict[str, Search] = {}
    missing: dict[str, str] = {}
    for name, module, make in (
        ("faiss IndexFlatIP", "faiss", _faiss),
        ("usearch exact", "usearch", _usearch),
        ("sqlite-vec", "sqlite_vec", _sqlite_vec),
    ):
        problem = "not installed" if find_spec(module) is None else _unloadable() if module == "sqlite_vec" else ""
        if problem:
            missing[name] = problem
        else:
            found[name] = make(matrix)
    return found, missing


def _faiss(matrix: "Floats") -> Search:
    import faiss

    faiss.omp_set_num_threads(cores())
    index = faiss.IndexFlatIP(matrix.shape[1])
    index.add(matrix)
    return lambda query: index.search((query / np.linalg.norm(query))[None, :], NUMBER)


def _usearch(matrix: "Floats") -> Search:
    from usearch.index import MetricKind, search

    def find(query: "Floats") -> object:
        unit = query / np.linalg.norm(query)
        return search(matrix, unit, NUMBER, MetricKind.IP, exact=True, threads=cores())

    return find


def _unloadable() -> str:
    with closing(sqlite3.connect(":memory:")) as db:
        return "" if hasattr(db, "enable_load_extension") else "this Python's sqlite3 can't load extensions"


def _sqlite_vec(matrix: "Floats") -> Search:
    import sqlite_vec

    db = sqlite3.connect(":memory:")
    db.enable_load_extension(True)
    sqlite_vec.load(db)
    db.execute(f"CREATE VIRTUAL TABLE vectors USING vec0 (embedding float[{matrix.shape[1]}] distance_metric=cosine)")
    db.executemany(
        "INSERT INTO vectors (rowid, embedding) VALUES (?, ?)",
        ((number, row.tobytes()) for number, row in enumerate(matrix)),
    )
    query_text = "SELECT rowid, distance FROM vectors WHERE embedding MATCH ? AND k = ?"

    def find(query: "Floats") -> object:
        return db.execute(query_text, (query.astype(np.float32).tobytes(), NUMBER)).fetchall()

    return find


def llm_similar(database: Path) -> Search:
    """`similar_by_vector` of llm's own collection, over the same file."""
    import llm
    import sqlite_utils

    collection: Any = llm.Collection(COLLECTION, sqlite_utils.Database(database), create=False)
    return lambda query: collection.similar_by_vector(query.tolist(), NUMBER)


def threads() -> dict[str, int | str]:
    """How many threads each of the libraries that are loaded uses."""
    found: dict[str, int | str] = {"cores": cores()}
    if find_spec("threadpoolctl") is not None:
        import threadpoolctl

        for library in threadpoolctl.threadpool_info():
            name = f"{library['internal_api']} ({Path(library['filepath']).parent.name})"
            found[name] = int(library["num_threads"])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        if name in os.environ:
            found[name] = os.environ[name]
    found["interpreter"] = sys.implementation.name
    return found
