"""The rows of a query on SQLite databases, all of them opened read-only."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from embedq_core.errors import SourceError, UsageError
from embedq_core.items import Item
from embedq_core.text import shown
from embedq_producer.readers.bad_row import BadRow
from embedq_producer.readers.options import RowOptions
from embedq_producer.readers.rows import Unreadable, shaped_item
from embedq_producer.readers.source import Progress, Rejects, Source
from embedq_producer.readers.stream import check_file
from embedq_producer.readers.table import table_shape

_NO_ROWS: Final = "the query returns no rows: a SELECT is needed"
_MORE_THAN_READS: Final = "the query does more than read: only a SELECT can be used"
# Writing is kept out by mode=ro and query_only; these would reach files beside the ones that are named.
_DENIED: Final = frozenset({sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH})


@dataclass(frozen=True)
class SqlSource(Source):
    """The rows of `query` on `database`, with more databases attached under aliases; no database: only those."""

    query: str
    database: Path | None = None
    attach: tuple[tuple[str, Path], ...] = ()

    def __post_init__(self) -> None:
        seen = {"main", "temp"}
        for alias, _ in self.attach:
            if not alias or "\0" in alias:
                raise UsageError("a database is attached under an alias that is a name")
            if alias.lower() in seen:
                raise UsageError(f"the alias {shown(alias)!r} is taken: attach the database under another one")
            seen.add(alias.lower())

    def describe(self) -> str:
        """The names of the databases; the query may be long, and hold anything."""
        paths = ([self.database] if self.database else []) + [path for _, path in self.attach]
        return f"SQL on {', '.join(shown(str(path)) for path in paths)}" if paths else "SQL"

    def check(self, options: RowOptions) -> None:  # noqa: ARG002 - any options suit a query
        """Look whether the databases are such, and whether SQLite understands the query; it isn't run."""
        for path in filter(None, (self.database, *(path for _, path in self.attach))):
            check_file(path, shown(str(path)))
        with self._connection() as connection:
            program = connection.execute(f"EXPLAIN {self.query}").fetchall()
        # https://sqlite.org/opcode.html: columns are addr, opcode, p1, p2; p2 of Transaction is for writing.
        if any(opcode == "Transaction" and p2 for _, opcode, _, p2, *_ in program):
            raise SourceError(_MORE_THAN_READS)
        if not any(opcode == "ResultRow" for _, opcode, *_ in program):
            raise SourceError(_NO_ROWS)

    def size(self) -> None:
        """Nobody knows before the query has run."""
        return

    def read(self, options: RowOptions, rejects: Rejects, progress: Progress) -> Iterator[Item]:  # noqa: ARG002 - rows of a query have no position
        """The item of every row, while the query runs."""
        with self._connection() as connection:
            cursor = connection.execute(self.query)
            if cursor.description is None:
                raise SourceError(_NO_ROWS)
            shape = table_shape([column[0] for column in cursor.description], "the query", options)
            number = 0
            while True:
                try:
                    row = next(cursor, None)
                except (sqlite3.Error, ValueError) as error:
                    raise connection.failure(error, f" after row {number:,}, the rest can't be read") from error
                if row is None:
                    return
                number += 1
                try:
                    item = shaped_item(shape, row, options, metadata_may_be_text=True)
                except BadRow as bad:
                    rejects.reject(f"SQL row {number}", bad)
                else:
                    yield item

    @contextmanager
    def _connection(self) -> "Iterator[_Connection]":
        main = ":memory:" if self.database is None else _read_only(self.database)
        name = self.describe() if self.database is None else shown(str(self.database))
        with _opening(name):
            sqlite = sqlite3.connect(main, uri=True)
        with closing(sqlite):
            sqlite.text_factory = _text
            with _opening(name):
                sqlite.execute("PRAGMA schema_version").fetchone()
            for alias, path in self.attach:
                quoted = alias.replace('"', '""')
                with _opening(shown(str(path))):
                    sqlite.execute(f'ATTACH ? AS "{quoted}"', (_read_only(path),))
                    sqlite.execute(f'PRAGMA "{quoted}".schema_version').fetchone()
            sqlite.execute("PRAGMA query_only = 1")
            connection = _Connection(sqlite)
            sqlite.set_authorizer(connection.authorize)
            yield connection


@dataclass
class _Connection:
    """A connection that only reads; `refused` where a statement wanted more."""

    sqlite: sqlite3.Connection
    refused: bool = field(default=False)

    def authorize(self, action: int, *_: str | None) -> int:
        """The answer to what SQLite asks while it prepares a statement, whether it may do this."""
        if action not in _DENIED:
            return sqlite3.SQLITE_OK
        self.refused = True
        return sqlite3.SQLITE_DENY

    def execute(self, query: str) -> sqlite3.Cursor:
        """Prepare and start a query. Raises SourceError where that fails."""
        try:
            return self.sqlite.execute(query)
        # Up to Python 3.11 a second statement is a Warning, which is no sqlite3.Error; ValueError is for a
        # NUL or a lone surrogate in the query.
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise self.failure(error, "") from error

    def failure(self, error: Exception, after: str) -> SourceError:
        """`error` in the user's words."""
        if self.refused or "readonly database" in str(error):
            return SourceError(_MORE_THAN_READS)
        return SourceError(f"the query fails{after}: {shown(str(error))}")


def _read_only(path: Path) -> str:
    return f"{path.absolute().as_uri()}?mode=ro"


@contextmanager
def _opening(name: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, ValueError) as error:
        raise SourceError(f"{name} can't be opened as a database: {shown(str(error))}") from error


def _text(data: bytes) -> str | Unreadable:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return Unreadable(f"isn't UTF-8 (byte 0x{data[error.start]:02x} at {error.start}): CAST it to BLOB")
