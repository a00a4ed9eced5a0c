"""What `models list` prints: the models there are, and the kinds of which more can be made by name."""

import json

from embedq.tables import print_table
from embedq_core.text import shown
from embedq_plugins import (
    EmbeddingModelWithAliases,
    ModelKindWithPlugin,
    get_embedding_models_with_aliases,
    is_installed,
    model_kinds_with_plugins,
)
from embedq_plugins.libraries import Needing


def print_models(*, as_json: bool) -> None:
    """Print models and kinds: a table and lines, or JSON, an object for each."""
    models, kinds = get_embedding_models_with_aliases(), model_kinds_with_plugins()
    if as_json:
        print(json.dumps([*map(_model_object, models), *map(_kind_object, kinds)]))
        return
    print_table(
        ["model", "aliases", "plugin", "dim", "takes", "batch", "library"],
        [_row(entry) for entry in models],
        right={3, 5},
    )
    if kinds:
        print("\nMade by name, or as the settings file describes them:")
        print_table(["name", "plugin", "library", "to install"], [_kind_row(entry) for entry in kinds])
    # How to install those of the kinds is said above.
    missing = {entry.model.install or entry.model.library for entry in models if not is_installed(entry.model)}
    for how in sorted(filter(None, missing - {entry.kind.install for entry in kinds})):
        print(f"\nMissing: {shown(how)}")


def _row(entry: EmbeddingModelWithAliases) -> list[str]:
    model = entry.model
    return [
        model.model_id,
        ", ".join(entry.aliases) or "-",
        entry.plugin,
        str(model.dimension or "-"),
        _takes(text=model.supports_text, binary=model.supports_binary),
        str(model.batch_size or "any"),
        _library(model),
    ]


def _kind_row(entry: ModelKindWithPlugin) -> list[str]:
    return [f"{entry.kind.name}:NAME", entry.plugin, _library(entry.kind), entry.kind.install or "-"]


def _library(needing: Needing) -> str:
    return "-" if needing.library is None else "ok" if is_installed(needing) else "missing"


def _model_object(entry: EmbeddingModelWithAliases) -> dict[str, object]:
    model = entry.model
    return {
        "id": model.model_id,
        "kind": None,
        "aliases": list(entry.aliases),
        "plugin": entry.plugin,
        "dimension": model.dimension,
        "text": model.supports_text,
        "binary": model.supports_binary,
        "batch_size": model.batch_size,
        **_needs(model),
    }


def _kind_object(entry: ModelKindWithPlugin) -> dict[str, object]:
    """As of a model, with the name of the kind; what its models differ in is null."""
    unknown = dict.fromkeys(("dimension", "text", "binary", "batch_size"))
    named = {"id": f"{entry.kind.name}:NAME", "kind": entry.kind.name, "aliases": [], "plugin": entry.plugin}
    return {**named, **unknown, **_needs(entry.kind)}


def _needs(needing: Needing) -> dict[str, object]:
    return {"library": needing.library, "installed": is_installed(needing), "install": needing.install}


def _takes(*, text: bool, binary: bool) -> str:
    return "both" if text and binary else "text" if text else "bytes"
