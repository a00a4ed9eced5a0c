"""`make bench` in the quick size: real processes, tiny corpora, and every figure where it belongs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import bench, page
from benchmarks.figures import Answer, Line, LineObject, QuestionObject, at_most
from support.waiting import BOUND_SECONDS

ROOT = Path(__file__).parents[2]


def test_the_quick_size_measures_and_writes_what_it_found(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    # What is measured here is no test of embedq, and would be slow if it were watched.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--only", "ingest", "search", "--out", str(out)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=BOUND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    questions = json.loads(out.read_text())["questions"]
    assert list(questions) == ["ingest", "search"]
    for found in questions.values():
        assert found.keys() == QuestionObject.__annotations__.keys()
        for line in found["lines"]:
            assert line.keys() == LineObject.__annotations__.keys()
            assert line["name"] in done.stdout
            assert (line["ratio"] is not None) == bool(line["ours"] and line["theirs"])
    by_loop, by_llm, again = questions["ingest"]["lines"][:3]
    assert [line["target"] for line in (by_loop, by_llm, again)] == ["≥ 1 ×", "≥ 10 ×", "≥ 150,000"]
    assert by_loop["ratio"] == pytest.approx(by_loop["ours"][0] / by_loop["theirs"][0])
    targets = {line["target"] for line in questions["search"]["lines"]}
    assert {"≤ 1.15 ×", "≤ 1.2 ×", "≥ 5 ×", "≥ 10 ×", "≥ 0.97", "≤ 1"} <= targets
    (exact,) = [line for line in questions["search"]["lines"] if line["name"].startswith("as a float64 scan")]
    assert exact["ours"] == [20]


class Stub:
    """A question with an answer of the test's own."""

    TITLE = "A stub"
    LIMIT_SECONDS = 10.0

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def measure(self, _bench: bench.Bench) -> Answer:
        return self._answer


@pytest.mark.parametrize(
    ("seconds", "status", "said"), [(0.2, 0, "1 of 1 targets met"), (0.4, 1, "0 of 1 targets met")]
)
def test_a_missed_target_ends_it_with_an_error(
    seconds: float,
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stub = Stub(Answer([Line("embedq --help", "s", [seconds], target=at_most(0.3))]))
    monkeypatch.setattr(bench, "question", lambda _: stub)
    answered = bench.ask("startup", "standard", None, apart=False)
    monkeypatch.setattr(command, "ask", lambda *_, **__: answered)
    out = tmp_path / "bench.json"
    out.write_text(json.dumps({"questions": {"search": "kept"}}))
    assert command.main(["--only", "startup", "--out", str(out)]) == status
    assert said in capsys.readouterr().out
    assert json.loads(out.read_text())["questions"] == {"startup": answered, "search": "kept"}


def test_a_question_that_takes_too_long_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stub(Answer())
    stub.LIMIT_SECONDS = 0.0
    monkeypatch.setattr(bench, "question", lambda _: stub)
    (line,) = bench.ask("startup", "standard", None)["lines"]
    assert (line["verdict"], line["note"]) == ("not measured", "took longer than 0 s")


# --- the page


def test_every_question_has_a_title_a_limit_and_a_place_on_the_page() -> None:
    places = re.findall(r"<!-- figures: (\w+) -->", page.PAGE.read_text())
    assert sorted(places) == sorted(bench.QUESTIONS)
    for name in bench.QUESTIONS:
        asked = bench.question(name)
        assert asked.TITLE
        assert asked.LIMIT_SECONDS > 0
        assert callable(asked.measure)


def test_the_figures_on_the_page_are_those_that_were_measured() -> None:
    text = page.PAGE.read_text()
    assert page.rendered(text, page.published()) == text


def test_figures_are_put_in_their_place_and_nothing_else_is_changed() -> None:
    line = Line("embedq --help", "s", [0.2], target=at_most(0.3)).as_object(judged=True)
    answered: QuestionObject = {
        "title": "Start-up",
        "scale": "standard",
        "measured": "2026-12-31T00:00:00+00:00",
        "seconds": 12.0,
        "machine": {"cores": 2},
        "details": {},
        "lines": [line],
    }
    text = "before\n<!-- figures: startup -->\nold\n<!-- end of figures -->\nafter\n"
    once = page.rendered(text, {"startup": answered})
    assert once.startswith("before\n")
    assert once.endswith("<!-- end of figures -->\nafter\n")
    assert "| embedq --help | 0.2 s |  |  |  | ≤ 0.3 | met |" in once
    assert "2026-12-31, standard size, 12 s in all; cores 2." in once
    assert page.rendered(once, {"startup": answered}) == once
    assert "Not measured yet." in page.rendered(once, {})
    with pytest.raises(ValueError, match="no question"):
        page.rendered("<!-- figures: taste -->\n<!-- end of figures -->", {})
