"""What embedq asks of an embedding model, and how its own rooms call one: a batch at a time, rows checked."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from embedq_core.errors import BadVectors, UnsupportedContent
from embedq_core.vectors import CheckedRows, Matrix, checked_rows

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

    def embed_batch(self, items: Iterable[str | bytes], /) -> Any:  # noqa: ANN401 - arrays, lists, generators
        """One vector for each of `items`, in their order."""

    def unsupported(self, item: object) -> str | None:
        """Why the model can't take `item`, or None."""


def embed_checked(model: Model, contents: Sequence[str | bytes]) -> CheckedRows:
    """Embed one batch: the model is called once, its iterator consumed here, its rows checked.

    Raises UnsupportedContent for content that the model can't take, WrongVectorCount where rows and contents can't
    be matched, and whatever the model raises.
    """
    for content in contents:
        problem = model.unsupported(content)
        if problem is not None:
            raise UnsupportedContent(problem)
    return checked_rows(model.embed_batch(list(contents)), len(contents))


def embed_all(model: Model, contents: Sequence[str | bytes], batch_size: int | None = None) -> CheckedRows:
    """Embed `contents` in batches of `batch_size` (None: in one call); any fault is an error.

    Raises BadVectors where a row can't be stored, and whatever `embed_checked` raises.
    """
    import numpy as np

    if not contents:
        return CheckedRows(np.zeros((0, 0), dtype=np.float32), {})
    step = batch_size or len(contents)
    parts = [embed_checked(model, contents[start : start + step]) for start in range(0, len(contents), step)]
    for part in parts:
        for fault in part.faults.values():
            raise BadVectors(f"{model.model_id}: {fault}")
    widths = {part.matrix.shape[1] for part in parts}
    if len(widths) > 1:
        raise BadVectors(f"{model.model_id}: the model returned vectors of different dimensions: {widths}")
    return CheckedRows(np.concatenate([part.matrix for part in parts]), {})


def embed_queries(model: Model, contents: Sequence[str | bytes]) -> Matrix:
    """The vectors of `contents`, in batches of the model's own size, equal contents embedded once.

    float32, shape (contents, dimension). Raises what `embed_all` raises.
    """
    places = {content: place for place, content in enumerate(dict.fromkeys(contents))}
    matrix = embed_all(model, list(places), model.batch_size).matrix
    return matrix[[places[content] for content in contents]]


def query_count(model: Model) -> int:
    """How many queries to take in hand at a time: about a thousand, and full batches of the model."""
    step = model.batch_size or 1
    return step * max(1, _QUERIES // step)
