"""Golden queries: how a file is read, and what it takes to pass."""

import pytest

from embedq_core.errors import UsageError
from embedq_worker.golden import GoldenQuery, judge, parse_golden

CATS = GoldenQuery("cats", ["a", "b"])
DOGS = GoldenQuery("dogs", ["c"])


def test_each_line_is_a_query_and_empty_lines_say_nothing() -> None:
    text = '{"query": "cats", "expected": ["a", "b"]}\n\n{"expected": ["c"], "query": "dogs"}\r\n'
    assert parse_golden(text, "golden.jsonl") == [CATS, DOGS]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "golden.jsonl holds no queries"),
        ("\n\n", "holds no queries"),
        ("cats", "golden.jsonl, line 1: JSON is malformed"),
        ('\n{"query": "cats"}', "line 2: Object missing required field `expected`"),
        ('{"query": 1, "expected": ["a"]}', "line 1: Expected `str`"),
        ('{"query": "cats", "expected": ["a"], "ids": []}', "unknown field `ids`"),
        ('{"query": " ", "expected": ["a"]}', "the query is empty"),
        ('{"query": "cats", "expected": []}', "names no id, or one of them twice"),
        ('{"query": "cats", "expected": ["a", "a"]}', "names no id, or one of them twice"),
    ],
)
def test_what_is_no_golden_file_is_refused_by_its_line(text: str, problem: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_golden(text, "golden.jsonl")
    assert problem in str(refused.value)


def test_the_new_vectors_must_find_as_much_as_the_old_ones() -> None:
    found = [["a", "b"], ["x"]]
    assert judge([CATS, DOGS], found, found, None).reason == ""
    assert judge([CATS, DOGS], [["b", "a"], ["c"]], found, None).new == 1.0
    fallen = judge([CATS, DOGS], [["a", "x"], ["x"]], found, None)
    assert (fallen.new, fallen.old) == (0.25, 0.5)
    assert fallen.reason == (
        "recall@10 of the new vectors is 0.250 over 2 golden queries (the old vectors have 0.500);"
        " worst: 'cats' (1 of 2, was 2)"
    )


def test_a_recall_that_is_required_takes_the_place_of_the_old_one() -> None:
    tenths = [GoldenQuery(f"query {number}", [str(number)]) for number in range(10)]
    nine = [[query.expected[0] if number else "x"] for number, query in enumerate(tenths)]
    assert judge(tenths, nine, None, 0.9).reason == ""
    assert judge(tenths, nine, [query.expected for query in tenths], 0.9).reason == ""
    refused = judge(tenths, nine, None, 0.91)
    assert "is 0.900 over 10 golden queries (0.910 is required)" in refused.reason
    assert refused.reason.endswith("worst: 'query 0' (0 of 1)")


def test_ten_answers_are_looked_at_or_as_many_as_are_expected() -> None:
    answers = [str(number) for number in range(12)]
    assert judge([GoldenQuery("many", answers)], [answers], None, 1.0).reason == ""
    assert judge([GoldenQuery("late", ["10"])], [answers], None, 1.0).new == 0.0


def test_the_queries_that_lost_most_are_named_and_no_more_than_three() -> None:
    queries = [GoldenQuery(f"q{number}", ["a", "b", "c", "d"]) for number in range(5)]
    before = [["a", "b", "c", "d"]] * 5
    now = [["a"], ["a", "b"], [], ["a", "b", "c"], ["a", "b", "c", "d"]]
    reason = judge(queries, now, before, None).reason
    assert reason.endswith("worst: 'q2' (0 of 4, was 4), 'q0' (1 of 4, was 4), 'q1' (2 of 4, was 4)")


def test_where_none_lost_anything_those_are_named_that_lack_most() -> None:
    found = [["a"], ["x"]]
    reason = judge([CATS, DOGS], found, found, 1.0).reason
    assert reason.endswith("worst: 'dogs' (0 of 1, was 0), 'cats' (1 of 2, was 1)")
