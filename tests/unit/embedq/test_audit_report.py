"""What an audit comes to: what is wrong with entries, and what with the collection as a whole."""

import pytest

from embedq.audit.report import Compared, Report, Trial, as_object, as_words
from embedq_store import Findings, Flawed, Problem


def report(
    *,
    flawed: int = 0,
    without_content: int = 0,
    similarities: tuple[float, ...] = (1.0,) * 10,
    dimension: int = 2,
    differences: tuple[str, ...] = (),
    model_problem: str | None = None,
) -> Report:
    """A report of ten entries of two dimensions, without problems but for what is said."""
    findings = Findings(2, entries=10)
    if flawed:
        findings.problems[Problem.HASH] = Flawed(flawed, without_content, ["a", "b"][:flawed])
    compared = [Compared(f"id {number}", value, b"") for number, value in enumerate(similarities)]
    return Report("docs", "m", findings, list(differences), model_problem, Trial(7, dimension, compared))


def test_where_nothing_is_wrong_it_is_said() -> None:
    assert report().well
    assert as_words(report())[-1] == ("result", "all well")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (report(model_problem="there is no model 'm'"), "there is no model 'm'"),
        (report(differences=('revision "1", now "2"',)), "another configuration of m: 'embedq reembed docs --force'"),
        (report(dimension=3), "vectors of 3 dimensions: 'embedq reembed docs --force'"),
        (report(similarities=(0.5,) * 6 + (1.0,) * 4), "most of the sample otherwise"),
        (Report("docs", "m", Findings(None, entries=3), [], None, None), "no entry has a vector"),
    ],
    ids=["model", "configuration", "dimension", "drift", "vectors"],
)
def test_what_concerns_the_whole_is_not_for_a_repair_of_entries(found: Report, words: str) -> None:
    assert not found.well
    assert found.as_a_whole is not None
    assert words in found.as_a_whole
    assert as_object(found, None)["as_a_whole"] == as_words(found)[-1][1] == found.as_a_whole


def test_some_of_a_sample_that_differ_are_entries_that_are_wrong() -> None:
    found = report(flawed=2, similarities=(0.1, 0.989, 0.99) + (1.0,) * 7)
    assert (found.as_a_whole, found.wrong, found.well) == (None, 4, False)
    assert ("drifted", "2 below 0.99: id 0 (0.1000), id 1 (0.9890)") in as_words(found)
    assert ("wrong", "2 with a hash that is not the content's: a, b") in as_words(found)
    assert as_object(found, None)["sample"]["lowest"] == 0.1


def test_what_has_no_content_must_come_from_its_source() -> None:
    assert "submit the source again" in as_words(report(flawed=2, without_content=1))[-1][1]
    assert "--repair embeds" not in as_words(report(flawed=1, without_content=1))[-1][1]
