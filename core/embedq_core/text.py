"""Text for a terminal: names, ids and contents are data, whatever characters they hold."""

import re
from collections.abc import Iterable

# C0 and C1 controls, DEL, and the marks that reorder or hide what follows them.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str) -> str:
    """`text` on one line, with what a terminal would obey written as an escape."""
    return _UNSAFE.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def shown_lines(text: str) -> str:
    """`text` with its line breaks, other control characters written as escapes."""
    return "\n".join(shown(line.expandtabs(4)) for line in text.splitlines())


def columns_of(text: str) -> int:
    """How many columns of a terminal `text`, of one line, takes: two for what East Asian scripts and emoji are made of,
    none for a mark on the character before it.
    """
    if text.isascii():
        return len(text)
    return sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    import unicodedata

    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut_text(text: str, width: int) -> str:
    """`text`, or as much of it as fits in `width` columns of a terminal with an ellipsis."""
    if columns_of(text) <= width:
        return text
    end, room = 0, width - 1
    while room >= (taken := columns_of(text[end])):
        end, room = end + 1, room - taken
    return text[:end] + "…"


def excerpt(text: str, width: int) -> str:
    """The first `width` characters of `text`, white space folded, with an ellipsis where it goes on."""
    folded = shown(" ".join(text[: width * 4].split()))
    return folded if len(folded) <= width and len(text) <= width * 4 else folded[: width - 1] + "…"


def suggestion(name: str, known: Iterable[str]) -> str:
    """' Did you mean x or y?' for names close to `name`, else ''."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(dict.fromkeys(known)), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(match) for match in close)}?" if close else ""


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """'1 item', '1,024 items'."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"
