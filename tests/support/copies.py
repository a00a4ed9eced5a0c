"""What tests of searches do around a database: find its copies, and change it as other programs do."""

import sqlite3
from contextlib import closing
from pathlib import Path


def folder(path: Path) -> Path:
    """Where the copies and indexes of the database at `path` are."""
    return path.with_name(path.name + ".embedq") / "vectors"


def change(path: Path, sql: str, **named: object) -> None:
    """Change the database as another program would, with plain SQLite."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(sql, named)
