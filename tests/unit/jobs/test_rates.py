"""How fast items were done of late."""

import pytest

from embedq_jobs import Rates


@pytest.mark.parametrize(
    ("items", "over", "expected"),
    [
        ([], 60, 0),
        ([0] * 60, 60, 0),
        ([0, 0, 0, 0, 0, 0, 600, 0, 0, 0, 0, 0], 60, 10),
        ([0, 0, 0, 0, 300, 300], 60, 30),
        ([600, 0, 0, 0, 0, 0, 0], 60, 0),
        ([600, 0, 0, 0, 0, 0, 0], 600, 600 / 70),
        ([10, 20], 1, 2),
    ],
)
def test_the_speed_is_over_the_latest_spans_from_the_first_in_which_there_was_any(
    items: list[int], over: int, expected: float
) -> None:
    assert Rates(items).per_second(over) == pytest.approx(expected)
