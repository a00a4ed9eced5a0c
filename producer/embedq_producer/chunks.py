"""Cutting a stream of items into chunks; of items with one id, the last wins."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from embedq_core.items import Item
from embedq_jobs import chunk_bytes
from embedq_producer.seen import SeenIds


@dataclass(frozen=True, slots=True)
class Cut:
    """The items of a chunk, no two with one id.

    `after` names earlier chunks that hold earlier versions of some of them: they must be done before, however
    many workers there are. `duplicates` counts the items that were replaced, here or there.
    """

    number: int
    items: list[Item]
    after: list[int]
    duplicates: int


def cut(items: Iterable[Item], *, max_items: int, max_bytes: int) -> Iterator[Cut]:
    """Cut `items` into chunks of at most `max_items` items and about `max_bytes` bytes.

    A larger item is a chunk of its own. Memory does not grow with the number of items.
    """
    number = 0
    with SeenIds() as seen:
        for some, replaced in _groups(items, max_items, max_bytes):
            after, repeated = seen.note([item.id for item in some], number)
            yield Cut(number, some, after, replaced + repeated)
            number += 1


def _groups(items: Iterable[Item], max_items: int, max_bytes: int) -> Iterator[tuple[list[Item], int]]:
    chunk: dict[str, Item] = {}
    size = replaced = 0
    for item in items:
        weight = chunk_bytes((item,))
        if chunk and size + weight > max_bytes:
            yield list(chunk.values()), replaced
            chunk, size, replaced = {}, 0, 0
        replaced += chunk.pop(item.id, None) is not None
        chunk[item.id] = item
        size += weight
        if len(chunk) >= max_items:
            yield list(chunk.values()), replaced
            chunk, size, replaced = {}, 0, 0
    if chunk:
        yield list(chunk.values()), replaced
