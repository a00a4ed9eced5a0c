"""What happens to an item, decided from what came in and what the store knows. Nothing here performs I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from embedq_core.digests import content_hashes
from embedq_core.items import Item


class Incoming(NamedTuple):
    """An item and the hash of its content."""

    item: Item
    digest: bytes

    @classmethod
    def of(cls, items: Iterable[Item]) -> "list[Incoming]":
        """`items`, hashed."""
        items = list(items)
        # `_make`, here and below, takes half of the time of the constructor, which is written in Python.
        return list(map(cls._make, zip(items, content_hashes([item.content for item in items]), strict=True)))

    @property
    def content_key(self) -> tuple[bool, bytes]:
        """Tells contents apart: bytes that spell a text are another input for a model that takes both."""
        return isinstance(self.item.content, bytes), self.digest


class Stored(NamedTuple):
    """What the store holds under an id, but for the vector."""

    digest: bytes | None
    metadata: str | None
    has_content: bool


@dataclass(frozen=True, slots=True)
class Known:
    """What the store knows that bears on some items of one collection, at one moment."""

    by_id: Mapping[str, Stored] = field(default_factory=dict)
    """What is stored under the ids that came in."""

    vectors: Mapping[bytes, bytes] = field(default_factory=dict)
    """Content hash → stored vector, for contents that the collection holds under any id."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Indices of the items, by outcome. Each index stands in exactly one of the first five."""

    unchanged: list[int]
    """Same id, same content: the model is not called."""

    reused: list[tuple[int, bytes]]
    """The collection knows the content under another id: its vector is copied to the new one."""

    embedded: list[int]
    """The model must be called for these: no two have the same content."""

    copied: list[int]
    """The content is that of one in `embedded`, and so will the vector be: counted as reused."""

    superseded: list[int]
    """A later item has the same id: the last one wins."""

    updates: list[int]
    """Those of `unchanged` whose metadata or stored content must be brought up to date."""

    inputs: dict[tuple[bool, bytes], list[int]]
    """Content key → the items that want its vector: one of `embedded`, then the ones of `copied`."""


def contents_to_find(incoming: Sequence[Incoming], by_id: Mapping[str, Stored]) -> list[bytes]:
    """Hashes of the contents that are not already stored under their own id, each once."""
    wanted: dict[bytes, None] = {}
    for item, digest in incoming:
        stored = by_id.get(item.id)
        if stored is None or stored.digest != digest:
            wanted[digest] = None
    return list(wanted)


def decide(incoming: Sequence[Incoming], known: Known, *, store: bool) -> Plan:
    """Decide the outcome of every item from what was known before any of them was written.

    With `store`, contents are kept beside their vectors: an unchanged item whose content is missing gets it.
    Metadata of None says nothing and changes nothing; other metadata replaces what is stored.
    """
    plan = Plan([], [], [], [], [], [], {})
    last = {entry.item.id: index for index, entry in enumerate(incoming)}
    for index, entry in enumerate(incoming):
        item, digest = entry
        if last[item.id] != index:
            plan.superseded.append(index)
            continue
        stored = known.by_id.get(item.id)
        if stored is not None and stored.digest == digest:
            plan.unchanged.append(index)
            new_metadata = item.metadata is not None and item.metadata != stored.metadata
            if new_metadata or (store and not stored.has_content):
                plan.updates.append(index)
            continue
        vector = known.vectors.get(digest)
        if vector is not None:
            plan.reused.append((index, vector))
            continue
        owners = plan.inputs.setdefault(entry.content_key, [])
        (plan.copied if owners else plan.embedded).append(index)
        owners.append(index)
    return plan
