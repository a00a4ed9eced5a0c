"""The collections that are searched, written as another program would, and what the right answers are."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

import embedq
from benchmarks.corpora import like_embeddings, slices

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

COLLECTION: Final = "documents"
NUMBER: Final = 10

# Of the rows, this share has ids and metadata that a filter keeps; one in RARE_EVERY of the others those of a
# filter that keeps few.
COMMON_SHARE: Final = 0.95
RARE_EVERY: Final = 10

_BLOCK: Final = 65_536


@dataclass(frozen=True, slots=True)
class Rows:
    """A collection in a database, and what is known of it: vectors (rows, dimension) and the ids of the rows."""

    database: Path
    vectors: "Floats"
    ids: list[str]

    def truth(self, queries: "Floats", number: int = NUMBER) -> list[list[tuple[str, float]]]:
        """The right answers to queries of shape (queries, dimension), each the best first.

        Ids and cosine similarities, by a scan in float64; equal scores stand in the order of ids.
        """
        wanted = queries.astype(np.float64)
        best = self._best(wanted, min(4 * number, len(self.ids)))
        # A matrix product rounds equal rows differently, according to where they stand: the best are scored one by one.
        answers = []
        for query, indices in zip(wanted, best, strict=True):
            norm = float(np.linalg.norm(query))
            scored = []
            for index in indices.tolist():
                row = self.vectors[index].astype(np.float64)
                scored.append((-float(row @ query) / (float(np.linalg.norm(row)) * norm), self.ids[index]))
            answers.append([(id_, -score) for score, id_ in sorted(scored)[:number]])
        return answers

    def _best(self, queries: "npt.NDArray[np.float64]", number: int) -> "list[npt.NDArray[np.intp]]":
        scores = np.empty((len(queries), len(self.ids)))
        for start in range(0, len(self.ids), _BLOCK):
            block = self.vectors[start : start + _BLOCK].astype(np.float64)
            scores[:, start : start + _BLOCK] = (queries @ block.T) / np.linalg.norm(block, axis=1)
        return [np.argpartition(-row, number - 1)[:number] for row in scores]


def make_rows(database: Path, count: int) -> Rows:
    """Write a collection of `count` vectors. One row in a thousand has the vector of the one before it."""
    with embedq.Collection(COLLECTION, database, model_id="hashing") as collection:
        collection_id = collection.id
    vectors = like_embeddings(count, seed=1)
    vectors[1::1000] = vectors[0::1000][: len(vectors[1::1000])]
    rng = np.random.default_rng(2)
    common = rng.random(count) < COMMON_SHARE
    # Neighbours have each other's places among the ids, so that ties show who sorts.
    ids = [f"{kind_of(number, common=bool(common[number]))}/{number ^ 1:08}" for number in range(count)]
    now = int(time.time())

    def rows() -> Iterator[tuple[int, str, bytes, str, str, int]]:
        for number, id_ in enumerate(ids):
            metadata = json.dumps({"kind": id_.partition("/")[0], "year": 2000 + number % 25})
            yield collection_id, id_, vectors[number].tobytes(), f"the content of document {number}", metadata, now

    with closing(sqlite3.connect(database)) as db:
        for some in slices(rows(), _BLOCK):
            with db:
                db.executemany(
                    "INSERT INTO embeddings (collection_id, id, embedding, content, metadata, updated)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    some,
                )
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Rows(database, vectors, ids)


def kind_of(number: int, *, common: bool) -> str:
    """Which of the three kinds of rows a row is: common, rare or other."""
    return "common" if common else "rare" if number % RARE_EVERY == 0 else "other"


def make_queries(rows: Rows, count: int) -> "Floats":
    """Queries of shape (count, dimension): of the collection's kind, some of them vectors that are in it twice."""
    queries = like_embeddings(count, seed=5)
    twins = queries[::4]
    twins[:] = rows.vectors[0 : 1000 * len(twins) : 1000] if len(rows.vectors) >= 1000 * len(twins) else rows.vectors[0]
    return queries
