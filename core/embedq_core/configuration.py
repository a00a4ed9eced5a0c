"""What decides, beside a model's name, which vector a text gets; and whether two of them can be compared.

A configuration is recorded with a collection when its first vectors are written. From then on every writer must have
the same, and every query is put in the form that was recorded.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from embedq_core.errors import ConfigurationMismatch
from embedq_core.text import shown

Configuration: TypeAlias = Mapping[str, str | int | float | bool]

DOCUMENT_PREFIX: Final = "document_prefix"
QUERY_PREFIX: Final = "query_prefix"

# Of a collection that holds vectors and no record, made by another tool: texts were embedded as they stand.
UNRECORDED: Final[Configuration] = {}

_decoder = msgspec.json.Decoder(dict[str, str | int | float | bool])


def configuration_text(configuration: Configuration) -> str:
    """`configuration` as the text that is stored: JSON, keys in order."""
    return msgspec.json.encode(dict(configuration), order="sorted").decode()


def configuration_from(text: str) -> Configuration:
    """The configuration that `configuration_text` wrote."""
    return _decoder.decode(text)


def check_writing(collection: str, model_id: str, recorded: Configuration, present: Configuration) -> None:
    """Raise ConfigurationMismatch where vectors of `present` must not stand beside those made with `recorded`."""
    _check(collection, model_id, recorded, present, set())


def check_querying(
    collection: str, model_id: str, recorded: Configuration, present: Configuration, *, by_prefix: bool
) -> None:
    """Raise ConfigurationMismatch where the recorded form of queries can't be made with a model of `present`.

    What is put before documents does not matter any more. The recorded `query_prefix` can be used in the place of the
    present one, if the model makes its queries `by_prefix` alone.
    """
    _check(collection, model_id, recorded, present, {DOCUMENT_PREFIX, QUERY_PREFIX} if by_prefix else {DOCUMENT_PREFIX})


def recorded_query_prefix(recorded: Configuration) -> str:
    """What stands before queries, according to the record."""
    return str(recorded.get(QUERY_PREFIX, ""))


def differences(recorded: Configuration, present: Configuration) -> list[str]:
    """What differs, in words: 'document_prefix "passage: ", now none'."""
    names = sorted(recorded.keys() | present.keys())
    return [
        f"{name} {_value(recorded, name)}, now {_value(present, name)}"
        for name in names
        if recorded.get(name) != present.get(name)
    ]


def _check(collection: str, model_id: str, recorded: Configuration, present: Configuration, besides: set[str]) -> None:
    found = differences(
        {name: value for name, value in recorded.items() if name not in besides},
        {name: value for name, value in present.items() if name not in besides},
    )
    if found:
        raise ConfigurationMismatch(
            f"the collection {shown(collection)!r} was embedded with another configuration of {shown(model_id)}: "
            f"{shown('; '.join(found))}: set the model as it was, or embed into another collection, "
            f"or all of this one anew: 'embedq reembed {shown(collection)} --force'"
        )


def _value(configuration: Configuration, name: str) -> str:
    return msgspec.json.encode(configuration[name]).decode() if name in configuration else "none"
