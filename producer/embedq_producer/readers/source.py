"""What every source of items promises, and what reading one needs from outside."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from embedq_core.errors import RowError
from embedq_core.items import Item
from embedq_producer.readers.bad_row import BadRow
from embedq_producer.readers.options import RowOptions


@dataclass(slots=True)
class Progress:
    """How far the reading has come, in bytes of the source as it lies on disk (compressed, where it is).

    `wait` is called with the file descriptor of a pipe before it is read: it may wait for it, and do something else.
    """

    position: int = 0
    wait: Callable[[int], None] | None = None

    def advance(self, count: int) -> None:
        """Note that `count` more bytes were read."""
        self.position += count


@dataclass(slots=True)
class Rejects:
    """Where rows go that can't be read: to `report`, or, with `strict`, out as an exception."""

    report: Callable[[RowError], None]
    strict: bool = False
    count: int = 0

    def reject(self, where: str, bad: BadRow) -> None:
        """Report the row at `where`. Raises the RowError instead where reading is strict."""
        error = RowError(bad.at(where), bad.problem)
        if self.strict:
            raise error from bad
        self.count += 1
        self.report(error)


class Source(ABC):
    """A part of a corpus: says what it is, whether it can be read, and reads itself as a stream of items."""

    @abstractmethod
    def describe(self) -> str:
        """The source in a few words, for listings of runs; safe to print."""

    @abstractmethod
    def check(self, options: RowOptions) -> None:
        """Look whether this can be read at all, without reading it. Raises SourceError or UsageError."""

    @abstractmethod
    def size(self) -> int | None:
        """Bytes to be read in all, or None where nobody knows before the end."""

    @abstractmethod
    def read(self, options: RowOptions, rejects: Rejects, progress: Progress) -> Iterator[Item]:
        """Every item, one by one. Raises SourceError where what follows can't be read."""
