"""A shortlist holds the best scores and all that may be better than they seem, however they are offered."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_core.vectors import Matrix
from embedq_store import shortlist as module
from embedq_store.shortlist import Shortlist, offer_each

SLACK = 4e-6

values = st.lists(st.floats(-1, 1, width=32) | st.sampled_from([0.0, 0.5, 0.5000005]), min_size=1, max_size=60)


def array(numbers: list[float]) -> Matrix:
    return np.array(numbers, dtype=np.float32)


@pytest.fixture(autouse=True)
def in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many steps and many times of shortening, with few values."""
    monkeypatch.setattr(module, "STEP", 7)
    monkeypatch.setattr(module, "_HELD", 4)


@given(values, st.integers(1, 70), st.integers(0, 2**60 - 1))
def test_it_holds_the_best_of_those_kept_and_all_their_near_ties(numbers: list[float], number: int, bits: int) -> None:
    scores = array(numbers)
    kept = np.array([bool(bits >> index & 1) for index in range(len(numbers))])
    shortlist = Shortlist(number, SLACK)
    held = shortlist.of(scores, kept).tolist()
    best = sorted(scores[kept].tolist(), reverse=True)
    if len(best) <= number + 1:
        assert held == np.flatnonzero(kept).tolist()
        return
    assert held == np.flatnonzero(kept & (scores >= best[number] - SLACK)).tolist()
    assert not shortlist.complete
    # A score that isn't held, and is off by half of the slack, is still below.
    left_out = [score for index, score in enumerate(scores.tolist()) if kept[index] and index not in held]
    assert all(score + SLACK / 2 < shortlist.sure + 1e-7 for score in left_out)


@given(values, st.integers(1, 5))
def test_offered_together_is_the_same_as_offered_one_by_one(numbers: list[float], number: int) -> None:
    scores = np.stack([array(numbers), -array(numbers), np.zeros(len(numbers), dtype=np.float32)])
    together = [Shortlist(number, SLACK) for _ in scores]
    for first in range(0, len(numbers), 5):
        offer_each(together, first, scores[:, first : first + 5])
    for row, shortlist in zip(scores, together, strict=True):
        assert shortlist.places().tolist() == Shortlist(number, SLACK).of(row).tolist()


def test_of_nothing_nothing_is_held() -> None:
    shortlist = Shortlist(3, SLACK)
    assert shortlist.of(array([])).tolist() == []
    assert shortlist.complete
