"""Which commands a schedule may hold: parsed as the program parses them, and none that needs somebody there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias

from embedq_core.errors import UsageError
from embedq_core.text import shown

_REFUSED: Final = {
    "schedule": "a schedule is made by somebody, not by a schedule",
    "worker": "a worker runs until it is stopped: have the system start it",
    "drain": "it stops the workers, and with them what they run",
    "demo": "it is there to be looked at",
}
# Without --yes, these ask, always.
_ASKING: Final = frozenset(
    {"collections delete", "collections rollback", "collections drop-old", "dead purge", "runs cancel"}
)
_READS_INPUT: Final = ("inputs", "input", "batch", "source", "golden")
_READING_CORPORA: Final = frozenset({"submit", "ingest"})


Program: TypeAlias = Any
"""The command of the whole program, which each of its commands knows as its root. Typer brings a click of its own,
whose types it does not offer.
"""


@dataclass(frozen=True, slots=True)
class ParsedCommand:
    """A command line as the program understands it: the command's name, such as 'dead requeue', and its parameters."""

    name: str
    parameters: Mapping[str, object]


def check_unattended(arguments: Sequence[str], program: Program) -> None:
    """See that a schedule can run `embedq ARGUMENTS`. Raises UsageError; what Typer raises for a wrong option."""
    if arguments and arguments[0] == "embedq":
        raise UsageError("leave 'embedq' out after --: begin with the command, such as 'submit'")
    if not arguments or arguments[0].startswith("-"):
        raise UsageError("say what to run after --: a command of embedq, such as 'submit docs --files . *.md'")
    command = parsed(arguments, program)
    why = objection(command)
    if why is not None:
        raise UsageError(f"a schedule can't run {shown(command.name)!r}: {why}")
    if command.name in _READING_CORPORA:
        _check_corpus(command)
    if command.name == "reembed":
        _check_reembedding(command)


def _check_corpus(command: ParsedCommand) -> None:
    """See that the options of 'submit' and 'ingest' go together, as these do. Raises UsageError."""
    from embedq_producer.corpus import check_request
    from embedq_producer.corpus_options import CorpusRequest

    names = {field.name for field in fields(CorpusRequest)}
    given = {name: value for name, value in command.parameters.items() if name in names and value is not None}
    encodings = command.parameters.get("encoding") or ()
    check_request(CorpusRequest(**given, encodings=encodings))  # type: ignore[arg-type] # as Typer has parsed them


def _check_reembedding(command: ParsedCommand) -> None:
    """See that the options of 'reembed' go together. Raises UsageError."""
    from embedq.reembed.reembedding import ReembedRequest, check_options

    given = {**command.parameters, "listed": command.parameters["list_"]}
    request = ReembedRequest(**{field.name: given[field.name] for field in fields(ReembedRequest)})  # type: ignore[arg-type] # as Typer has parsed them
    if not request.listed:
        check_options(request)


def objection(command: ParsedCommand) -> str | None:
    """Why nobody's being there makes a command senseless; None where it doesn't."""
    given = command.parameters
    group = command.name.partition(" ")[0]
    for name in (command.name, group):
        if name in _REFUSED:
            return _REFUSED[name]
    if given.get("watch"):
        return "--watch draws on a terminal, and there is none"
    if any(_is_standard_input(given.get(name)) for name in _READS_INPUT):
        return "it would read standard input, which is empty: name a file"
    if _asks(command) and not given.get("yes"):
        return "it asks before it begins: add --yes"
    if given.get("database") is not None:
        return "it works on the database that holds the schedule: leave out --database, and add it to 'schedule add'"
    return None


def is_about(arguments: Sequence[str], collection: str, program: Program) -> bool:
    """Whether a command is about a collection; one that this program knows no more is about nothing."""
    if collection not in arguments:
        return False
    try:
        return parsed(arguments, program).parameters.get("collection") == collection
    except Exception:  # whatever Typer raises
        return False


def _asks(command: ParsedCommand) -> bool:
    given = command.parameters
    begins = given.get("model") is not None or given.get("force")
    ending = given.get("cancel") or (given.get("drop_old") and not begins)
    return command.name in _ASKING or (command.name == "reembed" and bool(ending))


def parsed(arguments: Sequence[str], program: Program) -> ParsedCommand:
    """The command that `arguments` ask for; nothing is run. Raises what Typer raises for what can't be parsed."""
    command = program
    context = command.make_context("embedq", list(arguments))
    names: list[str] = []
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])  # noqa: SLF001
        names.append(name)
        context = command.make_context(name, rest, parent=context)
    return ParsedCommand(" ".join(names), dict(context.params))


def _is_standard_input(value: object) -> bool:
    values = value if isinstance(value, (list, tuple)) else [value]
    return any(str(each) == "-" for each in values)
