"""Kinds of models: what makes models by name, `st:all-MiniLM-L6-v2`, or as the settings file describes them.

A plugin that can make any number of models registers a kind instead of each model. A name with the kind's prefix
makes one; so does a table of the settings file:

    [models.notes]
    kind = "st"
    model = "/models/x"
    aliases = ["n"]
    document_prefix = "passage: "
"""

import tomllib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import msgspec

from embedq_core.errors import SettingsError
from embedq_core.text import suggestion
from embedq_plugins.model import EmbeddingModel

SECTION: Final = "models"

_OWN: Final = ("kind", "aliases")

_Options = TypeVar("_Options", bound=msgspec.Struct)


class ModelKind(ABC):
    """Makes models. A plugin sets `name` and implements `make`."""

    name: ClassVar[str]
    """What stands before the colon of a model's name, and in `kind =` of the settings file."""

    library: ClassVar[str | None] = None
    """The top-level module that models of this kind import, where it may be missing."""

    install: ClassVar[str | None] = None
    """How to install it: a command."""

    @abstractmethod
    def make(self, model_id: str, options: Mapping[str, object]) -> EmbeddingModel:
        """The model called `model_id`, made without a look at its library or its weights.

        `options` is the model's table in the settings file, less `kind` and `aliases`; for a model that is named
        as `KIND:NAME`, `{"model": NAME}`. Raises SettingsError for options that can't be used: see `read_options`.
        """


def read_options(options: Mapping[str, object], kind: type[_Options]) -> _Options:
    """`options` as the struct `kind`, each of its fields an option. Raises SettingsError, naming the option."""
    names = {field.encode_name for field in msgspec.structs.fields(kind)}
    unknown = sorted(options.keys() - names)
    if unknown:
        # All of them are too many for a line, where one is meant.
        meant = suggestion(unknown[0], names) or f" There are {', '.join(sorted(names))}"
        raise SettingsError(f"there is no option {unknown[0]!r}.{meant}")
    try:
        return msgspec.convert(dict(options), kind)
    except msgspec.ValidationError as error:
        # Its text names the types and the option, never the value: a value may be a key.
        raise SettingsError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Configured:
    """A model that the settings file describes, and what is wrong with the description, if anything is."""

    name: str
    kind: str
    aliases: Sequence[str]
    options: Mapping[str, object]
    problem: str | None = None


def configured_in(file: Path) -> Iterator[Configured]:
    """The models of a settings file, in its order; none where there is no file. Raises SettingsError for no TOML."""
    for name, table in _section(file).items():
        yield _configured(name, table)


def _section(file: Path) -> Mapping[str, object]:
    try:
        with file.open("rb") as opened:
            section: Any = tomllib.load(opened).get(SECTION, {})
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: {error}") from error
    if not isinstance(section, dict):
        raise SettingsError(f"{file}: {SECTION} must be a table of models, [{SECTION}.NAME]")
    return section


def _configured(name: str, table: object) -> Configured:
    if not isinstance(table, dict):
        return Configured(name, "", (), {}, "is no table")
    kind, aliases = table.get("kind"), table.get("aliases", [])
    options = {key: value for key, value in table.items() if key not in _OWN}
    if not isinstance(kind, str):
        return Configured(name, "", (), options, 'has no kind: set kind = "st", say')
    if not isinstance(aliases, list):
        return Configured(name, kind, (), options, 'aliases must be a list: aliases = ["short"]')
    return Configured(name, kind, tuple(aliases), options)
