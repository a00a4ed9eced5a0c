"""One screen of status, whatever the size of the terminal: which lines of which sections there is room for. Pure."""

import time
from collections.abc import Sequence

from embedq.status.reporting import Status
from embedq.status.sections import Section, facts, sections
from embedq.tables import field_lines, table_lines
from embedq_core.text import cut_text, shown


def screen(status: Status | None, columns: int, rows: int, *, now: float, every: float, problem: str = "") -> list[str]:
    """At most `rows` lines of at most `columns` columns: the status, read every so many seconds, and what keeps a
    newer one from being read. Without a status, there was none yet.
    """
    at = time.strftime("%H:%M:%S", time.localtime(now))
    title = f"embedq  {at}  every {every:g} s, Ctrl-C ends"
    lines = [title if status is None else f"{title}  {shown(status.database)}"]
    if problem:
        since = "" if status is None else f" (below is how it was {now - status.at:.0f} s ago)"
        lines.append(f"{shown(problem)}{since}")
    if status is not None:
        lines += field_lines(facts(status, columns))
        lines += fitting(sections(status), columns, rows - len(lines))
    elif not problem:
        lines.append("reading …")
    return [cut_text(line, columns) for line in lines[:rows]]


def fitting(parts: Sequence[Section], columns: int, room: int) -> list[str]:
    """The lines of `parts` that `room` lines have place for; those that are left out are named in the last one.

    Blank lines between them cost none of them its place.
    """
    wanted = [len(part.table.rows) for part in parts]
    given = allotted(wanted, room, around=2)
    if not all(given):
        given = allotted(wanted, room, around=1)
    if not all(given):
        room -= 1
        given = allotted(wanted, room, around=1)
    spare = room - sum(rows + 1 for rows in given if rows)
    lines: list[str] = []
    for part, rows in zip(parts, given, strict=True):
        if not rows:
            continue
        if spare > 0:
            lines.append("")
            spare -= 1
        heads, *body = table_lines(part.table, columns)
        hidden = len(body) - rows
        lines += [heads, *(body if not hidden else [*body[: rows - 1], f"and {hidden + 1:,} more"])]
    missing = [part.title for part, rows in zip(parts, given, strict=True) if not rows]
    if missing and room >= 0:
        lines.append(f"no room for: {', '.join(missing)}")
    return lines


def allotted(wanted: Sequence[int], room: int, *, around: int) -> list[int]:
    """How many lines of `wanted` each section gets in `room`, where each has `around` more; 0: none of it.

    Each gets its only row, or one and a line that says how many more there are; those that come first go before. What
    is left goes round.
    """
    given = [0] * len(wanted)
    for place, rows in enumerate(wanted):
        least = min(rows, 2)
        if rows and room >= around + least:
            given[place] = least
            room -= around + least
    while room > 0 and (hungry := [place for place, rows in enumerate(given) if 0 < rows < wanted[place]]):
        for place in hungry[:room]:
            given[place] += 1
        room -= len(hungry[:room])
    return given
