"""What a search can be limited to: ids with a prefix, and values in the metadata. Deciding, without I/O."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any, Final, TypeAlias, cast

import msgspec
import numpy as np

from embedq_core.errors import UsageError
from embedq_core.items import metadata_object, unstorable

Scalar: TypeAlias = str | float | bool | None
"""What JSON has beside objects and arrays: text, a number, true, false, null."""

Where: TypeAlias = Mapping[str, Scalar | Collection[Scalar]]
"""The value that an entry's metadata must hold under each key, or the values, of which it must hold one."""

# JSON tells true from 1 and 2024 from "2024", but not 1 from 1.0: with its kind beside it, so does a value of Python.
Kinded: TypeAlias = tuple[str, Scalar]

_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True)
class Condition:
    """That the metadata holds one of `values` under `key`."""

    key: str
    values: frozenset[Kinded]

    @classmethod
    def of(cls, key: object, value: object) -> "Condition":
        """The condition that `where={key: value}` asks for. Raises UsageError where JSON has no such value."""
        if not isinstance(key, str) or not key:
            raise UsageError(f"a key of the metadata must be text, not {key!r}")
        several = isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping)
        values = cast("Collection[object]", value) if several else (value,)
        if not values:
            raise UsageError(f"where: no value is given for {key!r}")
        return cls(key, frozenset(_given(key, one) for one in values))

    def keeps(self, metadata: Mapping[str, Any] | None) -> bool:
        """Whether an entry with this metadata meets the condition."""
        return kinded_at(metadata, self.key) in self.values


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries a search may answer with: all of `conditions` must be met."""

    prefix: str = ""
    conditions: tuple[Condition, ...] = ()

    @classmethod
    def of(cls, prefix: str | None = None, where: Where | None = None) -> "Filter":
        """The filter for these arguments of a search. Raises UsageError for what makes no sense."""
        if where is not None and not isinstance(where, Mapping):
            raise UsageError(f"where must map keys to values, as a dict does, not be {type(where).__name__}")
        return cls(prefix or "", tuple(Condition.of(key, value) for key, value in (where or {}).items()))

    @property
    def everything(self) -> bool:
        """Whether it keeps every entry."""
        return not self.prefix and not self.conditions

    def keeps(self, id_: str, metadata: str | None) -> bool:
        """Whether the entry with this id and this text of metadata may be answered."""
        if not id_.startswith(self.prefix):
            return False
        if not self.conditions:
            return True
        held = parsed(metadata)
        return all(condition.keeps(held) for condition in self.conditions)


def parsed(metadata: str | None) -> dict[str, Any] | None:
    """The same as `metadata_object`, in a fifth of its time where the text is as it should be."""
    if metadata is None:
        return None
    try:
        return _OBJECT.decode(metadata)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError):
        # Other tools may write NaN, lone surrogates, numbers beyond all floats: Python's reader takes them.
        return metadata_object(metadata)


def kinded_at(metadata: object, key: str) -> Kinded | None:
    """The scalar under `key`, with its kind; None where there is none.

    Where no key is `key` as it stands, a dot in it leads into an object: `author.name`.
    """
    if not isinstance(metadata, dict):
        return None
    if key in metadata:
        return _kinded(metadata[key])
    dot = key.find(".")
    while dot >= 0:
        if key[:dot] in metadata:
            found = kinded_at(metadata[key[:dot]], key[dot + 1 :])
            if found is not None:
                return found
        dot = key.find(".", dot + 1)
    return None


def code_of(value: Kinded | None) -> int:
    """A number of 32 bits for a value, 0 for none: equal values have equal ones, others hardly ever."""
    return 0 if value is None else hash(value) & 0xFFFFFFFF or 1


def _kinded(value: object) -> Kinded | None:
    match value:
        case str():
            return ("text", value)
        case bool():
            return ("truth", value)
        case int() | float():
            return ("number", value)
        case None:
            return ("null", None)
        case _:
            return None


def _given(key: str, value: object) -> Kinded:
    if isinstance(value, np.generic):
        value = value.item()
    found = _kinded(value)
    if found is None:
        raise UsageError(
            f"where: the value of {key!r} must be text, a number, true, false or null, not {type(value).__name__}"
        )
    if isinstance(value, float) and isnan(value):
        raise UsageError(f"where: the value of {key!r} is not a number")
    return found


def value_given(text: str) -> tuple[Scalar, ...]:
    """The values that `--where key=TEXT` stands for: the text as it is, and what it means in JSON where it means any.

    So `2024` is the number and the text, and `"2024"`, with its quotes, the text without them.
    """
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return (text,)
    return (text,) if isinstance(value, dict | list) else (text, value)


def where_given(texts: Collection[str]) -> Where:
    """The `where` of options such as `--where key=value`. Raises UsageError."""
    where: dict[str, Scalar | Collection[Scalar]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--where needs KEY=VALUE, not {text!r}")
        if (problem := unstorable(text)) is not None:
            raise UsageError(f"--where {text!r}: it {problem}")
        if key in where:
            raise UsageError(f"--where names {key!r} twice: an entry has one value there, and would have to have both")
        where[key] = value_given(value)
    return where
