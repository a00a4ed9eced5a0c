"""Which endpoint gets the next request: a table, by a clock that is passed in."""

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_plugins.http.endpoints import LONGEST_PAUSE_SECONDS, Endpoints
from embedq_plugins.http.requests import planned


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def chosen(endpoints: Endpoints, *tried: str) -> str | None:
    with endpoints.chosen(tried) as url:
        return url


def test_who_has_the_fewest_requests_in_flight_gets_the_next() -> None:
    endpoints = Endpoints(["a", "b", "c"])
    with ExitStack() as stack:
        taken = [stack.enter_context(endpoints.chosen(())) for _ in range(6)]
        assert sorted(map(str, taken)) == ["a", "a", "b", "b", "c", "c"]
    with endpoints.chosen(()) as first:
        assert chosen(endpoints) != first


def test_one_that_fails_is_left_out_longer_each_time_and_then_tried_by_one_request() -> None:
    clock = Clock()
    endpoints = Endpoints(["a", "b"], clock)
    for pause in (1, 2, 4, 8, 16, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS):
        endpoints.failed("a")
        clock.now += pause - 0.01
        assert chosen(endpoints, "b") is None
        clock.now += 0.02
        with endpoints.chosen(("b",)) as trial:
            assert trial == "a"
            assert chosen(endpoints, "b") is None, "a single request tries it"
    endpoints.succeeded("a")
    with endpoints.chosen(("b",)) as one, endpoints.chosen(("b",)) as other:
        assert (one, other) == ("a", "a")


def test_a_request_that_has_been_nowhere_yet_goes_where_it_is_open_first() -> None:
    endpoints = Endpoints(["a", "b"], Clock())
    endpoints.failed("a", 60)
    endpoints.failed("b", 5)
    assert chosen(endpoints) == "b"
    assert chosen(endpoints, "b") is None


@pytest.mark.parametrize(
    ("tokens", "plan"),
    [
        ([], []),
        ([1], [(0, 1)]),
        ([1, 1, 1, 1], [(0, 3), (3, 4)]),
        ([5, 6, 4], [(0, 1), (1, 3)]),
        ([99, 1, 99], [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_requests_are_cut_by_number_and_tokens(tokens: list[int], plan: list[tuple[int, int]]) -> None:
    assert list(planned(tokens, 3, 10)) == plan
    assert len(list(planned(tokens, None, None))) == bool(tokens)


@given(st.lists(st.integers(0, 12), max_size=30), st.integers(1, 5), st.integers(1, 20))
def test_every_text_is_in_one_request_and_none_has_too_many_tokens(tokens: list[int], texts: int, most: int) -> None:
    plan = list(planned(tokens, texts, most))
    assert [place for start, stop in plan for place in range(start, stop)] == list(range(len(tokens)))
    for start, stop in plan:
        assert 1 <= stop - start <= texts
        assert stop - start == 1 or sum(tokens[start:stop]) <= most
