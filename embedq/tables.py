"""Aligned text for a terminal of any width, and for a file."""

import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from embedq_core.text import columns_of, cut_text, shown

_GAP: Final = "  "
_PLAIN_WIDTH: Final = 10_000
_LEAST: Final = 8
_LEFT_OUT: Final = "  …"


@dataclass(frozen=True, slots=True)
class Table:
    """Heads and rows of texts.

    `right` has the places of the columns that hold numbers; `least` how narrow others may be made before columns at the
    end are left out, where that is not the usual width.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Collection[int] = frozenset()
    least: Mapping[int, int] = field(default_factory=dict)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> None:
    """Print rows under their heads. On a terminal that is too narrow, the widest texts are cut with an ellipsis."""
    print_fitting(Table(heads, rows, right))


def print_fitting(table: Table) -> None:
    """Print a table in lines that the terminal has room for."""
    print(*table_lines(table, output_width()), sep="\n")


def output_width() -> int:
    """How wide lines may be: as the terminal is; without one, as they like."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _PLAIN_WIDTH


def table_lines(table: Table, limit: int) -> list[str]:
    """A table as lines of `limit` columns of the terminal at most: the heads, then a line for each row.

    Columns in `right` hold numbers: they are set to the right and never cut. The first column is what other commands
    are given, so it stays whole where it can: the last columns are left out before, for an ellipsis among the heads.
    """
    cells = [[shown(cell) for cell in row] for row in (table.heads, *table.rows)]
    columns = range(len(table.heads))
    widths = fitted(
        [max(columns_of(row[column]) for row in cells) for column in columns],
        limit,
        right=table.right,
        least=table.least,
    )
    lines = []
    for number, row in enumerate(cells):
        line = _GAP.join(
            _in_column(cell, width, right=column in table.right)
            for column, (cell, width) in enumerate(zip(row[: len(widths)], widths, strict=True))
        )
        left_out = _LEFT_OUT if number == 0 and len(widths) < len(table.heads) else ""
        lines.append(f"{line}{left_out}".rstrip())
    return lines


def fitted(
    widths: Sequence[int], limit: int, *, right: Collection[int] = (), least: Mapping[int, int] | None = None
) -> list[int]:
    """How wide to make columns that would need `widths`, in lines of `limit`; those at the end may be left out."""
    whole = {*right, 0} if widths[0] <= limit // 2 else {*right}
    narrowest = [width if column in whole else (least or {}).get(column, _LEAST) for column, width in enumerate(widths)]
    found = _narrowed(widths, limit, narrowest)
    kept = len(widths)
    while found is None and kept > 2:
        kept -= 1
        found = _narrowed(widths[:kept], limit - len(_LEFT_OUT), narrowest)
    # Two columns that are still too wide: the terminal breaks the lines.
    return found or [min(width, narrowest[column]) for column, width in enumerate(widths[:kept])]


def _narrowed(widths: Sequence[int], limit: int, narrowest: Sequence[int]) -> list[int] | None:
    found = list(widths)
    while sum(found) + len(_GAP) * (len(found) - 1) > limit:
        cut = [column for column in range(len(found)) if found[column] > narrowest[column]]
        if not cut:
            return None
        found[max(cut, key=found.__getitem__)] -= 1
    return found


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    print(*field_lines(fields), sep="\n")


def field_lines(fields: Sequence[tuple[str, str]]) -> list[str]:
    """Names and values, one pair a line, as long as they are."""
    width = max(len(name) for name, _ in fields)
    return [f"{name.ljust(width)}{_GAP}{shown(value)}" for name, value in fields]


def _in_column(text: str, width: int, *, right: bool) -> str:
    """`text`, cut or filled up to `width` columns of the terminal."""
    cut = cut_text(text, width)
    room = " " * (width - columns_of(cut))
    return room + cut if right else cut + room
