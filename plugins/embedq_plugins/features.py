"""Text → vector by feature hashing: which features a text has, what they weigh, where they land.

Weinberger, Dasgupta, Langford, Smola and Attenberg, "Feature Hashing for Large Scale Multitask Learning",
ICML 2009: a feature is added, with a sign, to the cell that a hash of its name picks, so that no vocabulary
is kept and inner products are unbiased. The weights below were chosen on the standard library's docstrings.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from embedq_plugins.common_words import COMMON_WORDS, STOP_WORDS

DIMENSION: Final = 384

STOP_WORD_WEIGHT: Final = 0.05
COMMON_WORD_WEIGHT: Final = 0.6
# Of all n-grams of a word together, the word itself being 1: `parsing` finds `parsed`, but `parse` finds it first.
NGRAMS_WEIGHT: Final = 0.8
NGRAM_SIZES: Final = (3, 4, 5)

# A feature is spread over several cells: one cell alone, shared by chance, would make two words equal.
WORD_CELLS: Final = 16
NGRAM_CELLS: Final = 2

# Longer runs of letters (base64, languages without spaces) are cut, so that one token's features stay few.
LONGEST_TOKEN: Final = 48

# Bounds the caches to some 20 MB; the words that are frequent in any corpus are fewer.
_CACHED: Final = 1 << 14

_WORD = re.compile(r"[^\W_]+(?:_+[^\W_]+)*")
# The parts of an identifier: acronym, Capitalised or lower-case word, number.
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# Scripts that are written without spaces: pairs of characters take the place of words.
_CJK = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")

_Features: TypeAlias = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]


def hashed_vectors(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """The vectors of `texts`: float32, shape (len(texts), DIMENSION), rows of length 1, or zero without words.

    A token that occurs n times in a text counts 1 + ln n. A row depends on its own text alone.
    """
    counts = [Counter(tokens(text)) for text in texts]
    found = [token_features(token) for count in counts for token in count]
    if not found:
        return np.zeros((len(texts), DIMENSION), dtype=np.float32)
    sizes = np.fromiter((len(cells) for cells, _ in found), dtype=np.int64, count=len(found))
    occurrences = np.fromiter(chain.from_iterable(count.values() for count in counts), dtype=np.float64)
    row_starts = np.repeat(np.arange(len(texts)) * DIMENSION, [len(count) for count in counts])
    cells = np.concatenate([cells for cells, _ in found]) + np.repeat(row_starts, sizes)
    weights = np.concatenate([weights for _, weights in found]) * np.repeat(1 + np.log(occurrences), sizes)
    sums = np.bincount(cells, weights, minlength=len(texts) * DIMENSION).reshape(len(texts), DIMENSION)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    # A sum without a feature is zero, whatever it is divided by.
    return (sums / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def tokens(text: str) -> Iterator[str]:
    """The tokens of `text`, case-folded: its words, and the parts of those that are identifiers."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return chain.from_iterable(map(_word_tokens, _WORD.findall(text)))


@lru_cache(_CACHED)
def token_features(token: str) -> _Features:
    """The cells in which `token`'s features land, and what each adds there: the word, then its n-grams."""
    if token in STOP_WORDS:
        return _placed([token], WORD_CELLS, STOP_WORD_WEIGHT)
    weight = COMMON_WORD_WEIGHT if token in COMMON_WORDS else 1.0
    grams = list(_ngrams(token))
    word_cells, word_added = _placed([token], WORD_CELLS, weight)
    gram_cells, gram_added = _placed(grams, NGRAM_CELLS, weight * NGRAMS_WEIGHT / max(len(grams), 1) ** 0.5)
    return np.concatenate((word_cells, gram_cells)), np.concatenate((word_added, gram_added))


@lru_cache(_CACHED)
def _word_tokens(word: str) -> tuple[str, ...]:
    parts = _PART.findall(word) if word.isascii() else word.split("_")
    several = [part for part in parts if len(part) > 1] if len(parts) > 1 else []
    return tuple(token for name in (word, *several) for token in _cut(name.casefold()))


def _cut(token: str) -> Iterator[str]:
    if not token.isascii():
        for run in _CJK.findall(token):
            yield from (run[at : at + 2] for at in range(max(1, len(run) - 1)))
        token = _CJK.sub("", token)
    yield from (token[at : at + LONGEST_TOKEN] for at in range(0, len(token), LONGEST_TOKEN))


def _ngrams(token: str) -> Iterator[str]:
    marked = f"<{token}>"
    for size in NGRAM_SIZES:
        # As long as the marked token, it would be the word once more.
        if size < len(marked):
            yield from (marked[at : at + size] for at in range(len(marked) - size + 1))


def _placed(features: list[str], cells: int, weight: float) -> _Features:
    # Not Python's hash(), which differs between processes: stored vectors outlive them.
    digests = b"".join(blake2b(feature.encode(), digest_size=4 * cells).digest() for feature in features)
    hashes = np.frombuffer(digests, dtype="<u4")
    added = np.where(hashes >> 31, 1.0, -1.0) * (weight / cells**0.5)
    return (hashes % DIMENSION).astype(np.int32), added.astype(np.float32)
