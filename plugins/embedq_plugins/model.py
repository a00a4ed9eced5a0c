"""The class that a plugin extends: an embedding model."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Awaitable, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

from embedq_core.awaiting import settled
from embedq_core.errors import BadVectors, UsageError, WrongVectorCount
from embedq_core.items import prefixed
from embedq_core.text import shown

Rows: TypeAlias = Iterable[Iterable[float]]
Vectors: TypeAlias = Rows | Awaitable[Rows] | AsyncIterable[Iterable[float]]


class EmbeddingModel(ABC):
    """Turns texts, or bytes, into vectors. A plugin sets `model_id` and implements `embed_batch`."""

    model_id: str
    """The name by which the model is chosen and under which its vectors are stored."""

    supports_text: bool = True
    """Whether `str` items are accepted."""

    supports_binary: bool = False
    """Whether `bytes` items are accepted."""

    batch_size: int | None = None
    """How many items `embed_batch` is given at most. None: as many as there are, in one call."""

    batch_tokens: int | None = None
    """How many tokens, by `count_tokens`, `embed_batch` is given at most; one item may have more. None: any number."""

    concurrency: int = 1
    """How many `embed_batch` calls may run at once, in threads: 1 for a local model, more for an HTTP one."""

    dimension: int | None = None
    """How long the vectors are, where that is known before the first one is made."""

    document_prefix: str = ""
    """What embedq puts before each text that is stored, when it is embedded: `passage: `, say."""

    query_prefix: str = ""
    """What stands before each text that is searched for: `query: `, say."""

    library: str | None = None
    """The top-level module that the model imports when it first embeds, where that may be missing."""

    install: str | None = None
    """How to install that library: a command, such as `pip install 'embedq[http]'`."""

    @property
    def configuration(self) -> Mapping[str, str | int | float | bool]:
        """What, beside the model's id, decides which vectors a text gets: it is recorded with a collection.

        Texts embedded under two configurations can't be compared. Extend it where a model has more that counts:
        a revision, a number of dimensions, a task.
        """
        prefixes = {"document_prefix": self.document_prefix, "query_prefix": self.query_prefix}
        return {name: value for name, value in prefixes.items() if value}

    @property
    def queries_by_prefix(self) -> bool:
        """Whether `query_prefix` makes the whole query form, so that one that was recorded can take its place."""
        return type(self).embed_query_batch is EmbeddingModel.embed_query_batch

    @abstractmethod
    def embed_batch(self, items: Iterable[str | bytes]) -> Vectors:
        """One vector an item, in order: lists, a generator of lists, or an array of shape (items, dimension).

        It may be asynchronous: `async def`, with or without `yield`. `items` is a list in every call that embedq
        makes, and holds nothing that `unsupported` refuses.
        """

    def embed_query_batch(self, items: Iterable[str | bytes]) -> Vectors:
        """One vector for each of `items`, which are searched for: override it where a prefix is not enough.

        What it is given and returns is as with `embed_batch`; `query_prefix` is put on here.
        """
        return self.embed_batch(prefixed(self.query_prefix, items))

    def embed(self, item: str | bytes) -> list[float]:
        """The vector of one item, as it would be stored: with `document_prefix`.

        Raises UsageError (a ValueError) for an item that the model doesn't support, BadVectors where it
        returns no vector of finite numbers.
        """
        _check(self, item)
        return next(_vectors(self, [item], 0))

    def embed_multi(
        self, items: Iterable[str | bytes], batch_size: int | None = None
    ) -> Generator[list[float], None, None]:
        """The vectors of `items`, in order; items are taken and batches embedded as vectors are asked for.

        A batch holds `batch_size` items, or the model's own `batch_size`, or, where both are None, all of
        them. Raises what `embed` raises; the vectors of items before the offending batch come first.
        """
        size = self.batch_size if batch_size is None else batch_size
        if size is not None and not is_count(size):
            raise UsageError(f"batch_size must be a whole number of at least 1, or None, not {size!r}")
        return _embed_lazily(self, items, size)

    def count_tokens(self, item: str | bytes) -> int:
        """About how many tokens `item` has, for `batch_tokens` and `--chunk 300tokens`: a quarter of its bytes.

        Override it where the tokenizer is at hand.
        """
        return len(item.encode() if isinstance(item, str) else item) // 4 + 1

    @property
    def estimates_tokens(self) -> bool:
        """Whether `count_tokens` is a rule of thumb."""
        return type(self).count_tokens is EmbeddingModel.count_tokens

    def check_setup(self) -> None:  # noqa: B027 - most models need nothing
        """Raise ModelMisconfigured for what is known to be missing before the first text, such as a key.

        `embedq ingest` asks before it queues anything. It must be quick, and load and connect to nothing.
        """

    def unsupported(self, item: object) -> str | None:
        """Why the model can't embed `item`, or None where it can."""
        if isinstance(item, str):
            return None if self.supports_text else f"{_name(self)} takes binary data (bytes) only, not text"
        if isinstance(item, bytes):
            return None if self.supports_binary else f"{_name(self)} takes text only, not binary data (bytes)"
        return f"only text (str) and binary data (bytes) can be embedded, not {type(item).__name__}"

    def __str__(self) -> str:
        return f"{type(self).__name__}: {_name(self)}"

    def __repr__(self) -> str:
        return f"<{self}>"


def is_count(value: object) -> bool:
    """Whether `value` is a whole number of at least 1; True is not."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


# Functions, not methods: a plugin's class may call its own attributes `_name` or `_check`.
def _embed_lazily(
    model: EmbeddingModel, items: Iterable[str | bytes], size: int | None
) -> Generator[list[float], None, None]:
    left = iter(items)
    done = 0
    while batch := list(islice(left, size)):
        for index, item in enumerate(batch, done):
            _check(model, item, f"item {index}: ")
        yield from _vectors(model, batch, done)
        done += len(batch)


def _check(model: EmbeddingModel, item: object, where: str = "") -> None:
    reason = model.unsupported(item)
    if reason:
        raise UsageError(where + reason)


def _vectors(model: EmbeddingModel, batch: list[str | bytes], first: int) -> Iterator[list[float]]:
    """The vectors of `batch` as lists of floats; `first` is the number of its first item, for messages."""
    # numpy stays out of commands that embed nothing.
    from embedq_core.vectors import checked_rows

    returned = settled(model.embed_batch(prefixed(model.document_prefix, batch)), len(batch) + 1)
    rows: Any = returned if _is_array(returned) else _materialised(returned, len(batch) + 1)
    try:
        faults = checked_rows(rows, len(batch)).faults
    except WrongVectorCount as error:
        raise WrongVectorCount(f"{_name(model)}: {error}") from None
    for index, row in enumerate(rows):
        if index in faults:
            raise BadVectors(f"{_name(model)}, item {first + index}: {faults[index]}")
        # Not the check's matrix, which is float32: a model's own precision is kept.
        yield list(map(float, row.tolist() if hasattr(row, "tolist") else row))


def _name(model: EmbeddingModel) -> str:
    return shown(str(getattr(model, "model_id", type(model).__name__)))


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__")


# What a plugin returns is checked, not believed: hence Any.
def _materialised(returned: Any, most: int) -> Any:  # noqa: ANN401
    """At most `most` rows as a list, rows that can be read only once as lists as well; else as it came."""
    if not isinstance(returned, Iterable):
        return returned
    return [
        list(row) if isinstance(row, Iterable) and not isinstance(row, Sequence) and not _is_array(row) else row
        for row in islice(returned, most)
    ]
