"""What is wrong with a model, an alias or a kind of models that a plugin registers."""

from embedq_core.text import shown
from embedq_plugins.kinds import ModelKind
from embedq_plugins.model import EmbeddingModel, is_count


def model_fault(model: object) -> str | None:
    """Why `model` can't be registered, or None where it can."""
    if isinstance(model, type):
        return f"registered the class {model.__name__}: register an instance, register({model.__name__}())"
    if not isinstance(model, EmbeddingModel):
        return f"registered {type(model).__name__}, which is no EmbeddingModel: extend that class"
    if not hasattr(model, "model_id"):
        return f"{type(model).__name__} has no model_id: set it on the class or in __init__"
    fault = name_fault(model.model_id)
    if fault:
        return f"{type(model).__name__}: model_id {fault}"
    return _attribute_fault(model)


def kind_fault(kind: object) -> str | None:
    """Why `kind` can't be registered, or None where it can."""
    if isinstance(kind, type):
        return f"registered the class {kind.__name__}: register an instance, register({kind.__name__}())"
    if not isinstance(kind, ModelKind):
        return f"registered {type(kind).__name__}, which is no ModelKind: extend that class"
    fault = name_fault(getattr(kind, "name", None))
    if not fault and ":" in kind.name:
        fault = f"must not hold a colon: {kind.name!r}"
    return f"{type(kind).__name__}: name {fault}" if fault else None


def name_fault(name: object) -> str | None:
    """Why `name` can't be a model's name or alias, or None where it can."""
    if not isinstance(name, str):
        return f"must be a str, not {type(name).__name__}"
    if not name:
        return "must not be empty"
    if name != name.strip():
        return f"must not begin or end with white space: {name!r}"
    if name != shown(name):
        return f"must not hold control characters: {name!r}"
    return None


def _attribute_fault(model: EmbeddingModel) -> str | None:
    # A plugin may set anything: the annotations are not believed.
    for name in ("batch_size", "batch_tokens"):
        most: object = getattr(model, name)
        if most is not None and not is_count(most):
            return f"model {model.model_id}: {name} must be a whole number of at least 1, or None, not {most!r}"
    if not is_count(model.concurrency):
        return f"model {model.model_id}: concurrency must be a whole number of at least 1, not {model.concurrency!r}"
    for name in ("document_prefix", "query_prefix"):
        if not isinstance(getattr(model, name), str):
            return f"model {model.model_id}: {name} must be a str, not {getattr(model, name)!r}"
    if not (model.supports_text or model.supports_binary):
        return f"model {model.model_id}: supports neither text nor binary data"
    return None
