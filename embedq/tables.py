"""Aligned text for a terminal of any width, and for a file."""

import shutil
import sys
from collections.abc import Collection, Sequence
from typing import Final

from embedq_core.text import shown

_GAP: Final = "  "
_PLAIN_WIDTH: Final = 10_000
_LEAST: Final = 8
_LEFT_OUT: Final = "  …"


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> None:
    """Print rows under their heads. On a terminal that is too narrow, the widest texts are cut with an ellipsis.

    Columns in `right` hold numbers: they are set to the right and never cut. The first column is what other commands
    are given, so it stays whole where it can: the last columns are left out before, for an ellipsis among the heads.
    """
    cells = [[shown(cell) for cell in row] for row in (heads, *rows)]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PLAIN_WIDTH
    widths = fitted([max(len(row[column]) for row in cells) for column in range(len(heads))], limit, right=right)
    for number, row in enumerate(cells):
        line = _GAP.join(
            _cut(cell, width).rjust(width) if column in right else _cut(cell, width).ljust(width)
            for column, (cell, width) in enumerate(zip(row[: len(widths)], widths, strict=True))
        )
        left_out = _LEFT_OUT if number == 0 and len(widths) < len(heads) else ""
        print(f"{line}{left_out}".rstrip())


def fitted(widths: Sequence[int], limit: int, *, right: Collection[int] = ()) -> list[int]:
    """How wide to make columns that would need `widths`, in lines of `limit`; those at the end may be left out."""
    whole = {*right, 0} if widths[0] <= limit // 2 else {*right}
    found = _narrowed(widths, limit, whole)
    kept = len(widths)
    while found is None and kept > 2:
        kept -= 1
        found = _narrowed(widths[:kept], limit - len(_LEFT_OUT), whole)
    # Two columns that are still too wide: the terminal breaks the lines.
    return found or [width if column in whole else min(width, _LEAST) for column, width in enumerate(widths[:kept])]


def _narrowed(widths: Sequence[int], limit: int, whole: Collection[int]) -> list[int] | None:
    found = list(widths)
    while sum(found) + len(_GAP) * (len(found) - 1) > limit:
        cut = [column for column in range(len(found)) if column not in whole and found[column] > _LEAST]
        if not cut:
            return None
        found[max(cut, key=found.__getitem__)] -= 1
    return found


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        print(f"{name.ljust(width)}{_GAP}{shown(value)}")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
