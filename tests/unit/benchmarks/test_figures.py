"""The numbers' plumbing: ratios the right way round, targets judged, and an exit status that tells."""

from itertools import pairwise

import pytest

from benchmarks import growth, ingest, memory, search
from benchmarks.figures import (
    Line,
    QuestionObject,
    Target,
    at_least,
    at_most,
    exit_status,
    number,
    ratio_at_least,
    ratio_at_most,
    table,
)
from benchmarks.turns import by_turns, rates, rotated
from embedq import Entry


def question(*lines: Line, scale: str = "standard") -> QuestionObject:
    return {
        "title": "A question",
        "scale": scale,
        "measured": "2026-12-31T00:00:00+00:00",
        "seconds": 1.5,
        "machine": {"cores": 2},
        "details": {},
        "lines": [line.as_object(judged=scale != "quick") for line in lines],
    }


# --- ratios


def test_the_ratio_is_ours_by_theirs_the_median_over_the_turns() -> None:
    assert Line("rate", "/s", [200, 100, 90], "peer", [100, 100, 100]).ratio == 1.0


def test_a_peer_with_fewer_turns_is_compared_by_medians() -> None:
    assert Line("rate", "/s", [300, 100, 200], "peer", [50]).ratio == 4.0


def test_without_a_peer_there_is_no_ratio() -> None:
    assert Line("rate", "/s", [1.0]).ratio is None
    assert Line("rate", "/s", peer="peer", theirs=[1.0]).ratio is None


# --- targets


@pytest.mark.parametrize(
    ("target", "ours", "theirs", "verdict"),
    [
        (ratio_at_least(1.0), 100.0, 100.0, "met"),
        (ratio_at_least(1.0), 99.0, 100.0, "missed"),
        (ratio_at_most(1.15), 1.15, 1.0, "met"),
        (ratio_at_most(1.15), 1.2, 1.0, "missed"),
        (at_least(150_000), 150_000.0, 1.0, "met"),
        (at_least(150_000), 149_999.0, 1.0, "missed"),
        (at_most(0.3), 0.3, 1.0, "met"),
        (at_most(0.3), 0.31, 0.001, "missed"),
    ],
)
def test_a_target_is_met_or_missed(target: Target, ours: float, theirs: float, verdict: str) -> None:
    line = Line("it", "", [ours], "peer", [theirs], target)
    assert line.verdict(judged=True) == verdict
    assert line.verdict(judged=False) == "too small"


def test_what_is_not_built_or_not_measured_is_said_to_be() -> None:
    assert Line("it", "", target=at_most(1), state="not built").verdict(judged=True) == "not built"
    assert Line("it", "", target=at_most(1), state="not measured").verdict(judged=False) == "not measured"
    assert Line("it", "", target=ratio_at_most(1), ours=[1.0]).verdict(judged=True) == "not measured"
    assert Line("it", "", state="not measured").verdict(judged=True) == "not measured"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (Line("met", "", [1.0], target=at_most(1)), 0),
        (Line("missed", "", [2.0], target=at_most(1)), 1),
        (Line("not built", "", target=at_most(1), state="not built"), 1),
        (Line("not measured", "", target=at_most(1), state="not measured"), 1),
        (Line("a peer that is not there", "", [1.0], "peer", state="not measured"), 0),
        (Line("no target", "", [9.0]), 0),
    ],
)
def test_the_exit_status_tells_of_every_target_that_is_not_met(line: Line, status: int) -> None:
    met = Line("met", "", [1.0], target=at_most(1))
    assert exit_status([question(met), question(met, line)]) == status


def test_the_quick_size_fails_only_where_something_could_not_be_measured() -> None:
    small = [Line("missed", "", [2.0], target=at_most(1)), Line("not built", "", target=at_most(1), state="not built")]
    assert exit_status([question(*small, scale="quick")]) == 0
    broken = Line("all of it", "", target=at_most(1), state="not measured")
    assert exit_status([question(broken, scale="quick")]) == 1


