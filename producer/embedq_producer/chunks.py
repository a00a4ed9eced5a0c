"""Cutting a stream of items into chunks; of items with one id, the last wins."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from embedq_core.items import Item
from embedq_core.parts import Part, part_of
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
        for some, documents, replaced in _groups(items, max_items, max_bytes):
            after, repeated = seen.note([item.id for item in some], number)
            # Another version of a document may have parts that this one has not, in chunks that hold none of these ids.
            if documents:
                others, _ = seen.note([("document", id_) for id_ in sorted(documents)], number)
                after = sorted({*after, *others})
            yield Cut(number, some, after, replaced + repeated)
            number += 1


def _groups(items: Iterable[Item], max_items: int, max_bytes: int) -> Iterator[tuple[list[Item], set[str], int]]:
    """The items of each chunk, the documents of which it holds parts, and how many items were replaced."""
    chunk: dict[str, Item] = {}
    documents: set[str] = set()
    size = replaced = 0
    for item in items:
        weight = chunk_bytes((item,))
        part = part_of(item.id, item.metadata)
        # The parts of a document are about as large as the first.
        coming = _begins(part)
        if chunk and (size + coming * weight > max_bytes or len(chunk) + coming > max_items):
            yield list(chunk.values()), documents, replaced
            chunk, documents, size, replaced = {}, set(), 0, 0
        replaced += chunk.pop(item.id, None) is not None
        if part is not None:
            documents.add(part.document.id)
        chunk[item.id] = item
        size += weight
        if len(chunk) >= max_items:
            yield list(chunk.values()), documents, replaced
            chunk, documents, size, replaced = {}, set(), 0, 0
    if chunk:
        yield list(chunk.values()), documents, replaced


def _begins(part: Part | None) -> int:
    """How many parts begin with this one, which had better be in one chunk: what is parted between chunks is done in
    the order of the chunks. 1 for what is no part, and in the middle of a document.
    """
    return part.document.parts if part is not None and part.number == 0 else 1
