"""Ids with a prefix, as a range of SQLite's index of ids."""


def with_prefix(prefix: str, beyond: str | None = None) -> tuple[str, tuple[str, ...]]:
    """The condition in SQL that `id` starts with `prefix`, and the values in it.

    With `beyond`, an id with that prefix, only those that come after it are meant: the next page.
    """
    low = ("id >= ?", prefix) if beyond is None else ("id > ?", beyond)
    end = after(prefix)
    return (low[0], (low[1],)) if end is None else (f"{low[0]} AND id < ?", (low[1], end))


def after(prefix: str) -> str | None:
    """The first text after all that start with `prefix`, in SQLite's order (UTF-8 bytes, so code points)."""
    for end in range(len(prefix), 0, -1):
        point = ord(prefix[end - 1]) + 1
        if 0xD800 <= point <= 0xDFFF:
            point = 0xE000
        if point <= 0x10FFFF:
            return prefix[: end - 1] + chr(point)
    return None
