"""An embedding model of the `llm` tool, or of a plugin written for it, as a model of embedq."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from embedq_core.errors import MissingKey, ModelError
from embedq_plugins.model import EmbeddingModel

if TYPE_CHECKING:
    from llm.models import EmbeddingModel as TheirModel

_Value = TypeVar("_Value")


class LlmModel(EmbeddingModel):
    """A model of `llm`: what it takes, and how many at a time, is what `llm` says of it."""

    library = "llm"
    install = "pip install 'embedq[llm]'"

    def __init__(self, model: "TheirModel") -> None:
        self._model = model
        self.model_id = model.model_id
        self.supports_text = bool(model.supports_text)
        self.supports_binary = bool(model.supports_binary)
        self.batch_size = model.batch_size

    def check_setup(self) -> None:
        """Raise MissingKey where `llm` keeps no key for it."""
        import llm

        try:
            self._model.get_key()
        except llm.NeedsKeyException as error:
            raise MissingKey(f"{self.model_id}: {error}") from error

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterator[Iterable[float]]:
        """One call of the model's own `embed_batch`, with the key that `llm` keeps for it.

        Raises MissingKey where it keeps none, and whatever the model raises.
        """
        import llm

        batch = list(items)
        try:
            yield from self._model.embed_multi(batch, batch_size=max(len(batch), 1))
        except llm.NeedsKeyException as error:
            raise MissingKey(f"{self.model_id}: {error}") from error
        except Exception as error:
            # Some services repeat the key that they refuse, and messages are stored and logged.
            key = self._model.get_key()
            if not key or key not in str(error):
                raise
            error.args = tuple(_without(key, value) for value in error.args)
            if key in str(error):
                # Its text comes from elsewhere.
                raise ModelError(_without(key, f"{type(error).__name__}: {error}")) from None
            raise


def _without(key: str, value: _Value) -> str | _Value:
    return value.replace(key, "[key]") if isinstance(value, str) else value
