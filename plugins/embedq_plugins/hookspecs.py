"""The hooks by which a plugin makes its embedding models known."""

from collections.abc import Iterable
from typing import Final, Protocol

import pluggy

from embedq_plugins.kinds import ModelKind
from embedq_plugins.model import EmbeddingModel

PROJECT: Final = "embedq"

hookspec: Final = pluggy.HookspecMarker(PROJECT)
"""Marks a function as the specification of a hook."""

hookimpl: Final = pluggy.HookimplMarker(PROJECT)
"""Marks a plugin's function as the implementation of a hook."""


class Register(Protocol):
    """What a plugin calls for each of its models."""

    def __call__(self, model: EmbeddingModel, aliases: Iterable[str] | None = None) -> None:
        """Make `model` known by its model_id and by `aliases`."""


@hookspec
def register_embedding_models(register: Register) -> None:
    """Call `register(model, aliases=("short-name",))` for each embedding model: an instance, not its class.

    A model's library is best imported by its first `embed_batch`, not by the plugin.
    """


class RegisterKind(Protocol):
    """What a plugin calls for each of its kinds of models."""

    def __call__(self, kind: ModelKind) -> None:
        """Make models of `kind` known by the names `KIND:NAME`, and describable in the settings file."""


@hookspec
def register_model_kinds(register: RegisterKind) -> None:
    """Call `register(kind)` for each kind of models that the plugin can make by name."""
