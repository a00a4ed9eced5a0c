"""What embedq asks of an embedding model, and how its own rooms call one: a batch at a time, rows checked.

What is stored is embedded in the model's document form, what is searched for in its query form: many models are
trained on two, told apart by a prefix ("passage: ", "query: "), a prompt or a parameter.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from embedq_core.awaiting import settled
from embedq_core.configuration import Configuration, recorded_query_prefix
from embedq_core.errors import BadVectors, EmbedqError, ModelError, UnsupportedContent
from embedq_core.items import prefixed
from embedq_core.text import excerpt

if TYPE_CHECKING:  # numpy stays out of commands that embed nothing
    from embedq_core.vectors import CheckedRows, Matrix

# Queries that are taken in hand at a time, about: their vectors and results are held in memory.
_QUERIES: Final = 1024


class Model(Protocol):
    """The face of an embedding model; plugins implement it by extending `embedq.EmbeddingModel`."""

    @property
    def model_id(self) -> str:
        """The name under which vectors of this model are kept."""

    @property
    def supports_text(self) -> bool:
        """Whether it takes text."""

    @property
    def supports_binary(self) -> bool:
        """Whether it takes bytes."""

    @property
    def batch_size(self) -> int | None:
        """How many items it likes at a time; None for any number."""

    @property
    def concurrency(self) -> int:
        """How many calls of it may go on at once."""

    @property
    def batch_tokens(self) -> int | None:
        """How many tokens it likes at a time, by `count_tokens`; None for any number."""

    @property
    def document_prefix(self) -> str:
        """What stands before each text that is stored, when it is embedded."""

    @property
    def query_prefix(self) -> str:
        """What stands before each text that is searched for."""

    @property
    def queries_by_prefix(self) -> bool:
        """Whether that prefix is all that sets queries apart from what `embed_batch` makes of them."""

    @property
    def configuration(self) -> Configuration:
        """What decides, beside the model's id, which vectors texts get."""

    def embed_batch(self, items: Iterable[str | bytes], /) -> Any:  # noqa: ANN401 - arrays, lists, generators
        """One vector for each of `items`, in their order; or something awaitable, or an asynchronous iterator."""

    def embed_query_batch(self, items: Iterable[str | bytes], /) -> Any:  # noqa: ANN401
        """One vector for each of `items`, which are what somebody searches for."""

    def count_tokens(self, item: str | bytes) -> int:
        """About how many tokens `item` has."""

    def unsupported(self, item: object) -> str | None:
        """Why the model can't take `item`, or None."""


def embed_checked(model: Model, contents: Sequence[str | bytes]) -> "CheckedRows":
    """Embed one batch of what is to be stored: the model is called once, its iterator consumed here, its rows checked.

    Raises UnsupportedContent for content that the model can't take, WrongVectorCount where rows and contents can't
    be matched, and whatever the model raises.
    """
    return _checked(model, contents, lambda items: model.embed_batch(prefixed(model.document_prefix, items)))


def embed_all(model: Model, contents: Sequence[str | bytes], batch_size: int | None = None) -> "CheckedRows":
    """Embed `contents`, to be stored, in batches of `batch_size` (None: in one call); any fault is an error.

    Raises BadVectors where a row can't be stored, and whatever `embed_checked` raises.
    """
    return _all(model, contents, batch_size, embed_checked)


def embed_queries(model: Model, contents: Sequence[str | bytes], recorded: Configuration | None = None) -> "Matrix":
    """The vectors of what is searched for, in the query form that is `recorded` with a collection, else the model's.

    Equal contents are embedded once. float32, shape (contents, dimension); in batches of the model's own size.
    Raises what `embed_all` raises. That the model can make the recorded form is for `check_querying` to see.
    """
    prefix = model.query_prefix if recorded is None else recorded_query_prefix(recorded)

    def call(items: Sequence[str | bytes]) -> Any:  # noqa: ANN401
        own = prefix == model.query_prefix or not model.queries_by_prefix
        return model.embed_query_batch(items) if own else model.embed_batch(prefixed(prefix, items))

    places = {content: place for place, content in enumerate(dict.fromkeys(contents))}
    rows = _all(model, list(places), model.batch_size, lambda _, batch: _checked(model, batch, call))
    return rows.matrix[[places[content] for content in contents]]


def query_count(model: Model) -> int:
    """How many queries to take in hand at a time: about a thousand, and full batches of the model."""
    step = model.batch_size or 1
    return step * max(1, _QUERIES // step)


@contextmanager
def explained(model: Model) -> Iterator[None]:
    """Raise a ModelError, of one line, for whatever the model raises in the block that is no error of embedq."""
    try:
        yield
    except EmbedqError:
        raise
    except Exception as error:
        text = excerpt(str(error), 300)
        name = type(error).__name__
        raise ModelError(f"the model {model.model_id} failed: {name}" + (f": {text}" if text else "")) from error


def _checked(
    model: Model, contents: Sequence[str | bytes], call: Callable[[Sequence[str | bytes]], Any]
) -> "CheckedRows":
    from embedq_core.vectors import checked_rows

    for content in contents:
        problem = model.unsupported(content)
        if problem is not None:
            raise UnsupportedContent(problem)
    return checked_rows(settled(call(list(contents)), len(contents) + 1), len(contents))


def _all(
    model: Model,
    contents: Sequence[str | bytes],
    batch_size: int | None,
    embed: "Callable[[Model, Sequence[str | bytes]], CheckedRows]",
) -> "CheckedRows":
    import numpy as np

    from embedq_core.vectors import CheckedRows

    if not contents:
        return CheckedRows(np.zeros((0, 0), dtype=np.float32), {})
    step = batch_size or len(contents)
    parts = [embed(model, contents[start : start + step]) for start in range(0, len(contents), step)]
    for part in parts:
        for fault in part.faults.values():
            raise BadVectors(f"{model.model_id}: {fault}")
    widths = {part.matrix.shape[1] for part in parts}
    if len(widths) > 1:
        raise BadVectors(f"{model.model_id}: the model returned vectors of different dimensions: {widths}")
    return CheckedRows(np.concatenate([part.matrix for part in parts]), {})
