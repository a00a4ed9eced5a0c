"""Cutting a stream of items into chunks; of items with one id, the last wins."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from embedq_core.items import Item
from embedq_core.parts import part_of
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


class Cutter:
    """Cuts one stream of items into chunks of at most `max_items` items and about `max_bytes` bytes.

    A larger item is a chunk of its own. Memory does not grow with the number of items.
    """

    def __init__(self, *, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._gathered: dict[str, Item] = {}
        self._documents: set[str] = set()
        self._replaced = 0
        self._seen = SeenIds()
        self.number = 0
        """Of the chunk that is being gathered."""

    @property
    def gathering(self) -> bool:
        """Whether a chunk has begun that is not yet full."""
        return bool(self._gathered)

    def cut(self, items: Iterable[Item]) -> Iterator[Cut]:
        """The chunks of `items`, each as soon as it is full. To be iterated once, and to its end or closed."""
        gathered, max_items, max_bytes = self._gathered, self._max_items, self._max_bytes
        size = 0
        with self._seen:
            for item in items:
                # About what it weighs on the wire.
                weight = len(item.content) + len(item.id) + len(item.metadata or "") + 16
                coming = 1
                if item.metadata is not None and (part := part_of(item.id, item.metadata)) is not None:
                    # Those of a document are about as large as the first. They had better be in one chunk: what is
                    # parted between chunks is done in their order.
                    coming = part.document.parts if part.number == 0 else 1
                else:
                    part = None
                if not gathered:
                    size = 0
                elif size + coming * weight > max_bytes or len(gathered) + coming > max_items:
                    yield self.take()
                    size = 0
                if item.id in gathered:
                    del gathered[item.id]
                    self._replaced += 1
                gathered[item.id] = item
                if part is not None:
                    self._documents.add(part.document.id)
                size += weight
                if len(gathered) >= max_items:
                    yield self.take()
            if gathered:
                yield self.take()

    def take(self) -> Cut:
        """What has been gathered, as the next chunk, full or not.

        For the thread that iterates `cut`: also from within `items`, which may know that no more will come soon.
        """
        items = list(self._gathered.values())
        after, repeated = self._seen.note([item.id for item in items], self.number)
        if self._documents:
            # Another version of a document may have parts that this one has not, in chunks that hold none of these ids.
            others, _ = self._seen.note([("document", id_) for id_ in sorted(self._documents)], self.number)
            after = sorted({*after, *others})
            self._documents.clear()
        piece = Cut(self.number, items, after, self._replaced + repeated)
        self._gathered.clear()
        self._replaced = 0
        self.number += 1
        return piece


def cut(items: Iterable[Item], *, max_items: int, max_bytes: int) -> Iterator[Cut]:
    """Cut `items` as a Cutter does."""
    return Cutter(max_items=max_items, max_bytes=max_bytes).cut(items)
