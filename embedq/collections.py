"""Collections that know where models come from, and the settings: the store's, given what this room knows."""

import embedq_store
from embedq_core.settings import load_settings
from embedq_plugins import EmbeddingModel, get_embedding_model


class AsyncCollection(embedq_store.AsyncCollection):  # noqa: D101 - the docstring is inherited
    __doc__ = embedq_store.AsyncCollection.__doc__

    @classmethod
    def resolve_model(cls, name: str) -> EmbeddingModel:
        """The model that a plugin registered under this id or alias. Raises UnknownModel."""
        return get_embedding_model(name)

    @classmethod
    def default_search_bytes(cls) -> int:
        """The setting. Raises SettingsError where the settings can't be used."""
        return load_settings().search_bytes


class Collection(embedq_store.Collection):  # noqa: D101 - the docstring is inherited
    __doc__ = embedq_store.Collection.__doc__

    asynchronous = AsyncCollection
