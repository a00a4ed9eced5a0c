"""Models behind HTTP: any endpoint that answers `/v1/embeddings` as OpenAI's does. Needs the extra `http`.

`openai:text-embedding-3-small` is a model of OpenAI's; others are described in the settings file:

    [models.bge]
    kind = "http"
    base_url = ["http://gpu1:8080/v1", "http://gpu2:8080/v1"]
    model = "BAAI/bge-m3"
    concurrency = 8
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from embedq_core.errors import SettingsError
from embedq_plugins.hookspecs import RegisterKind, hookimpl
from embedq_plugins.kinds import ModelKind, read_options
from embedq_plugins.model import EmbeddingModel

if TYPE_CHECKING:
    from embedq_plugins.http.options import HttpOptions

LIBRARY: Final = "httpx"
INSTALL: Final = "pip install 'embedq[http]'"

# Names that people give to what must not be in a file of settings.
_KEYS: Final = frozenset({"key", "api_key", "apikey", "token", "password", "secret"})


class HttpKind(ModelKind):
    """Models of any compatible endpoint; they need an address, so they are described in the settings file."""

    name = "http"
    library = LIBRARY
    install = INSTALL

    def make(self, model_id: str, options: Mapping[str, object]) -> EmbeddingModel:
        """A model at the addresses that `options` give. Raises SettingsError."""
        # msgspec's structs of options, and all below them, stay out of commands that name no such model.
        from embedq_plugins.http.options import HttpOptions

        made = _made(model_id, {"base_url": "http://localhost", **options}, HttpOptions)
        if "base_url" in options:
            return made
        # Said last: base_url may have been meant by an option that there isn't.
        if model_id == f"{self.name}:{options['model']}":
            raise SettingsError(
                f"{model_id} has no address: describe it in the settings file, "
                f'[models.NAME] with kind = "http", model = "{options["model"]}" and base_url = "http://…/v1"'
            )
        raise SettingsError('has no address: set base_url = "http://localhost:8080/v1", say')


class OpenAIKind(ModelKind):
    """Models of OpenAI's, by name: `openai:text-embedding-3-small`; the key is in OPENAI_API_KEY."""

    name = "openai"
    library = LIBRARY
    install = INSTALL

    def make(self, model_id: str, options: Mapping[str, object]) -> EmbeddingModel:
        """A model at OpenAI's, or at another address that `options` give. Raises SettingsError."""
        from embedq_plugins.http.options import OpenAIOptions

        return _made(model_id, options, OpenAIOptions)


def _made(model_id: str, options: Mapping[str, object], kind: "type[HttpOptions]") -> EmbeddingModel:
    from embedq_plugins.http.model import HttpModel

    keys = sorted(_KEYS & options.keys())
    if keys:
        raise SettingsError(
            f"there is no option {keys[0]!r}, since a key does not belong into the settings file: "
            "name the variable (key_env) or the file (key_file) that holds it"
        )
    return HttpModel(model_id, read_options(options, kind))


@hookimpl
def register_model_kinds(register: RegisterKind) -> None:
    """Register the kinds of models behind HTTP."""
    register(HttpKind())
    register(OpenAIKind())
