"""Which rows may be the nearest, told from scores that are nearly right. NumPy alone, no I/O."""

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from embedq_core.vectors import Matrix

Places: TypeAlias = npt.NDArray[np.intp]
Mask: TypeAlias = npt.NDArray[np.bool_]

# Scores looked at in one step: few enough to stay in the processor's cache.
STEP: Final = 16_384
_HELD: Final = 4096


class Shortlist:
    """The places of all scores that may be among the `number` largest, where each is off by up to `slack` / 2.

    One more than `number` is held: the entry to skip may be the nearest of all. Scores that are as large as the
    last of them, or nearly, are held too, however many there are.
    """

    def __init__(self, number: int, slack: float) -> None:
        self._number = number + 1
        self._slack = slack
        self._last = -np.inf
        self._places: list[Places] = []
        self._scores: list[Matrix] = []
        self._held = 0
        self._limit = max(_HELD, 2 * self._number)

    @property
    def floor(self) -> float:
        """Smaller scores are of no interest."""
        return self._last - self._slack

    @property
    def sure(self) -> float:
        """What scores this much or more, exactly, is nearer than everything that isn't held."""
        return self._last - self._slack / 2

    def offer(self, first: int, scores: Matrix, kept: Mask | None = None) -> None:
        """Take note of `scores`, of the places from `first` on, but of those alone that are `kept`."""
        over = np.flatnonzero(scores >= self.floor)
        if kept is not None:
            over = over[kept[over]]
        if len(over):
            self._places.append(over + first)
            self._scores.append(scores[over])
            self._held += len(over)
            if self._held > self._limit:
                self._shorten()

    def of(self, scores: Matrix, kept: Mask | None = None) -> Places:
        """Take note of the scores of all places from 0 on, and return `places`."""
        for first in range(0, len(scores), STEP):
            step = slice(first, first + STEP)
            self.offer(first, scores[step], None if kept is None else kept[step])
        return self.places()

    @property
    def complete(self) -> bool:
        """Whether all places are held."""
        return self._last == -np.inf

    def places(self) -> Places:
        """The places, ascending."""
        self._shorten()
        return self._places[0] if self._places else np.empty(0, dtype=np.intp)

    def _shorten(self) -> None:
        if not self._places:
            return
        places, scores = np.concatenate(self._places), np.concatenate(self._scores)
        if len(scores) > self._number:
            self._last = float(np.partition(scores, len(scores) - self._number)[len(scores) - self._number])
            held = scores >= self.floor
            places, scores = places[held], scores[held]
        self._places, self._scores, self._held = [places], [scores], len(places)
        self._limit = max(_HELD, 2 * self._held)


def offer_each(shortlists: Sequence[Shortlist], first: int, scores: Matrix, kept: Mask | None = None) -> None:
    """Offer each shortlist its row of `scores`, shape (shortlists, places)."""
    floors = np.array([shortlist.floor for shortlist in shortlists], dtype=np.float32)
    for index in np.flatnonzero(scores.max(axis=1, initial=-np.inf) >= floors).tolist():
        shortlists[index].offer(first, scores[index], kept)
