"""Parts of long documents: `doc#0`, `doc#1` …, which know themselves what they are.

An entry is a part where its id *and* its metadata say so, wherever it comes from: `{"parent": "doc", "part": 1,
"parts": 5, "start": 812}` under the id `doc#1`. So parts stay parts when they are exported, requeued or queued by hand,
and an id that merely looks like one is none. The last `#` of an id is the one that counts: parts of a document called
`a#0` are `a#0#0`, `a#0#1` …
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from embedq_core.items import Content, Item, metadata_object, metadata_text

# Part ids lie between these two, put after the id of their document, in the order of SQLite's indexes.
FIRST: Final = "#0"
BEYOND: Final = "#:"

# More than any document has, and no more than SQLite has numbers for: whoever says more means something else.
_MOST_PARTS: Final = 2**31


class Document(NamedTuple):
    """One version of a document: its id, and of how many parts it is made."""

    id: str
    parts: int


class Part(NamedTuple):
    """What an entry is a part of, and which: `number` is at least 0 and below `document.parts`."""

    document: Document
    number: int


class _Said(msgspec.Struct):
    """What the metadata of a part says."""

    parent: str
    part: int
    parts: int
    start: int


_decoder = msgspec.json.Decoder(_Said)


def part_id(parent: str, number: int) -> str:
    """The id of a part."""
    return f"{parent}#{number}"


def part_of(id_: str, metadata: str | None) -> Part | None:
    """What the entry with this id and this text of metadata is a part of; None where it is none."""
    if metadata is None or "#" not in id_:
        return None
    try:
        said = _decoder.decode(metadata)
    except msgspec.ValidationError:
        return None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        # Other tools may write NaN, or lone surrogates: Python's reader takes them.
        try:
            said = msgspec.convert(metadata_object(metadata), _Said)
        except msgspec.ValidationError:
            return None
    if not 0 <= said.part < said.parts <= _MOST_PARTS or said.start < 0 or id_ != part_id(said.parent, said.part):
        return None
    return Part(Document(said.parent, said.parts), said.part)


def parts_of(item: Item, spans: Iterable[tuple[int, Content]]) -> list[Item]:
    """The parts of `item`, which `spans` gives: where in its content each starts, and what its own content is.

    Each has the metadata of the whole, and what makes it a part, which takes the place of values under the same keys.
    """
    cut = list(spans)
    own: Mapping[str, Any] = metadata_object(item.metadata) or {}
    return [
        Item(
            part_id(item.id, number),
            content,
            metadata_text({**own, "parent": item.id, "part": number, "parts": len(cut), "start": start}),
        )
        for number, (start, content) in enumerate(cut)
    ]


def documents_of(items: Iterable[Item]) -> set[Document]:
    """The documents of which some of `items` are parts."""
    return {part.document for item in items if (part := part_of(item.id, item.metadata)) is not None}


def belongs_to(id_: str, metadata: str | None) -> str:
    """The id of the document that an entry belongs to: its own, where it is no part."""
    part = part_of(id_, metadata)
    return id_ if part is None else part.document.id


def is_stale(document: Document, id_: str, metadata: str | None) -> bool:
    """Whether an entry is left over from another version of `document`: a part that it no longer has, or, under its
    own id, the whole text from before it was split.
    """
    part = part_of(id_, metadata)
    if part is None:
        return id_ == document.id
    return part.document.id == document.id and part.number >= document.parts


def is_complete(document: Document, entries: Iterable[tuple[str, str | None]]) -> bool:
    """Whether `entries`, ids and texts of metadata, hold every part of this version of `document`."""
    found = (part_of(id_, metadata) for id_, metadata in entries)
    return len({part.number for part in found if part is not None and part.document == document}) == document.parts
