"""A corpus of one or more sources, read as one stream of items."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from embedq_core.errors import RowError, SourceError, UsageError
from embedq_core.items import Item
from embedq_producer.readers.file import FileSource
from embedq_producer.readers.options import RowOptions
from embedq_producer.readers.source import Progress, Rejects, Source


class Reader:
    """The items of a corpus, and how far the reading has come.

    Making one looks at every source: what can't be read at all raises SourceError or UsageError before any
    row is read. Iterating gives the items in order; rows that can't be read go to `report` (from the thread
    that iterates), or, with `options.strict`, are raised. A source that breaks off doesn't keep the
    others from being read: the SourceError comes at the end.
    """

    def __init__(self, sources: Iterable[Source], options: RowOptions, report: Callable[[RowError], None]) -> None:
        self._sources = tuple(sources)
        self._options = options
        self._rejects = Rejects(report, options.strict)
        self._progress = Progress()
        self.split: Callable[[Item], Iterable[Item]] | None = None
        """What makes parts of items, where they are to be split."""
        if sum(isinstance(source, FileSource) and source.path is None for source in self._sources) > 1:
            raise UsageError("standard input can be read once only")
        for source in self._sources:
            source.check(options)
        self._sizes = [source.size() for source in self._sources]
        self.total = None if None in self._sizes else sum(filter(None, self._sizes))

    @property
    def position(self) -> int:
        """Bytes read so far, of `total` (None where that isn't known); may be asked from another thread."""
        return self._progress.position

    @property
    def share(self) -> float | None:
        """`position` as a share of `total`, in [0, 1]; None where that isn't known."""
        return min(self.position / self.total, 1.0) if self.total else None

    @property
    def rejected(self) -> int:
        """Rows reported so far."""
        return self._rejects.count

    def before_waiting(self, wait: Callable[[int], None]) -> None:
        """Have `wait` called with the file descriptor of a pipe whenever that is to be read, and may be empty."""
        self._progress.wait = wait

    def describe(self) -> str:
        """The sources in a few words, for listings of runs."""
        return ", ".join(source.describe() for source in self._sources)

    def __iter__(self) -> Iterator[Item]:
        broken: list[SourceError] = []
        self._progress.position = 0
        for source, size in zip(self._sources, self._sizes, strict=True):
            start = self._progress.position
            try:
                items = source.read(self._options, self._rejects, self._progress)
                yield from items if self.split is None else chain.from_iterable(map(self.split, items))
            except SourceError as error:
                if self._options.strict:
                    raise
                broken.append(error)
            if size is not None:
                self._progress.position = start + size
        if len(broken) == 1:
            raise broken[0]
        if broken:
            raise SourceError("\n".join(str(error) for error in broken))


def read_corpus(sources: Source | Iterable[Source], options: RowOptions, report: Callable[[RowError], None]) -> Reader:
    """A Reader of one source, or of several one after the other. Raises SourceError or UsageError."""
    return Reader((sources,) if isinstance(sources, Source) else sources, options, report)
