"""What the doctor says of the database."""

from collections.abc import Iterator
from typing import Final

from embedq.doctor.finding import Finding, Verdict, some
from embedq.inspecting import size
from embedq_store.health import DatabaseFacts
from embedq_store.schema import SCHEMA_VERSION

MIB: Final = 1024 * 1024
WAL_WARN_BYTES: Final = 256 * MIB
DISK_WARN_SHARE: Final = 0.1
DISK_FAIL_BYTES: Final = 100 * MIB


def database_findings(database: DatabaseFacts, *, named: bool) -> Iterator[Finding]:
    """Whether it can be used, is whole, and has room; `named` says that somebody has named it."""
    if not database.exists and named:
        yield Finding(
            Verdict.fail, "database", f"{database.path} is not there", "embed something, or name another file"
        )
    elif database.unusable is not None:
        yield _explained(database, database.unusable)
    elif database.unwritable is not None:
        yield _explained(database, database.unwritable)
    elif database.locked:
        detail = f"{database.path} was being written to all the time"
        yield Finding(Verdict.warn, "database", detail, "find the program that holds it, and end it")
    elif not database.exists:
        yield Finding(Verdict.ok, "database", f"{database.path} is not there yet, and can be made")
    else:
        yield Finding(Verdict.ok, "database", f"{database.path}, {size(database.bytes)}, can be written to")
    yield from _integrity(database)
    yield from _schema(database)
    if database.wal_bytes > WAL_WARN_BYTES:
        detail = f"the write-ahead log has grown to {size(database.wal_bytes)}: a reader keeps it from being emptied"
        yield Finding(Verdict.warn, "log", detail, "end programs that have been reading for long")
    elif database.exists:
        yield Finding(Verdict.ok, "log", f"the write-ahead log has {size(database.wal_bytes)}")
    yield from _disk(database)


def _explained(database: DatabaseFacts, problem: str) -> Finding:
    what, _, mend = problem.removeprefix(f"{database.path}: ").rpartition(": ")
    return Finding(Verdict.fail, "database", f"{database.path} {what or mend}", mend if what else "")


def _integrity(database: DatabaseFacts) -> Iterator[Finding]:
    if database.problems:
        detail = f"{database.path} is corrupt: {some(database.problems)}"
        yield Finding(
            Verdict.fail, "integrity", detail, "restore a copy, or save what can be read with 'sqlite3 FILE .recover'"
        )
    elif database.problems is not None:
        yield Finding(Verdict.ok, "integrity", "nothing wrong was found")


def _schema(database: DatabaseFacts) -> Iterator[Finding]:
    if not database.exists or database.unusable is not None:
        return
    if database.schema is None:
        yield Finding(Verdict.ok, "schema", "llm's: embedq adds its own tables when it first writes")
    elif database.schema < SCHEMA_VERSION:
        detail = f"version {database.schema}; this embedq brings it to {SCHEMA_VERSION} when it first writes"
        yield Finding(Verdict.ok, "schema", detail)
    else:
        yield Finding(Verdict.ok, "schema", f"version {database.schema}")


def _disk(database: DatabaseFacts) -> Iterator[Finding]:
    free, whole = database.free_bytes, database.disk_bytes
    if free is None or not whole:
        yield Finding(Verdict.warn, "disk", "its free space can't be told", "look with 'df'")
        return
    detail = f"{size(free)} of {size(whole)} free"
    if free < DISK_FAIL_BYTES:
        yield Finding(Verdict.fail, "disk", detail, "free some space: vectors and the queue need it")
    elif free < DISK_WARN_SHARE * whole:
        yield Finding(Verdict.warn, "disk", detail, "free some space soon")
    else:
        yield Finding(Verdict.ok, "disk", detail)
