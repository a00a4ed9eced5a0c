"""Aligned text for a terminal of any width, and for a file."""

import shutil
import sys
from collections.abc import Collection, Sequence
from typing import Final

from embedq_core.text import shown

_GAP: Final = "  "
_PLAIN_WIDTH: Final = 10_000
_LEAST: Final = 8


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> None:
    """Print rows under their heads. On a terminal that is too narrow, the widest texts are cut with an ellipsis.

    Columns in `right` hold numbers: they are set to the right and never cut.
    """
    cells = [[shown(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PLAIN_WIDTH
    while sum(widths) + len(_GAP) * (len(widths) - 1) > limit:
        widest = max((column for column in range(len(widths)) if column not in right), key=widths.__getitem__)
        if widths[widest] <= _LEAST:
            break
        widths[widest] -= 1
    for row in cells:
        line = _GAP.join(
            _cut(cell, width).rjust(width) if column in right else _cut(cell, width).ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print(line.rstrip())


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        print(f"{name.ljust(width)}{_GAP}{shown(value)}")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
