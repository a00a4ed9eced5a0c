from pathlib import Path

import pytest

from embedq_core.errors import UsageError
from embedq_producer.corpus import check_request
from embedq_producer.corpus_options import CorpusRequest, _joined


def test_pairs_survive_the_command_line() -> None:
    joined = _joined(["docs", "--files", "a b", "**/*.md", "-m", "x", "--files=c", "*", "--attach", "n", "n.db"])
    values = [value for value in joined if "\0" in value]
    request = CorpusRequest("docs", files=values[:2], attach=values[2:])
    assert request.file_pairs() == [(Path("a b"), "**/*.md"), (Path("c"), "*")]
    assert request.attached() == [("n", Path("n.db"))]
    assert [value for value in joined if "\0" not in value] == ["docs", "--files", "-m", "x", "--files", "--attach"]


def test_after_two_dashes_nothing_is_an_option() -> None:
    assert _joined(["--", "--files", "a", "b"]) == ["--", "--files", "a", "b"]


@pytest.mark.parametrize("args", [["--files"], ["--files", "a"], ["--attach=a"], ["--files", "docs", "-m", "x"]])
def test_half_a_pair_is_refused(args: list[str]) -> None:
    with pytest.raises(UsageError, match="needs two values"):
        _joined(args)


def test_a_pattern_that_the_shell_has_expanded_is_said_to_want_quotes() -> None:
    request = CorpusRequest("docs", ["docs/b.md"], files=["docs\0docs/a.md"])
    with pytest.raises(UsageError, match="the pattern is to be quoted"):
        check_request(request)
