"""Corpora and vectors made from a seed: the same on every machine, in every run."""

import json
import random
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

T = TypeVar("T")

DIMENSION = 384
CHARACTERS = 400
PREPARED_ROWS = 2048

_PAGES = 200_000


def write_corpus(path: Path, items: int, first: int = 0) -> Path:
    """Lines of JSON with an id and a content of `CHARACTERS` characters, each of its own; numbered from `first`."""
    text, size = _text(), CHARACTERS - 11
    last = len(text) - size
    with path.open("w") as file:
        for number in range(first, first + items):
            start = number * 7919 % last
            # The text holds letters and spaces only: nothing in it needs an escape.
            file.write(f'{{"id": "document-{number}", "content": "{text[start : start + size]} {number:010}"}}\n')
    return path


def contents(path: Path) -> list[str]:
    """The contents of such a corpus."""
    return [str(json.loads(text)["content"]) for text in path.read_text().splitlines()]


def line(number: int) -> str:
    """One line of such a corpus, short."""
    return json.dumps({"id": f"document-{number}", "content": f"the content of document {number}"}) + "\n"


def slices(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """`values` in lists of `size`, the last one shorter."""
    iterator = iter(values)
    while some := list(islice(iterator, size)):
        yield some


def _text() -> str:
    rng = random.Random(11)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))) for _ in range(5000)]
    return " ".join(rng.choices(words, k=_PAGES // 5))


def prepared_vectors() -> "Floats":
    """Vectors that cost nothing: float32 of shape (PREPARED_ROWS, DIMENSION), to be used again and again."""
    import numpy as np

    rng = np.random.default_rng(7)
    return rng.uniform(-1, 1, (PREPARED_ROWS, DIMENSION)).astype(np.float32)


def like_embeddings(rows: int, seed: int) -> "Floats":
    """Float32 vectors of shape (rows, DIMENSION) that lie as those of models do: in groups, near a subspace.

    The groups and the subspace are the same for every seed. Independent random numbers would be of no use to
    judge an approximate index: in 384 dimensions they are all equally far from each other.
    """
    import numpy as np

    groups, inner = 1000, 48
    world = np.random.default_rng(3)
    centres = world.standard_normal((groups, inner), dtype=np.float32)
    subspace = world.standard_normal((inner, DIMENSION), dtype=np.float32) / np.float32(np.sqrt(inner))
    rng = np.random.default_rng(seed)
    within = rng.standard_normal((rows, inner), dtype=np.float32) * np.float32(0.6)
    vectors = (centres[rng.integers(0, groups, rows)] + within) @ subspace
    vectors += rng.standard_normal((rows, DIMENSION), dtype=np.float32) * np.float32(0.15)
    return np.asarray(vectors, dtype=np.float32)
