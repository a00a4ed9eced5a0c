"""What is to be written: rows, updates and dead letters of one collection, and how far a chunk has come with them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from embedq_core.configuration import Configuration
from embedq_core.counts import Counts
from embedq_core.items import Item
from embedq_core.parts import Document
from embedq_store.letters import DeadLetter
from embedq_store.outcomes import Incoming


@dataclass(frozen=True, slots=True)
class Target:
    """The collection that rows are for, by name: it is made if it isn't there."""

    collection: str
    model_id: str
    configuration: Configuration | None = None
    """The model's, which is recorded with the first vectors and compared with the record; None: neither."""


class Row(NamedTuple):
    """An item and its vector, in stored form."""

    item: Item
    digest: bytes
    vector: bytes


@dataclass(frozen=True, slots=True)
class ChunkMark:
    """What a chunk of a run has come to so far."""

    run: str
    chunk: int
    counts: Counts
    finished: bool


@dataclass(frozen=True, slots=True)
class Write:
    """What is to be written together: all of it or, if an error is raised, nothing."""

    target: Target
    rows: Sequence[Row] = ()
    updates: Sequence[Incoming] = ()
    """Items whose vector is stored: their metadata, and with `store` their content, is brought up to date."""
    store: bool = True
    dead: Sequence[DeadLetter] = ()
    mark: ChunkMark | None = None
    documents: Collection[Document] = ()
    """Documents of which the chunk held parts: where they are complete now, what else there was of them goes."""

    mends: bool = False
    """Only rows that an audit has cleared are written, where they are still; letters of other contents stay."""

    @property
    def size(self) -> int:
        """Rows that it touches, about."""
        return len(self.rows) + len(self.updates) + len(self.dead) + 1
