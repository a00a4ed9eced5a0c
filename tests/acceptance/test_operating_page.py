"""docs/operating.md speaks of commands that embedq understands, and of the keys that it prints."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

from embedq.status.reporting import Status, status_object
from embedq_jobs import Rates
from support.parsing import parsed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operating.md").read_text()
_FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def command_lines() -> list[list[str]]:
    """The words of every command line of embedq in the page's blocks, without the name of the program."""
    found = []
    for block in _FENCED.findall(PAGE):
        for line in block.splitlines():
            lexer = shlex.shlex(
                line.removeprefix("$ ") if line.startswith("$ ") else "", posix=True, punctuation_chars="|;&>"
            )
            lexer.whitespace_split = True
            words = list(lexer)
            ends = [place for place, word in enumerate(words) if set(word) <= set("|;&>")]
            for begin, end in pairwise([-1, *ends, len(words)]):
                if words[begin + 1 : begin + 2] == ["embedq"]:
                    found.append(words[begin + 2 : end])
    return found


def test_every_command_line_is_one_that_embedq_understands() -> None:
    lines = command_lines()
    assert len(lines) > 40
    for words in lines:
        assert isinstance(parsed(words), dict), words


def test_all_commands_of_the_console_are_shown() -> None:
    shown = {" ".join(words) for words in command_lines()}
    for command in ("runs cancel", "pause", "resume", "drain", "schedule add", "schedule run", "reembed", "worker"):
        assert any(line.startswith(command) for line in shown), command
    for command in ("show", "export", "import", "rename", "copy", "audit", "rollback", "drop-old", "delete"):
        assert any(line.startswith(f"collections {command}") for line in shown), command


def test_every_command_that_the_text_speaks_of_is_one_of_embedq() -> None:
    names = re.findall(r"`embedq ((?:[a-z]+(?: |(?=`)))+)", _FENCED.sub("", PAGE))
    assert len(names) > 5
    for name in names:
        problem = ""
        try:
            parsed(name.split())
        except Exception as error:
            problem = str(error)
        # What is spoken of may lack what it must be given, but it has to be there.
        assert not problem or "Missing" in problem or "put --" in problem, name


def test_the_keys_of_the_status_are_those_of_the_page() -> None:
    status = Status(0.0, "here", "x.db", 0, [], Rates([]), [], [], [])
    rows = re.findall(r"^\| (`[a-z_0-9`, ]+) \|", PAGE.partition("## Sunday")[2], re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert named == list(status_object(status))


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", PAGE)
    assert links
    for link in links:
        assert (ROOT / "docs" / link).exists(), link
