"""What this embedq can do: a benchmark of what is not built says so, and invents nothing."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from inspect import signature
from typing import TYPE_CHECKING

import embedq
from embedq_core.settings import ENV_PREFIX, Settings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

Many = Callable[["Vectors", int], Sequence[Sequence[embedq.Entry]]]

_BUDGET = "search_bytes"


def has_where() -> bool:
    """Whether a search can be narrowed by metadata."""
    return "where" in signature(embedq.Collection.similar_by_vector).parameters


def has_ann() -> bool:
    """Whether a search can be approximate."""
    return "ann" in signature(embedq.Collection.similar_by_vector).parameters


def many(collection: embedq.Collection) -> Many | None:
    """What answers many queries at once: vectors of shape (queries, dimension) and a number of entries for each."""
    found: Many | None = getattr(collection, "similar_many_by_vector", None)
    return found


def budget_variable() -> str | None:
    """The environment variable that bounds the memory of a search, in bytes."""
    return ENV_PREFIX + _BUDGET.upper() if _BUDGET in {field.name for field in fields(Settings)} else None
