import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from embedq_core.errors import EmbedqError, UnknownModel
from embedq_plugins import EmbeddingModel, Registry, hookimpl
from embedq_plugins.discovery import Candidate
from support.waiting import BOUND_SECONDS


class Model(EmbeddingModel):
    def __init__(self, model_id: str, batch_size: int | None = None) -> None:
        self.model_id = model_id
        self.batch_size = batch_size

    def embed_batch(self, items: Iterable[str | bytes]) -> list[list[float]]:
        return [[1.0] for _ in items]


class Plugin:
    """A plugin whose hook is the given function of `register`."""

    def __init__(self, function: Callable[[Any], object]) -> None:
        self.function = function

    @hookimpl
    def register_embedding_models(self, register: Callable[..., None]) -> None:
        self.function(register)


def registering(model_id: str, *aliases: str) -> Plugin:
    return Plugin(lambda register: register(Model(model_id), aliases=aliases))


def raising(error: BaseException) -> Plugin:
    def fail(_: Any) -> None:
        raise error

    return Plugin(fail)


def ids(registry: Registry) -> list[str]:
    return [model.model_id for model in registry.get_embedding_models()]


def test_models_come_in_the_order_in_which_they_were_registered() -> None:
    registry = Registry({"one": registering("b"), "two": registering("a", "x", "y")})
    assert ids(registry) == ["b", "a"]
    assert [
        (entry.model.model_id, entry.aliases, entry.plugin) for entry in registry.get_embedding_models_with_aliases()
    ] == [("b", (), "one"), ("a", ("x", "y"), "two")]


def test_an_unknown_name_gets_close_matches_and_a_hint() -> None:
    registry = Registry({"one": registering("MiniLM-L6", "mini"), "two": raising(ValueError("no"))})
    with pytest.raises(UnknownModel) as caught:
        registry.get_embedding_model("MiniLM-L7")
    assert str(caught.value) == (
        "there is no model 'MiniLM-L7'. Did you mean 'MiniLM-L6'? "
        "`embedq models` lists all models, and 1 problem with plugins"
    )
    assert isinstance(caught.value, EmbedqError)


def test_names_are_found_whatever_their_case_if_that_is_unambiguous() -> None:
    registry = Registry({"one": registering("MiniLM", "minilm"), "two": registering("Clip", "CLIP-b")})
    assert registry.get_embedding_model("MINILM").model_id == "MiniLM"
    assert registry.get_embedding_model("clip-B").model_id == "Clip"


def test_an_exact_name_wins_and_an_ambiguous_one_is_unknown() -> None:
    registry = Registry({"one": registering("mini"), "two": registering("Mini")})
    assert registry.get_embedding_model("Mini").model_id == "Mini"
    with pytest.raises(UnknownModel, match="Did you mean 'mini' or 'Mini'"):
        registry.get_embedding_model("MINI")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("no torch"), "ImportError: no torch"),
        (ValueError("first\nsecond\x1b[0m"), "ValueError: first second\\x1b[0m"),
        (SystemExit(3), "SystemExit: 3"),
        (BaseException(), "BaseException"),
    ],
)
def test_a_plugin_that_raises_is_recorded_and_the_others_load(error: BaseException, message: str) -> None:
    registry = Registry({"one": registering("a"), "bad": raising(error), "two": registering("b")})
    assert registry.plugin_problems() == [("bad", message)]
    assert ids(registry) == ["a", "b"]


def test_even_an_error_that_cannot_be_printed_is_recorded() -> None:
    class Unprintable(Exception):  # noqa: N818 - describes, is no one's API
        def __str__(self) -> str:
            raise RuntimeError

    assert Registry({"bad": raising(Unprintable())}).plugin_problems() == [("bad", "Unprintable")]


def test_an_interrupt_passes_and_the_next_question_loads_again() -> None:
    errors: list[BaseException] = [KeyboardInterrupt()]

    def once(register: Any) -> None:
        if errors:
            raise errors.pop()
        register(Model("a"))

    registry = Registry({"slow": Plugin(once)})
    with pytest.raises(KeyboardInterrupt):
        registry.get_embedding_models()
    assert ids(registry) == ["a"]


