"""Commands that messages, help and docstrings name in quotes are there, with the options that are named."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from embedq.app import app

ROOT = Path(__file__).parents[3]
ROOMS = ("core", "jobs", "plugins", "store", "worker", "producer", "embedq")
COMMAND = re.compile(r"'embedq ([^'\n]+)'")


def texts(tree: ast.AST) -> Iterator[str]:
    """The texts of a module; what is put into them stands there as an X."""
    parts: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts |= {id(part) for part in node.values}
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def problem(words: list[str]) -> str | None:
    """What is wrong with a command line whose values are made up."""
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "get_command"):
        name, *words = words
        command = command.get_command(None, name)
        if command is None:
            return f"there is no command {name}"
    options = {opt: each for each in command.params for opt in (*each.opts, *each.secondary_opts)}
    places = [each for each in command.params if each.param_type_name == "argument"]
    given = 0
    while words:
        word, *words = words
        if not word.startswith("-"):
            given += 1
        elif word != "--help" and word not in options:
            return f"there is no option {word}"
        elif word != "--help" and not options[word].is_flag:
            words = words[1:]
    return "there are too many arguments" if given > len(places) and all(each.nargs == 1 for each in places) else None


def test_commands_that_are_named_are_there() -> None:
    named = {
        words
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for text in texts(ast.parse(path.read_text(encoding="utf-8")))
        for words in COMMAND.findall(text)
    }
    assert len(named) > 30
    problems = {words: found for words in named if (found := problem(shlex.split(words))) is not None}
    assert problems == {}


def test_what_is_wrong_is_found() -> None:
    assert problem(["dead", "lst"]) == "there is no command lst"
    assert problem(["reembed", "X", "--undo"]) == "there is no option --undo"
    assert problem(["collections", "show", "X", "Y"]) == "there are too many arguments"
