"""Loading plugins: each on its own, so that one that fails costs its own models and nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import pluggy

from embedq_core.text import excerpt
from embedq_plugins import hookspecs
from embedq_plugins.discovery import Candidate
from embedq_plugins.model import EmbeddingModel
from embedq_plugins.validation import model_fault, name_fault

_HOOK = "register_embedding_models"


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


def load(candidates: Iterable[Candidate]) -> tuple[list[Registration], list[PluginProblem]]:
    """What the plugins register, in order, and the problems that there were.

    A plugin may raise anything, SystemExit included; what it registered before that counts. Only
    KeyboardInterrupt passes.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    registrations: list[Registration] = []
    problems: list[PluginProblem] = []
    for candidate in candidates:
        try:
            _load_one(manager, candidate, registrations, problems)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            problems.append(PluginProblem(candidate.name, _one_line(error)))
    return registrations, problems


def _load_one(
    manager: pluggy.PluginManager,
    candidate: Candidate,
    registrations: list[Registration],
    problems: list[PluginProblem],
) -> None:
    name = candidate.name

    def register(model: EmbeddingModel, aliases: Iterable[str] | None = None) -> None:
        fault = model_fault(model)
        if fault:
            problems.append(PluginProblem(name, fault))
            return
        # ("mini") is a str: the comma that makes a tuple is easily forgotten.
        wanted = [aliases] if isinstance(aliases, str) else list(aliases or ())
        for alias in wanted:
            fault = name_fault(alias)
            if fault:
                problems.append(PluginProblem(name, f"model {model.model_id}: an alias {fault}"))
        sound = tuple(dict.fromkeys(alias for alias in wanted if not name_fault(alias)))
        registrations.append(Registration(model, sound, name))

    plugin = candidate.load()
    if manager.is_registered(plugin):
        return
    manager.register(plugin, name)
    callers = manager.get_hookcallers(plugin) or []
    problems += [
        PluginProblem(name, f"implements the hook {caller.name}, which embedq has not; {_HOOK} is meant?")
        for caller in callers
        if not caller.has_spec()
    ]
    if not callers:
        problems.append(PluginProblem(name, f"has no function {_HOOK} that is marked with @embedq.hookimpl"))
    others = [other for other in manager.get_plugins() if other is not plugin]
    manager.subset_hook_caller(_HOOK, remove_plugins=others)(register=register)


def _one_line(error: BaseException) -> str:
    try:
        text = excerpt(str(error), 300)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
