"""Models by name: what the plugins registered, looked up by model id or alias."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import RLock

from embedq_core.errors import EmbedqError, ModelError, SettingsError, UnknownModel
from embedq_core.text import plural, suggestion
from embedq_plugins.discovery import Candidate, discovered, discovered_later
from embedq_plugins.kinds import Configured, ModelKind, configured_in
from embedq_plugins.loading import (
    SETTINGS,
    Loaded,
    PluginProblem,
    Registration,
    load,
    make_configured,
    one_line,
    place,
)
from embedq_plugins.model import EmbeddingModel
from embedq_plugins.validation import model_fault, name_fault


@dataclass(frozen=True, slots=True)
class ModelKindWithPlugin:
    """A kind of models, and the name of the plugin that registered it."""

    kind: ModelKind
    plugin: str


@dataclass(frozen=True, slots=True)
class EmbeddingModelWithAliases:
    """A model, the aliases by which it can be chosen too, and the name of the plugin that registered it."""

    model: EmbeddingModel
    aliases: tuple[str, ...]
    plugin: str


class Registry:
    """The models of a set of plugins. Nothing is loaded before the first question; threads may share it.

    `plugins` are modules or objects with a `register_embedding_models` hook, by name; without it they are
    the built-in models, the installed plugins and those in EMBEDQ_PLUGINS. `configured` gives the models that are
    described elsewhere; without it, and without `plugins`, those of the settings file. `later` gives plugins that
    take long to load; without it, and without `plugins`, that of the `llm` tool. They are loaded when a name is not
    found among the others, or when all models are listed, and can't take a name that the others have.
    """

    def __init__(
        self,
        plugins: Mapping[str, object] | None = None,
        configured: Callable[[], Iterable[Configured]] | None = None,
        later: Callable[[], Iterable[Candidate]] | None = None,
    ) -> None:
        self._plugins = plugins
        self._configured = configured or (_in_settings if plugins is None else tuple)
        self._later = later or (discovered_later if plugins is None else tuple)
        # Reentrant, so that a plugin that asks for a model while it registers gets an error, not a deadlock.
        self._lock = RLock()
        self._loading = False
        self._named: _Named | None = None
        self._all: _Named | None = None

    def get_embedding_model(self, name: str) -> EmbeddingModel:
        """The model whose id or alias is `name`, or is spelled so but for case and no other is; or the one that
        a kind of models makes of it, where `name` is `KIND:NAME`.

        Raises UnknownModel where there is none, SettingsError where the kind can't make one of this name.
        """
        named = self._loaded()
        found = named.find(name)
        if found is None:
            found = self._made(name, named)
        if found is None:
            named = self._complete()
            found = named.find(name)
        if found is not None:
            return found
        for problem in named.problems:
            if problem.plugin == SETTINGS and problem.message.startswith(f"{place(name)}: "):
                raise UnknownModel(f"there is no model {name!r}: in the settings file, {problem.message}")
        raise UnknownModel(
            f"there is no model {name!r}.{_did_you_mean(name, named.alike(name), list(named.models))} "
            f"`embedq models` lists all models{_blame(named.problems)}"
        )

    def _made(self, name: str, named: "_Named") -> EmbeddingModel | None:
        prefix, colon, rest = name.partition(":")
        kind = named.kinds.get(prefix)
        if kind is None or not colon or not rest or name_fault(name):
            return None
        with self._lock:
            # One instance for each name: it may hold weights.
            if name not in named.made:
                named.made[name] = _made_soundly(kind, name, rest)
            return named.made[name]

    def model_kinds(self) -> list[ModelKind]:
        """The kinds of models that can be made by name, in the order of their names."""
        return [entry.kind for entry in self.model_kinds_with_plugins()]

    def model_kinds_with_plugins(self) -> list[ModelKindWithPlugin]:
        """The kinds of models that can be made by name and their plugins, in the order of their names."""
        named = self._loaded()
        return [ModelKindWithPlugin(named.kinds[name], named.kind_plugins[name]) for name in sorted(named.kinds)]

    def get_embedding_models(self) -> list[EmbeddingModel]:
        """All models, in the order in which they were registered."""
        return [entry.model for entry in self.get_embedding_models_with_aliases()]

    def get_embedding_models_with_aliases(self) -> list[EmbeddingModelWithAliases]:
        """All models with their aliases and plugins, in the order in which they were registered."""
        return list(self._complete().entries)

    def plugin_problems(self) -> list[PluginProblem]:
        """What is wrong with plugins: those that can't be loaded, models and aliases that were left out.

        Of the plugins that take long to load it is said once they are.
        """
        return list((self._all or self._loaded()).problems)

    def reset(self) -> None:
        """Forget everything; the next question loads again, from the environment as it is then."""
        with self._lock:
            self._named = self._all = None

    def _loaded(self) -> "_Named":
        # Read once, without the lock: it is set when it is complete.
        named = self._named
        if named is not None:
            return named
        with self._lock:
            if self._named is None:
                with self._load_once():
                    loaded = load(self._candidates())
                    self._configure(loaded)
                    self._named = _resolve(loaded)
            return self._named

    def _complete(self) -> "_Named":
        """All models, those of plugins that take long to load as well."""
        complete = self._all
        if complete is not None:
            return complete
        with self._lock:
            if self._all is None:
                first = self._loaded()
                with self._load_once():
                    self._all = _extended(first, load(self._later()))
            return self._all

    def _configure(self, loaded: Loaded) -> None:
        try:
            registrations, problems = make_configured(self._configured(), loaded.kinds)
        except SettingsError as error:
            loaded.problems.append(PluginProblem(SETTINGS, str(error)))
            return
        # First, so that a name which the user gave is not taken by a plugin.
        loaded.registrations[:0] = registrations
        loaded.problems += problems

    @contextmanager
    def _load_once(self) -> Iterator[None]:
        if self._loading:
            raise ModelError("models can't be looked up while plugins register theirs")
        self._loading = True
        try:
            yield
        finally:
            self._loading = False

    def _candidates(self) -> Iterator[Candidate]:
        if self._plugins is None:
            return discovered()
        return (Candidate(name, partial(_given, plugin)) for name, plugin in self._plugins.items())


def _made_soundly(kind: ModelKind, name: str, rest: str) -> EmbeddingModel:
    """What `kind` makes of `name`. Raises SettingsError, whatever the plugin raises, or if it is no model."""
    try:
        made = kind.make(name, {"model": rest})
    except EmbedqError:
        raise
    except Exception as error:
        raise SettingsError(f"{name}: {one_line(error)}") from error
    fault = model_fault(made)
    if fault:
        raise SettingsError(f"{name}: {fault}")
    return made


def _in_settings() -> Iterator[Configured]:
    # typed-settings, which reads the rest of that file, takes a while to import.
    from embedq_core.settings import settings_file

    return configured_in(settings_file())


def _given(plugin: object) -> object:
    return plugin


@dataclass(frozen=True, slots=True)
class _Named:
    entries: tuple[EmbeddingModelWithAliases, ...]
    models: Mapping[str, EmbeddingModel]
    problems: tuple[PluginProblem, ...]
    kinds: Mapping[str, ModelKind]
    kind_plugins: Mapping[str, str]
    made: dict[str, EmbeddingModel] = field(default_factory=dict)
    """Models that kinds have made, by name."""

    def find(self, name: str) -> EmbeddingModel | None:
        """The model with this name, or with one that differs from it in case only, if just one model has such."""
        if name in self.models:
            return self.models[name]
        alike = {id(self.models[known]): self.models[known] for known in self.alike(name)}
        return alike.popitem()[1] if len(alike) == 1 else None

    def alike(self, name: str) -> list[str]:
        """The names that differ from `name` in case at most."""
        return [known for known in self.models if known.casefold() == name.casefold()]


def _resolve(loaded: Loaded) -> _Named:
    """Who gets which name: the first who asks, and ids before aliases.

    Collections are stored under model ids, so an alias must never lead to another model than the id does.
    """
    registrations, problems = loaded.registrations, list(loaded.problems)
    owners: dict[str, Registration] = {}
    for registration in registrations:
        _claim(owners, registration, registration.model.model_id, problems)
    kept = [entry for entry in registrations if owners[entry.model.model_id] is entry]
    entries = [
        EmbeddingModelWithAliases(
            entry.model,
            tuple(
                alias
                for alias in entry.aliases
                if alias != entry.model.model_id and _claim(owners, entry, alias, problems)
            ),
            entry.plugin,
        )
        for entry in kept
    ]
    models = {name: owner.model for name, owner in owners.items()}
    return _Named(tuple(entries), models, tuple(problems), loaded.kinds, loaded.kind_plugins)


def _extended(first: _Named, later: Loaded) -> _Named:
    """What `first` has, and what was registered later under names that are still free.

    A name that is taken is no problem: a package may bring one model both for embedq and for `llm`. It has to mean
    the same before the later plugins are loaded and afterwards.
    """
    free = [
        Registration(entry.model, tuple(alias for alias in entry.aliases if alias not in first.models), entry.plugin)
        for entry in later.registrations
        if entry.model.model_id not in first.models
    ]
    added = _resolve(Loaded(free, problems=later.problems))
    return _Named(
        first.entries + added.entries,
        {**first.models, **added.models},
        first.problems + added.problems,
        first.kinds,
        first.kind_plugins,
        first.made,
    )


def _claim(owners: dict[str, Registration], claimant: Registration, name: str, problems: list[PluginProblem]) -> bool:
    owner = owners.setdefault(name, claimant)
    if owner is claimant:
        return True
    what = "model" if name == claimant.model.model_id else f"alias of model {claimant.model.model_id!r}"
    problems.append(
        PluginProblem(
            claimant.plugin,
            f"{what} {name!r} of plugin {claimant.plugin!r} is left out: the name is taken by "
            f"model {owner.model.model_id!r} of plugin {owner.plugin!r}",
        )
    )
    return False


def _did_you_mean(name: str, alike: list[str], known: list[str]) -> str:
    if alike:
        return f" Did you mean {' or '.join(map(repr, alike))}?"
    return suggestion(name, known)


def _blame(problems: tuple[PluginProblem, ...]) -> str:
    return f", and {plural(len(problems), 'problem')} with plugins" if problems else ""


default_registry = Registry()
"""The models of this installation."""


def get_embedding_model(name: str) -> EmbeddingModel:
    """The model whose id or alias is `name`. Raises UnknownModel where there is none."""
    return default_registry.get_embedding_model(name)


def get_embedding_models() -> list[EmbeddingModel]:
    """All models of this installation."""
    return default_registry.get_embedding_models()


def get_embedding_models_with_aliases() -> list[EmbeddingModelWithAliases]:
    """All models of this installation with their aliases and plugins."""
    return default_registry.get_embedding_models_with_aliases()


def model_kinds() -> list[ModelKind]:
    """The kinds of models that this installation can make by name."""
    return default_registry.model_kinds()


def model_kinds_with_plugins() -> list[ModelKindWithPlugin]:
    """The kinds of models that this installation can make by name, with their plugins."""
    return default_registry.model_kinds_with_plugins()


def plugin_problems() -> list[PluginProblem]:
    """What is wrong with this installation's plugins: (plugin name, one-line message)."""
    return default_registry.plugin_problems()
