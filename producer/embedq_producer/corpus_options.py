"""The options that say what to read and how, shared by the commands that read a corpus."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from typer.core import TyperCommand

from embedq_core.errors import UsageError
from embedq_core.priority import Priority

_PAIRED = {"--files": "a directory and a pattern", "--attach": "an alias and a file"}

# Cannot occur in an argument of a command line.
_SEPARATOR = "\0"

_READING = "What to read"
_ROWS = "What becomes of each row"

Inputs: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILE",
        help="Files of rows, or - for standard input. With --sql: the database.",
        show_default=False,
    ),
]
Format: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="Format: csv, tsv, json, nl (JSON lines) or parquet; told by the name or the first bytes of FILE "
        "if left out.",
        rich_help_panel=_READING,
    ),
]
Files: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--files",
        metavar="DIR GLOB",
        help="Each file below DIR that matches GLOB is an item; its path is its id. May be repeated.",
        rich_help_panel=_READING,
    ),
]
Encoding: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--encoding",
        metavar="NAME",
        help="Encoding to try. May be repeated.",
        show_default="utf-8; for --files then latin-1",
        rich_help_panel=_READING,
    ),
]
Binary: TypeAlias = Annotated[
    bool, typer.Option("--binary", help="Read --files as bytes, for models that take them.", rich_help_panel=_READING)
]
Sql: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--sql",
        metavar="QUERY",
        help="Read the rows of a query, from FILE or else from the database of vectors. Opened read-only.",
        rich_help_panel=_READING,
    ),
]
Attach: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--attach",
        metavar="ALIAS FILE",
        help="Another SQLite file for the query, as ALIAS. May be repeated.",
        rich_help_panel=_READING,
    ),
]
Strict: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--strict", help="Stop at the first row that can't be read, instead of skipping it.", rich_help_panel=_READING
    ),
]
Prefix: TypeAlias = Annotated[
    str, typer.Option("--prefix", metavar="TEXT", help="Put TEXT before every id.", rich_help_panel=_ROWS)
]
Prepend: TypeAlias = Annotated[
    str, typer.Option("--prepend", metavar="TEXT", help="Put TEXT before every content.", rich_help_panel=_ROWS)
]
Metadata: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata",
        metavar="COLUMN",
        help="Keep COLUMN in the metadata, and out of the content. May be repeated.",
        rich_help_panel=_ROWS,
    ),
]
Chunk: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--chunk",
        metavar="SIZE",
        help="Split contents into parts of SIZE, such as 1500chars or 300tokens. The parts of ID are ID#0, ID#1 …",
        rich_help_panel=_ROWS,
    ),
]
Overlap: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--overlap",
        metavar="N",
        min=0,
        help="Begin each part with N, at most, of the part before it; characters or tokens as in --chunk.",
        show_default="0",
        rich_help_panel=_ROWS,
    ),
]
Keep: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--store/--no-store",
        help="Keep the content beside its vector: embedding it anew needs it.",
        rich_help_panel=_ROWS,
    ),
]
Prune: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--prune",
        help="Then remove entries, under --prefix, that the source no longer has; only if all of it could be read.",
        rich_help_panel="How to do it",
    ),
]
PruneYes: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--yes",
        "-y",
        help="Don't ask before --prune removes more than a fifth.",
        rich_help_panel="How to do it",
    ),
]
AllowEmpty: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--allow-empty",
        help="Let --prune remove all where the source gives nothing, as a folder does that is not mounted.",
        rich_help_panel="How to do it",
    ),
]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.", rich_help_panel="How to do it")
]


@dataclass(frozen=True, slots=True)
class CorpusRequest:
    """What the options of one command line ask for, as they were given."""

    collection: str
    inputs: Sequence[str] = ()
    format: str | None = None
    files: Sequence[str] = ()
    encodings: Sequence[str] = ()
    binary: bool = False
    sql: str | None = None
    attach: Sequence[str] = ()
    strict: bool = False
    prefix: str = ""
    prepend: str = ""
    metadata: Sequence[str] = ()
    chunk: str | None = None
    overlap: int | None = None
    store: bool = True
    model: str | None = None
    database: Path | None = None
    priority: Priority = Priority.NORMAL
    prune: bool = False
    yes: bool = False
    allow_empty: bool = False
    dry_run: bool = False
    json: bool = False

    def file_pairs(self) -> list[tuple[Path, str]]:
        """`--files`: directories and patterns."""
        return [(Path(directory), pattern) for directory, pattern in map(_pair, self.files)]

    def attached(self) -> list[tuple[str, Path]]:
        """`--attach`: aliases and files."""
        return [(alias, Path(file)) for alias, file in map(_pair, self.attach)]

    def may_hold_bytes(self) -> bool:
        """Whether contents may be bytes: of files that are read so, of columns in SQL and Parquet."""
        formats = {self.format or Path(name).suffix.lower().lstrip(".") for name in self.inputs}
        return self.binary or self.sql is not None or "parquet" in formats


class CorpusCommand(TyperCommand):
    """A command with options that take two values and may be repeated, which Typer has no type for.

    Their values are joined before parsing, with a character that no argument can hold, and parted afterwards.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - click's context, which Typer vendors
        """Parse, with the pairs joined. Raises UsageError for half a pair."""
        return super().parse_args(ctx, _joined(args))


def _joined(args: Sequence[str]) -> list[str]:
    joined: list[str] = []
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        name, equals, value = arg.partition("=")
        if arg == "--":
            return [*joined, arg, *rest]
        if name not in _PAIRED:
            joined.append(arg)
            continue
        values = [value] if equals else []
        while len(values) < len(("first", "second")):
            # What begins as an option does is one: the pattern was forgotten.
            if not rest or re.match("--?[A-Za-z]", rest[0]):
                raise UsageError(f"{name} needs two values, {_PAIRED[name]}: see 'embedq submit --help'")
            values.append(rest.pop(0))
        joined += [name, _SEPARATOR.join(values)]
    return joined


def _pair(joined: str) -> tuple[str, str]:
    first, _, second = joined.partition(_SEPARATOR)
    return first, second
