"""What an audit says of rows, given what stands in them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_core.digests import content_hash
from embedq_store.auditing import EXAMPLES, Auditor, AuditRow, Problem, judge


def row(
    number: int = 1,
    vector: list[float] | None = None,
    content: str | bytes | None = "text",
    digest: bytes | None = b"of the content",
) -> AuditRow:
    """A row of two dimensions without problems, but for what is said."""
    raw = content.encode() if isinstance(content, str) else content
    blob = struct.pack(f"<{len(vector)}f", *vector) if vector is not None else struct.pack("<2f", 3, 4)
    own = content_hash(content) if content is not None and digest == b"of the content" else digest
    return AuditRow(number, f"id {number}", blob, raw, isinstance(content, str), own)


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (row(), None),
        (row(content=b"\xff\x00"), None),
        (row(content=None, digest=b"whatever"), None),
        (row(content=None, digest=None), None),
        (row(vector=[]), Problem.EMPTY),
        (row(vector=[1, 2, 3]), Problem.DIMENSION),
        (row()._replace(vector=b"12345"), Problem.DIMENSION),
        (row(vector=[1, NAN]), Problem.NOT_FINITE),
        (row(vector=[-INFINITY, 0], content=None), Problem.NOT_FINITE),
        (row(digest=b"another"), Problem.HASH),
        (row(digest=None), Problem.CLEARED),
        (row(vector=[0, 0], content=None, digest=None), Problem.CLEARED),
        (row(vector=[1], digest=b"another"), Problem.DIMENSION),
    ],
)
def test_each_row_has_at_most_one_problem_which_does_not_depend_on_others(
    found: AuditRow, problem: Problem | None
) -> None:
    assert [verdict.problem for verdict in judge([found], 2)] == [problem]
    among = judge([row(), row(vector=[]), found, row(vector=[0, 0])], 2)
    assert [verdict.problem for verdict in among] == [None, Problem.EMPTY, problem, None]
    assert among[3].zero


def test_where_there_is_no_vector_at_all_every_row_lacks_one() -> None:
    auditor = Auditor(None, 5, 1)
    auditor.take([row(1, vector=[]), row(2, vector=[])])
    assert auditor.findings.problems[Problem.EMPTY].entries == 2
    assert not auditor.findings.sample


def test_what_is_found_is_counted_and_the_first_ids_are_named() -> None:
    auditor = Auditor(2, 0, 1)
    auditor.take([row(number, digest=b"another") for number in range(9)])
    auditor.take([row(9, vector=[1, NAN], content=None), row(10, vector=[0, 0]), row(11, content=None)])
    found = auditor.findings
    assert (found.entries, found.unchecked, found.zeros) == (12, 2, 1)
    assert found.problems[Problem.HASH].ids == [f"id {number}" for number in range(EXAMPLES)]
    assert (found.problems[Problem.HASH].entries, found.problems[Problem.HASH].without_content) == (9, 0)
    assert (found.problems[Problem.NOT_FINITE].entries, found.problems[Problem.NOT_FINITE].without_content) == (1, 1)


@given(st.integers(0, 40), st.integers(0, 20), st.integers())
def test_a_sample_is_of_good_rows_with_content_each_once_and_the_same_for_the_same_seed(
    count: int, size: int, seed: int
) -> None:
    rows = [row(number) for number in range(count)]
    others = [row(100, digest=b"another"), row(101, content=None), row(102, vector=[NAN, 0])]
    samples = []
    for _ in range(2):
        auditor = Auditor(2, size, seed)
        for some in (rows[: count // 2], others, rows[count // 2 :]):
            auditor.take(some)
        samples.append([entry.id for entry in auditor.findings.sample])
    assert samples[0] == samples[1]
    assert len(set(samples[0])) == len(samples[0]) == min(size, count)
    assert set(samples[0]) <= {entry.id for entry in rows}


def test_every_row_has_the_same_chance_to_be_in_a_sample() -> None:
    seen = [0] * 10
    for seed in range(600):
        auditor = Auditor(2, 2, seed)
        auditor.take([row(number) for number in range(10)])
        for entry in auditor.findings.sample:
            seen[int(entry.id.split()[1])] += 1
    assert all(80 < times < 160 for times in seen), "120 each, within four standard deviations"


def test_text_that_is_no_utf_8_is_in_no_sample() -> None:
    auditor = Auditor(2, 3, 1)
    auditor.take([row(1, content=b"\xff")._replace(is_text=True), row(2, content=b"\xff")])
    assert [entry.content for entry in auditor.findings.sample] == [b"\xff"]