# --- what is shown


def test_the_table_has_ours_the_peer_the_ratio_the_target_and_the_verdict() -> None:
    line = Line("rate", "items/s", [70_000.0], "loop", [69_000.0], ratio_at_least(1.0), "a note")
    (_, shown) = table(question(line)).splitlines()
    for text in ("70,000 items/s", "loop", "69,000 items/s", "1.01 ×", "≥ 1 ×", "met; a note"):
        assert text in shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.0123, "0.012"), (1.15, "1.15"), (1.0, "1"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346")],
)
def test_numbers_have_the_digits_that_count(value: float, shown: str) -> None:
    assert number(value) == shown


# --- turns


def test_contenders_take_turns_and_nobody_is_always_first() -> None:
    order: list[tuple[str, int]] = []

    def contender(name: str, value: float) -> float:
        order.append((name, len(order)))
        return value

    found = by_turns({"a": lambda turn: contender("a", turn), "b": lambda turn: contender("b", 10 + turn)}, 3)
    assert found == {"a": (0, 1, 2), "b": (10, 11, 12)}
    assert [name for name, _ in order] == ["a", "b", "b", "a", "a", "b"]
    assert rotated(["a", "b", "c"], 4) == ["b", "c", "a"]


def test_rates_are_how_many_a_second() -> None:
    assert rates(100, [2.0, 4.0]) == (50.0, 25.0)


# --- questions


def test_ingest_compares_rates_so_that_faster_is_more_than_one() -> None:
    seconds = {ingest._OURS: [2.0], ingest._PLAIN: [3.0], ingest._LLM: [30.0]}
    noted = ingest.Noted([1.0], [1.5], [0.5], {"worker": [1.0], ingest._PLAIN: [2.0]})
    by_loop, by_llm, again, _, again_from_start, processor = ingest.lines_of(300_000, seconds, noted)
    assert list(again_from_start.ours) == [600_000]
    assert (by_loop.ratio, by_llm.ratio) == (1.5, 15.0)
    assert list(again.ours) == [300_000]
    assert [line.verdict(judged=True) for line in (by_loop, by_llm, again)] == ["met"] * 3
    assert processor.ratio == 0.5


def test_memory_compares_the_last_fifth_with_the_second_one() -> None:
    seen = [(done, {"worker": 100.0 + done / 10}) for done in range(0, 1001, 10)]
    (early,), (late,) = memory.fifth(seen, "worker", 1000, 1), memory.fifth(seen, "worker", 1000, 4)
    assert (early, late) == (130.0, 190.0)
    assert memory.slope_of(seen, "worker", 1000) == pytest.approx(100_000)
    assert memory.fifth(seen[:3], "worker", 1000, 4) == []


def test_growth_fills_up_to_each_size_and_times_the_last_part() -> None:
    assert growth.parts(0, 10_000, 10_000) == [(0, 10_000)]
    found = growth.parts(1_000_000, 5_000_000, 200_000)
    assert found[-1] == (4_800_000, 200_000)
    assert found[0][0] == 1_000_000
    assert all(first + count == following for (first, count), (following, _) in pairwise(found))
    falls = growth.lines_of({name: {1: 10.0, 2: 5.0} for name in growth._CONTENDERS}, {growth._OURS: {}})[-2:]
    assert [line.ours for line in falls] == [[50.0], [50.0]]


def test_a_search_is_right_where_ids_order_and_scores_are() -> None:
    truth = [("a", 0.5), ("b", 0.25)]
    assert search.same([Entry("a", 0.5), Entry("b", 0.25)], truth)
    assert not search.same([Entry("b", 0.25), Entry("a", 0.5)], truth)
    assert not search.same([Entry("a", 0.5), Entry("b", 0.26)], truth)
    assert not search.same([Entry("a", 0.5)], truth)
    assert search.recall([["a", "b"], ["c", "x"]], [["a", "b"], ["c", "d"]]) == 0.75
