"""Approximate search from the command line, on a collection that is just large enough for an index."""

import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from support.command_line import CommandLine

ROWS, DIMENSION = 1100, 4096


@pytest.fixture
def large(embedq: CommandLine) -> CommandLine:
    """A collection of 1,100 entries of 4,096 dimensions, written by another program, and one of a single entry."""
    embedq("ingest", "docs", "-", "-m", "recording", input="id,content\na,one\n")
    vectors = np.random.default_rng(1).normal(size=(ROWS, DIMENSION)).astype("<f4")
    with closing(sqlite3.connect(embedq.database)) as db, db:
        db.execute("INSERT INTO collections VALUES (2, 'large', 'recording')")
        db.executemany(
            "INSERT INTO embeddings (collection_id, id, embedding) VALUES (2, ?, ?)",
            ((str(number), vector.tobytes()) for number, vector in enumerate(vectors)),
        )
    return embedq


def test_a_first_search_is_exact_and_says_so_and_later_ones_ask_the_index(large: CommandLine) -> None:
    exact = large("similar", "large", "7", "-n", "1")
    first = large("similar", "large", "7", "-n", "1", "--ann")
    assert (first.out, first.err) == (
        exact.out,
        "large was searched exactly: its index is being built, in the background\n",
    )
    # It waits for the one that is being built.
    assert large("collections", "index", "large").out.startswith("indexed large: 1,100 entries, in ")
    second = large("similar", "large", "7", "-n", "3", "--ann")
    assert (len(second.out.splitlines()), second.err) == (3, "")
    small = large("similar", "docs", "--batch", "-", "--ann", input="one\n")
    assert ('"id": "a"' in small.out, small.err) == (True, "")
    assert large("collections", "index", "docs").out == (
        "docs needs no index: 1 entry can be searched exactly in a moment\n"
    )
    for name, entries, indexed in (("large", ROWS, True), ("docs", 1, False)):
        told = json.loads(large("collections", "index", name, "--json").out)
        assert told == {"collection": name, "entries": entries, "indexed": indexed, "seconds": told["seconds"]}
