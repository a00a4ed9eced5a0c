"""What a program reads: `--json` of every command, and the help that says so."""

import json
import re
from typing import get_args

import pytest

from embedq.app import app
from embedq_core import options
from support.command_line import CommandLine
from support.models import vector_of
from support.parsing import commands

JSON_HELP = get_args(options.Json)[1].help


def test_every_command_has_json_as_its_last_option_and_calls_it_the_same() -> None:
    for words, command in commands():
        last = command.params[-1]
        assert (last.opts, last.is_flag, last.help) == (["--json"], True, JSON_HELP), words


def test_every_command_says_in_a_sentence_what_it_does_and_so_does_each_option_and_argument() -> None:
    sentence = re.compile(r"[A-Z].*[.…]", re.DOTALL)
    for words, command in commands():
        assert len(command.help.split()) >= 5, words
        for paragraph in command.help.split("\n\n"):
            # An example stands as it is to be typed.
            assert sentence.fullmatch(paragraph) or ": embedq " in paragraph, (words, paragraph)
        for parameter in command.params:
            assert parameter.help, (words, parameter.name)
            assert sentence.fullmatch(parameter.help), (words, parameter.name, parameter.help)


def test_help_fits_a_terminal_of_sixty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    for words in [(), *dict(commands())]:
        with pytest.raises(SystemExit):
            app([*words, "--help"], prog_name="embedq")
        shown = capsys.readouterr().out
        assert "--help" in shown
        assert max(map(len, shown.splitlines())) <= 60, words
        # A word that has no room is cut short: of ours none is.
        assert set(re.findall(r"\S+\w…", shown)) <= {"--install-completi…"}, words


def test_what_takes_a_value_says_what_kind_of_value() -> None:
    for words, command in commands():
        for parameter in command.params:
            if not getattr(parameter, "is_flag", False):
                metavar = parameter.metavar or ""
                assert metavar.isupper() or "|" in metavar, (words, parameter.name)


def test_a_letter_stands_for_the_same_option_everywhere() -> None:
    options_of: dict[str, set[str]] = {}
    letters_of: dict[str, set[str]] = {}
    for _, command in commands():
        for parameter in command.params:
            long = max(parameter.opts, key=len)
            letter = min(parameter.opts, key=len)
            options_of.setdefault(letter, set()).add(long)
            letters_of.setdefault(long, set()).add(letter)
    # `embed` has -f, since `llm embed` has; of `submit`, `llm embed-multi` has none.
    assert letters_of.pop("--format") == {"-f", "--format"}
    assert [letter for letter, long in options_of.items() if len(long) > 1] == []
    assert [long for long, letters in letters_of.items() if len(letters) > 1] == []


def test_a_vector_is_an_array_whether_it_is_kept_or_not(embedq: CommandLine) -> None:
    for kept in ((), ("docs", "a")):
        assert json.loads(embedq("embed", *kept, "-m", "rec", "-c", "one", "--json").out) == vector_of("one")
    result = embedq("embed", "-m", "rec", "-c", "one", "--json", "-f", "hex", exit_code=2)
    assert (result.out, result.err) == ("", "embedq: --json and --format hex contradict each other\n")


def test_what_is_similar_is_one_array_for_one_query_and_for_many(embedq: CommandLine) -> None:
    embedq("ingest", "docs", "-", "-m", "recording", input="id,content\na,one\nb,two\n")
    lines = embedq("similar", "docs", "-c", "one").out.splitlines()
    assert len(lines) == 2
    alone = json.loads(embedq("similar", "docs", "-c", "one", "--json").out)
    assert alone == [json.loads(line) for line in lines]
    assert json.loads(embedq("similar", "docs", "-c", "one", "--prefix", "z", "--json").out) == []
    answers = json.loads(embedq("similar", "docs", "--batch", "-", "--json", input="one\ntwo\n").out)
    assert [answer["query"] for answer in answers] == ["1", "2"]
    assert answers[0]["results"] == alone
    assert "contradict" in embedq("similar", "docs", "a", "--json", "--plain", exit_code=2).err


def test_many_queries_are_one_array_or_nothing(embedq: CommandLine) -> None:
    embedq("ingest", "docs", "-", "-m", "poisoned", input="id,content\na,one\n")
    none_readable = embedq("similar", "docs", "--batch", "-", "--json", input='{"id": "q"}\n', exit_code=1)
    assert (none_readable.out, "no content" in none_readable.err) == ("[]\n", True)
    # The model takes 16 at once: the first have been answered when the last fails.
    queries = "".join(f"text {number}\n" for number in range(600)) + "poison\n"
    failed = embedq("similar", "docs", "--batch", "-", "--json", input=queries, exit_code=1)
    assert (failed.out, "query 601" in failed.err) == ("", True)


def test_the_default_model_and_the_database_are_told(embedq: CommandLine) -> None:
    def told(*arguments: str, environment: dict[str, str] | None = None) -> object:
        return json.loads(embedq(*arguments, "--json", environment=environment).out)

    assert told("collections", "path") == {"database": str(embedq.database), "exists": False}
    assert told("models", "default") == {"model": "hashing", "set": False}
    assert told("models", "default", "rec") == {"model": "recording", "set": True}
    assert told("models", "default", environment={"EMBEDQ_MODEL": "recording-10"}) == {
        "model": "recording-10",
        "set": True,
    }
    first = embedq("models", "default", "hash", environment={"EMBEDQ_MODEL": "recording-10"})
    assert (first.out, first.err) == ("hashing\n", "the setting EMBEDQ_MODEL goes first: recording-10\n")
    assert told("models", "default", "--remove") == {"model": "hashing", "set": False}