def test_what_a_plugin_registered_before_it_raised_counts() -> None:
    def half(register: Any) -> None:
        register(Model("a"))
        raise RuntimeError("no licence")

    registry = Registry({"half": Plugin(half)})
    assert ids(registry) == ["a"]
    assert registry.plugin_problems() == [("half", "RuntimeError: no licence")]


def test_the_first_of_two_models_of_one_id_wins_and_both_plugins_are_named() -> None:
    registry = Registry({"one": registering("a"), "two": registering("a", "second")})
    (entry,) = registry.get_embedding_models_with_aliases()
    assert entry.plugin == "one"
    ((plugin, message),) = registry.plugin_problems()
    assert plugin == "two"
    assert message == ("model 'a' of plugin 'two' is left out: the name is taken by model 'a' of plugin 'one'")
    with pytest.raises(UnknownModel):
        registry.get_embedding_model("second")


def test_the_first_of_two_equal_aliases_wins() -> None:
    registry = Registry({"one": registering("a", "x"), "two": registering("b", "x", "y")})
    assert registry.get_embedding_model("x").model_id == "a"
    assert registry.get_embedding_model("y").model_id == "b"
    ((plugin, message),) = registry.plugin_problems()
    assert plugin == "two"
    assert "alias of model 'b' 'x' of plugin 'two' is left out" in message


def test_an_alias_never_hides_a_model_id_even_of_a_later_plugin() -> None:
    registry = Registry({"one": registering("a", "b"), "two": registering("b")})
    assert registry.get_embedding_model("b").model_id == "b"
    assert [plugin for plugin, _ in registry.plugin_problems()] == ["one"]


def test_a_model_may_name_itself_and_repeat_itself_in_its_aliases() -> None:
    registry = Registry({"one": registering("a", "a", "x", "x")})
    assert registry.get_embedding_models_with_aliases()[0].aliases == ("x",)
    assert registry.plugin_problems() == []


def test_a_forgotten_comma_in_aliases_is_forgiven() -> None:
    registry = Registry({"one": Plugin(lambda register: register(Model("a"), aliases="mini"))})
    assert registry.get_embedding_models_with_aliases()[0].aliases == ("mini",)


def test_a_bad_alias_costs_the_alias_only() -> None:
    registry = Registry({"one": registering("a", " x", "y")})
    assert registry.get_embedding_models_with_aliases()[0].aliases == ("y",)
    assert registry.plugin_problems() == [("one", "model a: an alias must not begin or end with white space: ' x'")]


def test_a_model_with_a_fault_costs_that_model_only_and_its_plugin_is_named() -> None:
    def three(register: Any) -> None:
        register(Model("a"))
        register(Model)
        register(Model("b", batch_size=0))
        register(Model("c"))

    registry = Registry({"three": Plugin(three)})
    assert ids(registry) == ["a", "c"]
    assert registry.plugin_problems() == [
        ("three", "registered the class Model: register an instance, register(Model())"),
        ("three", "model b: batch_size must be a whole number of at least 1, or None, not 0"),
    ]


def test_a_plugin_without_the_hook_or_with_a_misspelt_one_is_told() -> None:
    class Misspelt:
        @hookimpl
        def register_embedding_model(self, register: Any) -> None:
            register(Model("a"))

    class WrongArgument:
        @hookimpl
        def register_embedding_models(self, registrar: Any) -> None:
            registrar(Model("a"))

    registry = Registry({"empty": object(), "misspelt": Misspelt(), "argument": WrongArgument()})
    problems = dict(registry.plugin_problems())
    assert problems["empty"] == "has no function register_embedding_models that is marked with @embedq.hookimpl"
    assert problems["misspelt"].startswith("implements the hook register_embedding_model, which embedq has not")
    assert "registrar" in problems["argument"]
    assert registry.get_embedding_models() == []


