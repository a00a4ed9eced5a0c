"""A row of named values to an item: which column is what, and what may stand in it.

A row with columns `id` and `content` uses them, and `metadata` where there is one. Of any other row the
first column is the id, and the rest, joined by a space, the content.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from embedq_core.errors import UsageError
from embedq_core.items import Item, metadata_text, unstorable
from embedq_producer.readers.bad_row import BadRow
from embedq_producer.readers.options import RowOptions

_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])


class Unreadable(msgspec.Struct, frozen=True):
    """Stands in a row for a value that its source holds but can't give; `problem` says why."""

    problem: str


class Shape(msgspec.Struct, frozen=True):
    """Which place of a row holds what. `content` has one place where a column bears that name."""

    names: tuple[str, ...]
    content: tuple[int, ...]
    id: int = 0
    metadata: int | None = None
    extra: tuple[tuple[str, int], ...] = ()


def shape_of(names: Sequence[str], options: RowOptions) -> Shape:
    """The shape of rows with these columns. Raises BadRow where they can make no item."""
    if not names:
        raise BadRow("is empty: an id and a content are needed")
    place = {name: index for index, name in reversed(list(enumerate(names)))}
    extra = tuple((name, place[name]) for name in options.metadata if name in place)
    if "id" in place and "content" in place:
        metadata = place.get("metadata")
        return Shape(
            names=tuple(names),
            id=place["id"],
            content=(place["content"],),
            metadata=metadata,
            # Already the metadata: it isn't put into itself.
            extra=tuple(pair for pair in extra if pair[1] != metadata),
        )
    if names[0] in ("content", "metadata"):
        raise BadRow(f"has no id: the first column is {names[0]!r}")
    taken = {index for _, index in extra}
    rest = tuple(index for index in range(1, len(names)) if index not in taken)
    if not rest:
        raise BadRow("has no content: an id and at least one more column that isn't metadata are needed")
    return Shape(names=tuple(names), content=rest, extra=extra)


def item_of(row: Mapping[str, object], options: RowOptions) -> Item:
    """The item that a JSON object is. Raises BadRow."""
    shape = shape_of(tuple(row), options)
    return shaped_item(shape, tuple(row.values()), options)


def shaped_item(
    shape: Shape, values: Sequence[object], options: RowOptions, *, metadata_may_be_text: bool = False
) -> Item:
    """The item that a row of `values` in this shape is. Raises BadRow.

    `metadata_may_be_text` is for sources without objects, where metadata is the text of a JSON object.
    """
    identifier = id_of(values[shape.id])
    try:
        content = _content(shape, values)
        metadata: object = None if shape.metadata is None else values[shape.metadata]
        if metadata_may_be_text and isinstance(metadata, str) and metadata:
            metadata = _parsed_object(metadata)
        if shape.extra:
            metadata = _with_extra(metadata, shape, values)
    except BadRow as bad:
        bad.id = identifier
        raise
    return finished_item(identifier, content, metadata, options)


def finished_item(identifier: str, content: str | bytes, metadata: object, options: RowOptions) -> Item:
    """The item of an id, a content and metadata, checked against all that an item must be. Raises BadRow.

    Every item of every source comes from here.
    """
    if not content:
        raise BadRow("the content is empty", identifier)
    text = None
    if metadata is not None and metadata != "":
        text = _metadata(metadata, identifier)
    if options.prefix:
        identifier = options.prefix + identifier
    if options.prepend and isinstance(content, str):
        content = options.prepend + content
    if not identifier.isascii() and (problem := unstorable(identifier)):
        raise BadRow(f"the id {problem}", identifier)
    if isinstance(content, str) and not content.isascii() and (problem := unstorable(content)):
        raise BadRow(f"the content {problem}", identifier)
    # No character takes more than 4 bytes: the exact size is reckoned only where it can matter.
    if len(content) * 4 + (len(text) if text else 0) > options.item_bytes:
        size = len(content.encode() if isinstance(content, str) else content) + (len(text) if text else 0)
        if size > options.item_bytes:
            raise too_large(options, identifier)
    return Item(identifier, content, text)


def too_large(options: RowOptions, identifier: str | None = None) -> BadRow:
    """What is said of a row or an item beyond the limit."""
    return BadRow(f"is larger than {options.item_bytes:,} bytes: split it, or raise EMBEDQ_ITEM_BYTES", identifier)


def id_of(value: object) -> str:
    """The id that `value` stands for: text as it is, a number as its digits. Raises BadRow."""
    if isinstance(value, str):
        if not value or value.isspace():
            raise BadRow("the id is empty")
        return value
    if value is None:
        raise BadRow("the id is null")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRow("the id is not a number")
    if isinstance(value, Unreadable):
        raise BadRow(f"the id {value.problem}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _text(value)
    raise BadRow(f"the id is {_kind(value)}; text or a number is needed")


def text_of(value: object, column: str) -> str:
    """The text that `value` adds to a content: '' for null, JSON for what is no text. Raises BadRow."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bytes):
        raise BadRow(f"column {column!r} is binary, and can't be joined with others: select it alone")
    if isinstance(value, Unreadable):
        raise BadRow(f"column {column!r} {value.problem}")
    return _text(value)


def _content(shape: Shape, values: Sequence[object]) -> str | bytes:
    if len(shape.content) == 1:
        value = values[shape.content[0]]
        if isinstance(value, str | bytes):
            return value
        name = shape.names[shape.content[0]]
        if value is None:
            raise BadRow("the content is null")
        return text_of(value, name)
    texts = [text_of(values[index], shape.names[index]) for index in shape.content]
    return " ".join(texts) if any(texts) else ""


def _text(value: object) -> str:
    try:
        if isinstance(value, bool | list | dict):
            return json.dumps(value, ensure_ascii=False)
        return str(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRow(f"holds a value that can't be written as text: {error}") from error


def _parsed_object(text: str) -> object:
    try:
        return _OBJECT.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRow("the metadata isn't the text of a JSON object") from error


def _with_extra(metadata: object, shape: Shape, values: Sequence[object]) -> object:
    if metadata is not None and metadata != "" and not isinstance(metadata, dict):
        return metadata
    merged: dict[str, object] = dict(metadata) if isinstance(metadata, dict) else {}
    for name, index in shape.extra:
        value = values[index]
        if isinstance(value, bytes):
            raise BadRow(f"column {name!r} is binary, and metadata can't be")
        if isinstance(value, Unreadable):
            raise BadRow(f"column {name!r} {value.problem}")
        # JSON has no word for these.
        merged[name] = None if isinstance(value, float) and not math.isfinite(value) else value
    return merged


def _metadata(metadata: object, identifier: str) -> str | None:
    if isinstance(metadata, Unreadable):
        raise BadRow(f"the metadata {metadata.problem}", identifier)
    if not isinstance(metadata, dict):
        raise BadRow(f"the metadata isn't an object, it is {_kind(metadata)}", identifier)
    try:
        text = metadata_text(metadata)
    except RecursionError as error:
        raise BadRow("the metadata is nested too deeply", identifier) from error
    except UsageError as error:
        raise BadRow(f"the {error}", identifier) from error
    if text is not None and "\\ud" in text:
        # Pairs are escapes of good text, lone ones are not: only the text itself tells.
        problem = unstorable(json.dumps(metadata, ensure_ascii=False))
        if problem:
            raise BadRow(f"the metadata {problem}", identifier)
    return text


def _kind(value: object) -> str:
    kinds = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        bytes: "binary",
        list: "a list",
        dict: "an object",
    }
    return kinds.get(type(value), type(value).__name__)
