"""When an index is built, how much it is asked for, and the form in which it holds rows."""

import numpy as np
import pytest

from embedq_store.approximate import is_due, near_counts
from embedq_store.graph import quantised


@pytest.mark.parametrize(
    ("rows", "indexed", "due"),
    [
        (1, None, True),
        (20_000, 20_000, False),
        (36_384, 20_000, False),
        (36_385, 20_000, True),
        (1_031_250, 1_000_000, False),
        (1_031_251, 1_000_000, True),
        (10, 20_000, False),
    ],
)
def test_an_index_is_due_where_it_lacks_many_rows_and_a_good_share(rows: int, indexed: int | None, due: bool) -> None:
    assert is_due(rows, indexed) is due


@pytest.mark.parametrize(
    ("number", "size", "counts"),
    [
        (10, 1_000_000, [64, 256, 1024]),
        (100, 1_000_000, [400, 1600]),
        (512, 1_000_000, [2048]),
        (513, 1_000_000, []),
        (10, 1024, [64]),
        (10, 1023, []),
    ],
)
def test_an_index_is_asked_for_more_and_more_while_that_is_faster_than_an_exact_search(
    number: int, size: int, counts: list[int]
) -> None:
    assert list(near_counts(number, size)) == counts


def test_rows_as_bytes_use_all_of_them_and_keep_their_directions() -> None:
    units = np.array([[0.8, -0.6, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.004]], dtype=np.float32)
    assert quantised(units).tolist() == [[127, -95, 0], [0, 0, 0], [127, 0, 1]]