def test_a_plugin_that_asks_for_a_model_while_it_registers_gets_an_error_and_no_deadlock() -> None:
    registry = Registry({"eager": Plugin(lambda _: registry.get_embedding_model("a")), "one": registering("a")})
    assert ids(registry) == ["a"]
    assert registry.plugin_problems() == [
        ("eager", "ModelError: models can't be looked up while plugins register theirs")
    ]


def test_plugins_are_loaded_with_the_first_question_and_once_for_all_threads() -> None:
    calls: list[str] = []
    together = threading.Barrier(8)

    def slow(register: Any) -> None:
        calls.append("loaded")
        register(Model("a"))

    registry = Registry({"slow": Plugin(slow)})
    assert calls == []

    def ask(_: int) -> EmbeddingModel:
        together.wait(timeout=BOUND_SECONDS)
        return registry.get_embedding_model("a")

    with ThreadPoolExecutor(8) as threads:
        models = list(threads.map(ask, range(8)))
    assert calls == ["loaded"]
    assert len({id(model) for model in models}) == 1


def test_reset_forgets_what_was_loaded() -> None:
    calls: list[str] = []
    registry = Registry({"one": Plugin(lambda _: calls.append("loaded"))})
    registry.get_embedding_models()
    registry.reset()
    registry.get_embedding_models()
    assert calls == ["loaded", "loaded"]


def test_importing_the_package_and_looking_a_model_up_leaves_numpy_alone(
    run_python: Callable[[str], str],
) -> None:
    output = run_python(
        "import sys, embedq_plugins\n"
        "light = 'numpy' not in sys.modules and 'importlib.metadata' not in sys.modules\n"
        "names = [embedq_plugins.get_embedding_model('hash').model_id]\n"
        "print(light, 'numpy' not in sys.modules, 'hashing' in names)\n"
    )
    assert output.split() == ["True", "True", "True"], sys.path


def slow_to_load(plugin: Plugin, loaded: list[str]) -> Callable[[], list[Candidate]]:
    """A plugin that says in `loaded` when it is."""

    def load() -> Plugin:
        loaded.append("late")
        return plugin

    return lambda: [Candidate("late", load)]


def test_plugins_that_take_long_are_loaded_for_names_that_no_other_has_and_once() -> None:
    loaded: list[str] = []
    registry = Registry({"one": registering("a", "x")}, later=slow_to_load(registering("b", "y"), loaded))
    assert (registry.get_embedding_model("a"), registry.get_embedding_model("X")) == (
        registry.get_embedding_model("x"),
    ) * 2
    assert registry.plugin_problems() == []
    assert loaded == []
    assert registry.get_embedding_model("Y").model_id == "b"
    assert ids(registry) == ["a", "b"]
    assert [entry.plugin for entry in registry.get_embedding_models_with_aliases()] == ["one", "late"]
    with pytest.raises(UnknownModel):
        registry.get_embedding_model("z")
    assert loaded == ["late"]
    registry.reset()
    assert ids(registry) == ["a", "b"]
    assert loaded == ["late", "late"]


def test_plugins_that_take_long_can_take_no_name_that_another_has() -> None:
    def late(register: Any) -> None:
        register(Model("a"), aliases=("elsewhere",))
        register(Model("x"))
        register(Model("b"), aliases=("x", "y"))

    registry = Registry({"one": registering("a", "x")}, later=slow_to_load(Plugin(late), []))
    before = registry.get_embedding_model("x")
    assert [(entry.model.model_id, entry.aliases) for entry in registry.get_embedding_models_with_aliases()] == [
        ("a", ("x",)),
        ("b", ("y",)),
    ]
    assert registry.get_embedding_model("x") is before
    assert registry.plugin_problems() == []


def test_what_is_wrong_with_a_plugin_that_takes_long_is_said_once_it_is_loaded() -> None:
    registry = Registry({"one": registering("a")}, later=slow_to_load(raising(ValueError("no")), []))
    assert registry.plugin_problems() == []
    assert ids(registry) == ["a"]
    assert registry.plugin_problems() == [("late", "ValueError: no")]
