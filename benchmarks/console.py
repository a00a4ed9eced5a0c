"""What does the operator's console take where a collection is large?

Each command is a whole process. While it runs, another one writes a row every 20 ms: how long it was kept from that at
worst is how long a worker would be. The peak of memory and of the write-ahead log are those of the command. Ids are
hashes, in no order, which is the hard case for a table that lies in the order of arrival.
"""

import asyncio
import hashlib
import json
import os
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.corpora import DIMENSION
from benchmarks.figures import Answer, Line
from benchmarks.processes import Place
from embedq_core.vectors import encode
from embedq_store import Store
from embedq_store.schema import LLM_TABLES

TITLE = "The console, a large collection"
LIMIT_SECONDS = 600.0

_ROWS: Final = {"quick": 200, "standard": 200_000, "large": 1_000_000}
_LETTERS: Final = {"quick": 20, "standard": 50_000, "large": 200_000}
# Every so many entries, the source has one that is new, and lacks one.
_EVERY: Final = 100
_MODEL: Final = "prepared-array"
_MB: Final = 1e6


@dataclass(slots=True)
class Beside:
    """What another writer saw: the longest that it was kept from writing, in seconds, and the most bytes of log."""

    held_up: float = 0.0
    log: int = 0


def measure(bench: Bench) -> Answer:
    """One command after the other, each once: they are minutes, not milliseconds."""
    rows, letters = _ROWS[bench.scale], _LETTERS[bench.scale]
    place = bench.place()
    _fill(place, rows)
    bench.say(f"{rows:,} entries")
    source = _source(bench.folder / "source.jsonl", rows)
    files = {name: place.folder / f"file.{name}" for name in ("npz", "parquet", "jsonl")}
    lines: list[Line] = []
    details: dict[str, object] = {"rows": rows, "letters": letters}

    def ask(said: str, *arguments: str | Path) -> None:
        with _beside(place.database) as beside:
            ended = place.embedq(*arguments)
        details[said] = {
            "seconds": ended.seconds,
            "processor_seconds": ended.cpu_seconds,
            "peak_mb": ended.peak_bytes / _MB,
            "held_up_seconds": beside.held_up,
            "log_mb": beside.log / _MB,
        }
        note = f"{ended.peak_bytes / _MB:.0f} MB of memory; another writer waits {beside.held_up:.2f} s at most"
        if beside.log > _MB:
            note += f"; log {beside.log / _MB:.0f} MB"
        lines.append(Line(said, "s", [ended.seconds], note=note))
        bench.say(f"{said}: {ended.seconds:.1f} s, {note}")

    ask("collections list", "collections", "list")
    ask("collections show", "collections", "show", "documents")
    ask("status --json", "status", "--json")
    ask("doctor", "doctor")
    ask("collections audit --sample 0", "collections", "audit", "documents", "--sample", "0")
    for name, file in files.items():
        ask(f"collections export, {name}", "collections", "export", "documents", file)
        if name != "npz":
            file.unlink()
    ask("collections import, npz", "collections", "import", "imported", files["npz"])
    files["npz"].unlink()
    ask("collections delete", "collections", "delete", "imported", "--yes")
    ask("collections copy", "collections", "copy", "documents", "copied")
    ask("collections rename", "collections", "rename", "copied", "renamed")
    ask("submit --prune --dry-run", "submit", "documents", source, "-m", _MODEL, "--prune", "--dry-run")
    _bury(place, letters)
    ask(f"dead list, {letters:,} letters", "dead", "list")
    ask("dead purge --all", "dead", "purge", "--all", "--yes")
    return Answer(lines, details)


def _id(number: int) -> str:
    return f"{number % 100}/{hashlib.blake2b(number.to_bytes(8, 'little'), digest_size=8).hexdigest()}"


def _content(number: int) -> str:
    return f"the content of document {number} " + "x" * 160


def _fill(place: Place, rows: int) -> None:
    """A database that holds a collection of vectors, as another tool may have made it."""
    chance = random.Random(5)
    vectors = [encode([chance.uniform(-1, 1) for _ in range(DIMENSION)]) for _ in range(min(rows, 2048))]
    with closing(sqlite3.connect(place.database)) as db:
        db.execute("PRAGMA page_size = 8192")
        for statement in LLM_TABLES:
            db.execute(statement)
        db.execute("INSERT INTO collections VALUES (1, 'documents', ?)", (_MODEL,))
        db.executemany(
            "INSERT INTO embeddings VALUES (1, ?, ?, ?, NULL, ?, ?, ?)",
            (
                (
                    _id(number),
                    vectors[number % len(vectors)],
                    content := _content(number),
                    hashlib.md5(content.encode(), usedforsecurity=False).digest(),
                    json.dumps({"number": number}),
                    1_700_000_000 + number,
                )
                for number in range(rows)
            ),
        )
        db.commit()
    asyncio.run(_prepare(place.database))


async def _prepare(database: Path) -> None:
    """Give it embedq's own tables."""
    async with await Store.open(database):
        pass


def _source(path: Path, rows: int) -> Path:
    with path.open("w") as file:
        for number in range(rows):
            name = f"new/{number}" if number % _EVERY == 0 else _id(number)
            content = f"new {number}" if number % _EVERY == 0 else _content(number)
            file.write(json.dumps({"id": name, "content": content, "number": number}) + "\n")
    return path


def _bury(place: Place, letters: int) -> None:
    with closing(sqlite3.connect(place.database)) as db:
        db.executemany(
            "INSERT INTO embedq_dead (run, chunk, collection, id, content, model, error, message, attempts, died)"
            " VALUES ('r', 0, 'documents', ?, ?, ?, 'ValueError', 'refused', 5, 1.7e9)",
            ((f"dead/{number}", _content(number), _MODEL) for number in range(letters)),
        )
        db.commit()


@contextmanager
def _beside(database: Path) -> Iterator[Beside]:
    """Another writer, for the block."""
    seen, ended = Beside(), threading.Event()
    log = f"{database}-wal"

    def write() -> None:
        with closing(sqlite3.connect(database, timeout=600, isolation_level=None)) as db:
            while not ended.wait(0.02):
                began = time.perf_counter()
                # A row that is written as it is.
                db.execute("UPDATE embedq_schema SET version = version")
                seen.held_up = max(seen.held_up, time.perf_counter() - began)
                with suppress(OSError):
                    seen.log = max(seen.log, os.stat(log).st_size)  # noqa: PTH116 - fifty times a second

    writing = threading.Thread(target=write)
    writing.start()
    try:
        yield seen
    finally:
        ended.set()
        writing.join()
