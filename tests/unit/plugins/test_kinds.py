"""Models that are made by name, or as the settings file describes them; and the two forms of a text."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import pytest

from embedq_core.errors import SettingsError, UnknownModel
from embedq_core.model import embed_all, embed_queries
from embedq_plugins import EmbeddingModel, ModelKind, Registry, hookimpl, read_options
from embedq_plugins.hookspecs import RegisterKind
from embedq_plugins.kinds import configured_in


class Options(msgspec.Struct):
    model: str
    size: int = 2
    document_prefix: str = ""
    query_prefix: str = ""


class Lengths(EmbeddingModel):
    """A text's vector is its length, so that a prefix can be seen in it."""

    supports_binary = True

    def __init__(self, model_id: str, options: Options) -> None:
        self.model_id = model_id
        self.options = options
        self.document_prefix, self.query_prefix = options.document_prefix, options.query_prefix

    def embed_batch(self, items: Iterable[str | bytes]) -> list[list[float]]:
        return [[float(len(item))] * self.options.size for item in items]


class LengthsKind(ModelKind):
    name = "len"

    def make(self, model_id: str, options: Mapping[str, object]) -> EmbeddingModel:
        return Lengths(model_id, read_options(options, Options))


class Plugin:
    @hookimpl
    def register_model_kinds(self, register: RegisterKind) -> None:
        register(LengthsKind())


def registry(tmp_path: Path, settings: str) -> Registry:
    file = tmp_path / "settings.toml"
    file.write_text(settings)
    return Registry({"lengths": Plugin()}, configured=lambda: configured_in(file))


def test_a_name_with_a_kind_makes_a_model_once() -> None:
    models = Registry({"lengths": Plugin()})
    made = models.get_embedding_model("len:/models/x")
    assert isinstance(made, Lengths)
    assert (made.model_id, made.options.model) == ("len:/models/x", "/models/x")
    assert models.get_embedding_model("len:/models/x") is made
    assert models.get_embedding_models() == []
    assert [kind.name for kind in models.model_kinds()] == ["len"]


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (KeyError("size"), "len:x: KeyError: 'size'"),
        (7, "len:x: registered int, which is no EmbeddingModel: extend that class"),
    ],
)
def test_a_kind_that_makes_no_model_of_a_name_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch, made: object, problem: str
) -> None:
    def make(*_: object) -> object:
        if isinstance(made, Exception):
            raise made
        return made

    monkeypatch.setattr(LengthsKind, "make", make)
    with pytest.raises(SettingsError) as caught:
        Registry({"lengths": Plugin()}).get_embedding_model("len:x")
    assert str(caught.value) == problem


@pytest.mark.parametrize("name", ["len:", "other:x", "len", "len:x\n"])
def test_a_name_that_no_kind_makes_is_unknown(name: str) -> None:
    with pytest.raises(UnknownModel, match="there is no model"):
        Registry({"lengths": Plugin()}).get_embedding_model(name)


def test_the_settings_file_describes_models_with_aliases(tmp_path: Path) -> None:
    models = registry(tmp_path, '[models.notes]\nkind = "len"\nmodel = "m"\nsize = 3\naliases = ["n"]\n')
    model = models.get_embedding_model("n")
    assert isinstance(model, Lengths)
    assert (model.model_id, model.options.size) == ("notes", 3)
    assert [(entry.aliases, entry.plugin) for entry in models.get_embedding_models_with_aliases()] == [
        (("n",), "settings")
    ]
    assert models.plugin_problems() == []


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('model = "m"', 'has no kind: set kind = "st", say'),
        ('kind = "none"\nmodel = "m"', "there is no kind 'none'; there are len"),
        ('kind = "len"', "Object missing required field `model`"),
        ('kind = "len"\nmodel = "m"\nsise = 3', "there is no option 'sise'"),
        ('kind = "len"\nmodel = "m"\nsize = "secret"', "Expected `int`, got `str` - at `$.size`"),
        ('kind = "len"\nmodel = "m"\naliases = "x"', "aliases must be a list"),
        ('kind = "len"\nmodel = "m"\naliases = [3]', "an alias must be a str"),
    ],
)
def test_a_description_that_is_wrong_is_a_problem_and_costs_no_other_model(
    tmp_path: Path, table: str, message: str
) -> None:
    models = registry(tmp_path, f'[models.bad]\n{table}\n[models.good]\nkind = "len"\nmodel = "m"\n')
    assert "good" in [model.model_id for model in models.get_embedding_models()]
    (problem,) = models.plugin_problems()
    assert problem.plugin == "settings"
    assert message in problem.message
    assert "bad" in problem.message
    assert "secret" not in problem.message


def test_who_asks_for_a_model_that_is_described_wrongly_is_told_why(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel) as caught:
        registry(tmp_path, '[models.bad]\nkind = "len"\nmodel = "m"\nsise = 3\n').get_embedding_model("bad")
    assert str(caught.value) == (
        "there is no model 'bad': in the settings file, [models.bad]: there is no option 'sise'. Did you mean 'size'?"
    )


def test_a_settings_file_that_is_no_toml_is_a_problem(tmp_path: Path) -> None:
    (problem,) = registry(tmp_path, "[models").plugin_problems()
    assert "settings.toml" in problem.message


def test_no_settings_file_describes_no_model(tmp_path: Path) -> None:
    assert list(configured_in(tmp_path / "missing.toml")) == []


def test_a_kind_can_say_that_options_are_wrong() -> None:
    with pytest.raises(SettingsError, match="no option 'x'"):
        read_options({"model": "m", "x": 1}, Options)


def test_documents_and_queries_are_embedded_in_their_own_forms() -> None:
    model = Lengths("m", Options("m", document_prefix="passage: ", query_prefix="q: "))
    assert embed_all(model, ["four", b"four"]).matrix[:, 0].tolist() == [13.0, 4.0]
    assert embed_queries(model, ["four", b"four"])[:, 0].tolist() == [7.0, 4.0]
    assert model.embed("four") == [13.0, 13.0]
    assert list(model.embed_multi(["four"])) == [[13.0, 13.0]]
    assert model.configuration == {"document_prefix": "passage: ", "query_prefix": "q: "}
    assert Lengths("m", Options("m")).configuration == {}
