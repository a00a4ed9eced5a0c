"""The plugin that brings the models of the `llm` tool: `llm` finds its own plugins, their names and their aliases.

Nothing of it is imported before the hook is called.
"""

from typing import Final

from embedq_plugins.hookspecs import Register, hookimpl
from embedq_plugins.llm_models import LlmModel

DEFAULT_ALIAS: Final = "llm"
"""Another name of the model that `llm embed-models default` has set."""


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
