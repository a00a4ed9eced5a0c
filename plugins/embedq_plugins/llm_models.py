"""The embedding models of the `llm` tool and of every plugin written for it, as models of embedq.

`llm` finds its plugins, names and aliases, and keeps the keys; nothing of it is imported before the hook is called.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from embedq_core.errors import MissingKey
from embedq_plugins.hookspecs import Register, hookimpl
from embedq_plugins.model import EmbeddingModel

if TYPE_CHECKING:
    from llm.models import EmbeddingModel as TheirModel

DEFAULT_ALIAS: Final = "llm"
"""Another name of the model that `llm embed-models default` has set."""


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
            if key:
                error.args = tuple(_without(key, value) for value in error.args)
            raise


@hookimpl
def register_embedding_models(register: Register) -> None:
    """Register every model of `llm`, its default one also as `llm`."""
    import llm

    default = llm.get_default_embedding_model()  # type: ignore[no-untyped-call] # llm says no type
    # Of equal names the last counts there, and so it does here.
    names = llm.get_embedding_model_aliases()
    aliases: dict[str, list[str]] = {}
    for name, model in names.items():
        aliases.setdefault(model.model_id, [])
        if name != model.model_id and names.get(model.model_id) is model:
            aliases[model.model_id].append(name)
    for model_id, others in aliases.items():
        if default in (model_id, *others):
            others.append(DEFAULT_ALIAS)
        register(LlmModel(names[model_id]), aliases=others)


def _without(key: str, value: object) -> object:
    return value.replace(key, "[key]") if isinstance(value, str) else value
