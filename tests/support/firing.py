"""Processes that write to one database until they are killed, and the check of what they leave behind."""

import asyncio
import contextlib
import os
import resource
import signal
import sqlite3
from pathlib import Path

from embedq_core.counts import Counts
from embedq_core.items import Item
from embedq_core.vectors import encode
from embedq_store import ChunkMark, Incoming, Row, Store, Target, Write, connection

ROWS = 50
# Smaller than usual, so that the first checkpoint comes soon.
LOG_BYTES = 4 * 1024 * 1024
DIMENSION = 384
RUN = "fire"


def rows_of(chunk: int) -> list[Row]:
    """What a write holds: rows that all tell the number of their chunk, in id, content, metadata and vector."""
    items = [Item(f"{chunk}-{number}", f"text {chunk} {number}", str(chunk)) for number in range(ROWS)]
    vector = encode([float(chunk)] * DIMENSION)
    return [Row(*entry, vector) for entry in Incoming.of(items)]


def write_for_ever(path: Path, first: int, acknowledged: Path, file_size: int | None = None) -> None:
    """Write chunk after chunk from `first` on, and say in `acknowledged` which `write` has returned from.

    With `file_size` the system ends the process in the middle of the write that would make a file larger.
    """
    if file_size is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    connection.LOG_BYTES = LOG_BYTES  # type: ignore[misc]
    asyncio.run(_write_for_ever(path, first, acknowledged))


async def _write_for_ever(path: Path, first: int, acknowledged: Path) -> None:
    log = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    async with await Store.open(path) as store:
        chunk = first
        while True:
            await store.write(_write(chunk))
            os.write(log, f"{chunk}\n".encode())
            chunk += 1


def say_why_not(path: Path, said: Path, file_size: int) -> None:
    """Write a chunk, and then ten together for which there is no room, and put down in `said` what is raised."""
    said.write_text("\n".join(asyncio.run(_say_why_not(path, file_size))))


async def _say_why_not(path: Path, file_size: int) -> set[str]:
    async with await Store.open(path) as store:
        await store.write(_write(0))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, most))
        results = await asyncio.gather(*(store.write(_write(chunk)) for chunk in range(1, 11)), return_exceptions=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    return {f"{type(result).__name__} {result}" for result in results}


def _write(chunk: int) -> Write:
    mark = ChunkMark(RUN, chunk, Counts(embedded=ROWS), finished=True)
    return Write(Target("pets", "recording"), rows_of(chunk), mark=mark)


def acknowledged_chunks(acknowledged: Path) -> list[int]:
    """The chunks that were said to be written."""
    return [int(line) for line in acknowledged.read_text().splitlines()] if acknowledged.exists() else []


def integrity(path: Path) -> str:
    """'ok', or what is wrong with the file."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return str(db.execute("PRAGMA integrity_check").fetchone()[0])


def chunks_found(path: Path) -> list[int]:
    """The chunks that are in the database. Each must be there whole, with its mark, or not at all."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT id, content, metadata, embedding FROM embeddings").fetchall()
        marks = {int(chunk) for (chunk,) in db.execute("SELECT chunk FROM embedq_chunks WHERE run = ?", (RUN,))}
    expected = {
        row.item.id: (row.item.content, row.item.metadata, row.vector) for chunk in marks for row in rows_of(chunk)
    }
    assert {key: tuple(rest) for key, *rest in rows} == expected
    return sorted(marks)
