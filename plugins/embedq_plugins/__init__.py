"""Embedding models and how plugins add them: the hook, the base class, the registry, a built-in model."""

from embedq_plugins.hashing import HashingModel
from embedq_plugins.hookspecs import hookimpl, hookspec
from embedq_plugins.kinds import ModelKind, read_options
from embedq_plugins.libraries import is_installed, require_library
from embedq_plugins.loading import PluginProblem
from embedq_plugins.model import EmbeddingModel
from embedq_plugins.registry import (
    EmbeddingModelWithAliases,
    ModelKindWithPlugin,
    Registry,
    default_registry,
    get_embedding_model,
    get_embedding_models,
    get_embedding_models_with_aliases,
    model_kinds,
    model_kinds_with_plugins,
    plugin_problems,
)

__all__ = [
    "EmbeddingModel",
    "EmbeddingModelWithAliases",
    "HashingModel",
    "ModelKind",
    "ModelKindWithPlugin",
    "PluginProblem",
    "Registry",
    "default_registry",
    "get_embedding_model",
    "get_embedding_models",
    "get_embedding_models_with_aliases",
    "hookimpl",
    "hookspec",
    "is_installed",
    "model_kinds",
    "model_kinds_with_plugins",
    "plugin_problems",
    "read_options",
    "require_library",
]
