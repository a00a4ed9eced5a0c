"""The plain loop that embedq is compared with: one thread that hashes, looks up and inserts with `sqlite3`.

    python -m benchmarks.plain_loop DATABASE CORPUS [--no-hash-index]

The same rows in the same tables, with the same settings of the database, in transactions of 8,192 rows; one look
at each id, to see whether it is there with this content. It prints the seconds from its first row to its last commit.
"""

import argparse
import hashlib
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from benchmarks.corpora import prepared_vectors, slices

ROWS = 8192

_SCHEMA = """
CREATE TABLE IF NOT EXISTS collections (id INTEGER PRIMARY KEY, name TEXT, model TEXT);
CREATE TABLE IF NOT EXISTS embeddings (
    collection_id INTEGER REFERENCES collections(id), id TEXT, embedding BLOB, content TEXT, content_blob BLOB,
    content_hash BLOB, metadata TEXT, updated INTEGER, PRIMARY KEY (collection_id, id)
);
"""
_HASH_INDEX = "CREATE INDEX IF NOT EXISTS idx_embeddings_content_hash ON embeddings (content_hash)"


def main() -> None:
    """Ingest the corpus and print how long it took."""
    parser = argparse.ArgumentParser(description="the plain loop")
    parser.add_argument("database", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--no-hash-index", action="store_true", help="leave out the index of content hashes")
    options = parser.parse_args()
    with closing(sqlite3.connect(options.database, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_SCHEMA if options.no_hash_index else _SCHEMA + _HASH_INDEX)
        vectors = [row.tobytes() for row in prepared_vectors()]
        began = time.perf_counter()
        ingest(db, options.corpus, vectors)
        print(time.perf_counter() - began)


def ingest(db: sqlite3.Connection, corpus: Path, vectors: list[bytes]) -> None:
    """Insert what is new or has changed, a transaction for each 8,192 lines."""
    with corpus.open() as file:
        for number, lines in enumerate(slices(file, ROWS)):
            rows = []
            now = int(time.time())
            db.execute("BEGIN IMMEDIATE")
            for index, text in enumerate(lines):
                item = json.loads(text)
                content = item["content"]
                digest = hashlib.md5(content.encode(), usedforsecurity=False).digest()
                query = "SELECT content_hash FROM embeddings WHERE collection_id = 1 AND id = ?"
                if db.execute(query, (item["id"],)).fetchone() == (digest,):
                    continue
                vector = vectors[(number * ROWS + index) % len(vectors)]
                rows.append((item["id"], vector, content, digest, now))
            db.executemany(
                "INSERT OR REPLACE INTO embeddings (collection_id, id, embedding, content, content_hash, updated)"
                " VALUES (1, ?, ?, ?, ?, ?)",
                rows,
            )
            db.execute("COMMIT")


if __name__ == "__main__":
    main()
