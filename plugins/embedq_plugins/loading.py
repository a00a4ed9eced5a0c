"""Loading plugins: each on its own, so that one that fails costs its own models and nothing else."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import pluggy

from embedq_core.errors import EmbedqError
from embedq_core.text import excerpt
from embedq_plugins import hookspecs
from embedq_plugins.discovery import Candidate
from embedq_plugins.kinds import Configured, ModelKind
from embedq_plugins.model import EmbeddingModel
from embedq_plugins.validation import kind_fault, model_fault, name_fault

_MODELS_HOOK = "register_embedding_models"
_KINDS_HOOK = "register_model_kinds"

SETTINGS: Final = "settings"
"""Whose the models are that the settings file describes."""


class PluginProblem(NamedTuple):
    """What is wrong with a plugin, on one line."""

    plugin: str
    message: str


@dataclass(frozen=True, slots=True)
class Registration:
    """One call of `register`: a model that passed the checks, the aliases that did, and whose it is."""

    model: EmbeddingModel
    aliases: tuple[str, ...]
    plugin: str


@dataclass(slots=True)
class Loaded:
    """What plugins registered, in order, and the problems that there were."""

    registrations: list[Registration] = field(default_factory=list)
    kinds: dict[str, ModelKind] = field(default_factory=dict)
    kind_plugins: dict[str, str] = field(default_factory=dict)
    problems: list[PluginProblem] = field(default_factory=list)


def load(candidates: Iterable[Candidate]) -> Loaded:
    """Load plugins and let them register.

    A plugin may raise anything, SystemExit included; what it registered before that counts. Only
    KeyboardInterrupt passes.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    loaded = Loaded()
    for candidate in candidates:
        try:
            _load_one(manager, candidate, loaded)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            loaded.problems.append(PluginProblem(candidate.name, one_line(error)))
    return loaded


def place(name: str) -> str:
    """Where the settings file describes the model `name`."""
    return f"[models.{name}]"


def make_configured(
    configured: Iterable[Configured], kinds: Mapping[str, ModelKind]
) -> tuple[list[Registration], list[PluginProblem]]:
    """The models that the settings file describes, made by `kinds`, and what is wrong with the others."""
    registrations: list[Registration] = []
    problems: list[PluginProblem] = []
    for one in configured:
        problem = one.problem
        if problem is None and one.kind not in kinds:
            problem = f"there is no kind {one.kind!r}; there are {', '.join(sorted(kinds)) or 'none'}"
        if problem is not None:
            problems.append(PluginProblem(SETTINGS, f"{place(one.name)}: {problem}"))
            continue
        try:
            model = kinds[one.kind].make(one.name, one.options)
        except Exception as error:
            text = str(error) if isinstance(error, EmbedqError) else one_line(error)
            problems.append(PluginProblem(SETTINGS, f"{place(one.name)}: {text}"))
            continue
        _register(model, one.aliases, SETTINGS, registrations, problems)
    return registrations, problems


def _register(
    model: EmbeddingModel,
    aliases: Iterable[str] | None,
    plugin: str,
    registrations: list[Registration],
    problems: list[PluginProblem],
) -> None:
    fault = model_fault(model)
    if fault:
        problems.append(PluginProblem(plugin, fault))
        return
    # ("mini") is a str: the comma that makes a tuple is easily forgotten.
    wanted = [aliases] if isinstance(aliases, str) else list(aliases or ())
    for alias in wanted:
        fault = name_fault(alias)
        if fault:
            problems.append(PluginProblem(plugin, f"model {model.model_id}: an alias {fault}"))
    sound = tuple(dict.fromkeys(alias for alias in wanted if not name_fault(alias)))
    registrations.append(Registration(model, sound, plugin))


def _load_one(manager: pluggy.PluginManager, candidate: Candidate, loaded: Loaded) -> None:
    name, problems = candidate.name, loaded.problems

    def register(model: EmbeddingModel, aliases: Iterable[str] | None = None) -> None:
        _register(model, aliases, name, loaded.registrations, problems)

    def register_kind(kind: ModelKind) -> None:
        fault = kind_fault(kind)
        if not fault and loaded.kinds.setdefault(kind.name, kind) is not kind:
            fault = f"the kind {kind.name!r} is left out: the name is taken"
        if fault:
            problems.append(PluginProblem(name, fault))
        else:
            loaded.kind_plugins[kind.name] = name

    plugin = candidate.load()
    if manager.is_registered(plugin):
        return
    manager.register(plugin, name)
    callers = manager.get_hookcallers(plugin) or []
    problems += [
        PluginProblem(name, f"implements the hook {caller.name}, which embedq has not; {_MODELS_HOOK} is meant?")
        for caller in callers
        if not caller.has_spec()
    ]
    if not callers:
        problems.append(PluginProblem(name, f"has no function {_MODELS_HOOK} that is marked with @embedq.hookimpl"))
    others = [other for other in manager.get_plugins() if other is not plugin]
    manager.subset_hook_caller(_KINDS_HOOK, remove_plugins=others)(register=register_kind)
    manager.subset_hook_caller(_MODELS_HOOK, remove_plugins=others)(register=register)


def one_line(error: BaseException) -> str:
    """What went wrong, with the class of the error, whatever its text does."""
    try:
        text = excerpt(str(error), 300)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
