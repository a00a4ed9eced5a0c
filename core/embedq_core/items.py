"""What is queued, embedded and stored: an item of a collection."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from embedq_core.errors import UsageError

if TYPE_CHECKING:
    Content: TypeAlias = str | bytes
else:
    # msgspec decodes no union of the two; what is decoded is checked by the codec.
    Content = Any


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One value of a corpus, on its way from a source to the store.

    `id` is unique within its collection. `content` is text, or bytes for models that take them. `metadata`
    is the text of a JSON object, or None: kept as text so that what is stored is what came in, whatever
    numbers it holds, and so that it is serialised once.
    """

    id: str
    content: Content
    metadata: str | None = None


def metadata_text(metadata: Mapping[str, Any] | None) -> str | None:
    """The text under which metadata is stored, as the `llm` tool writes it; None for none or an empty object.

    Raises UsageError where the value is no object or holds what JSON can't.
    """
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise UsageError(f"metadata must be an object (a dict), not {type(metadata).__name__}")
    if not metadata:
        return None
    try:
        return json.dumps(dict(metadata))
    except RecursionError as error:
        raise UsageError("metadata is nested too deeply") from error
    except (TypeError, ValueError) as error:
        raise UsageError(f"metadata can't be written as JSON: {error}") from error


def metadata_object(text: str | None) -> dict[str, Any] | None:
    """The metadata that `text` holds; None where there is none or where another tool wrote no object."""
    if not text:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def finite(value: object) -> object:
    """`value` with null in the place of NaN and infinity, for which JSON has no word."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list) else value


def json_text(value: object) -> str:
    """`value` as JSON that every reader takes: in metadata, other tools may have written NaN, which Python's writes."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(finite(value))


def unstorable(text: str) -> str | None:
    """Why `text` can't be stored, or None: lone surrogates have no encoding in UTF-8."""
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"holds a lone surrogate (U+{ord(text[error.start]):04X} at character {error.start})"
    return None


def prefixed(prefix: str, contents: Iterable[str | bytes]) -> list[str | bytes]:
    """`contents` with `prefix` before each text; bytes as they are."""
    if not prefix:
        return list(contents)
    return [prefix + content if isinstance(content, str) else content for content in contents]
