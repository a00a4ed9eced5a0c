"""What all files of entries have in common: what they say of their collection, and how their bytes become entries."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, TypeAlias

import msgspec

from embedq_core.errors import SourceError, UsageError
from embedq_core.items import json_text, metadata_object
from embedq_core.text import shown
from embedq_store import StoredEntry

# Entries of a file that is read, and their bytes, about, that are in hand at a time.
PAGE_ENTRIES: Final = 2048
PAGE_BYTES: Final = 16 << 20

Told: TypeAlias = Callable[[int], None]
"""Is told how many entries are done."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says of the collection that it holds. `embedq_export` is the version of the form; `configuration` is
    what the vectors were made with beside the model, None where there are none.
    """

    embedq_export: int = 1
    name: str = ""
    model: str | None = None
    configuration: dict[str, str | int | float | bool] | None = None
    dimension: int | None = None
    entries: int | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """How to write: with vectors or without, and those in JSON as base64 or as lists of numbers."""

    vectors: bool = True
    base64: bool = False


class EntryFile(ABC):
    """A file of entries that is open for reading: to be iterated as often as needed, page by page."""

    head: Head | None
    """What it says of its collection; None for one that another tool has made."""

    name: str
    """What it is called in messages."""

    piped: bool = False
    """Whether it came out of a pipe, which may have ended before its time, and is no file that was put there whole."""

    @abstractmethod
    def pages(self) -> Iterator[list[StoredEntry]]:
        """The entries from the first to the last, each with its vector. Raises SourceError, naming the row."""

    @property
    @abstractmethod
    def share(self) -> float | None:
        """How much of it has been read, in [0, 1]; None where nobody knows."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def one_dimension(head: Head, dimensions: tuple[int, int] | None) -> int:
    """The dimension of all vectors; 0 where there are none. Raises UsageError where they have several."""
    if dimensions is None:
        return head.dimension or 0
    if dimensions[0] != dimensions[1]:
        raise UsageError(
            f"the collection {shown(head.name)!r} holds vectors of {dimensions[0]} and of {dimensions[1]} dimensions, "
            "which another tool wrote: only --format jsonl can hold them"
        )
    return dimensions[0]


def strict_metadata(text: str | None) -> str | None:
    """Metadata as every reader of JSON takes it: NaN and infinity, which other tools may write, become null."""
    found = metadata_object(text)
    if found is None or text is None:
        return None
    try:
        msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return json_text(found)
    return text


def head_from(data: bytes | str, name: str) -> Head:
    """What a file says of its collection. Raises SourceError."""
    try:
        head = msgspec.json.decode(data, type=Head)
    except msgspec.MsgspecError as error:
        raise SourceError(f"{name}: what it says of its collection can't be read: {error}") from error
    check_version(head, name)
    return head


def check_version(head: Head, name: str) -> None:
    """Raise SourceError for a file of a later embedq."""
    if head.embedq_export != Head().embedq_export:
        raise SourceError(f"{name}: was written by another version of embedq (form {head.embedq_export}): upgrade it")
