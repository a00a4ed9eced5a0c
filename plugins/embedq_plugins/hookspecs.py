"""The hook by which a plugin makes its embedding models known."""

from collections.abc import Iterable
from typing import Final, Protocol

import pluggy

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
