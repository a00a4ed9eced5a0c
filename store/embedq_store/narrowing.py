"""Which rows may meet a condition on their metadata, told by SQLite from the text of the JSON. Deciding, without I/O.

SQLite looks through a million texts in well under a second, Python parses them in several. What it is asked must
only leave out no row that meets the condition:

- A text stands in JSON as it is, unless some of it is escaped, with a backslash.
- A whole number that is exact as a float stands there as its digits, unless it has a fraction or an exponent: then
  a digit stands before a point or an e. Other numbers have one of these in any case, or are looked for in vain.
- true, false and null stand there as they are.
"""

import json
from collections.abc import Sequence
from typing import Final

from embedq_store.filters import Condition, Kinded

_EXACT: Final = 2**53
_VALUES: Final = 32

_EVERY: Final = ("1", ())
_ESCAPED: Final = "instr(metadata, char(92))"
_FRACTION: Final = "metadata GLOB '*[0-9][.eE]*'"


def narrowed(conditions: Sequence[Condition]) -> tuple[str, tuple[str, ...]]:
    """An SQL expression over `metadata`, and its values, that is true for whatever meets all of the conditions."""
    parts = [_condition(condition) for condition in conditions]
    texts = " AND ".join(f"({text})" for text, _ in parts)
    # What is no text, another tool has stored.
    return f"(typeof(metadata) <> 'text' OR ({texts or 1}))", tuple(value for _, values in parts for value in values)


def _condition(condition: Condition) -> tuple[str, tuple[str, ...]]:
    if len(condition.values) > _VALUES:
        return _EVERY
    parts = [_value(value) for value in condition.values]
    return " OR ".join(text for text, _ in parts), tuple(value for _, values in parts for value in values)


def _value(value: Kinded) -> tuple[str, tuple[str, ...]]:
    match value:
        case ("text", str(text)):
            try:
                text.encode()
            except UnicodeEncodeError:  # half of a pair, which only an escape can give
                return _ESCAPED, ()
            return f"instr(metadata, ?) OR {_ESCAPED}", (text,)
        case ("truth" | "null", scalar):
            return "instr(metadata, ?)", (json.dumps(scalar),)
        case ("number", int() | float() as number) if abs(number) < _EXACT:
            if number == int(number):
                return f"instr(metadata, ?) OR {_FRACTION}", (str(int(number)),)
            return _FRACTION, ()
        case _:
            return _EVERY
