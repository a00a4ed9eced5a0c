"""docs/http.md against the code: the table of options, and the settings file that it shows."""

import ast
import inspect
import re
from pathlib import Path

import msgspec

from embedq_plugins import Registry, http
from embedq_plugins.http.options import HttpOptions, OpenAIOptions
from embedq_plugins.kinds import configured_in

PAGE = (Path(__file__).parents[3] / "docs" / "http.md").read_text()


def test_the_table_of_options_is_that_of_the_program() -> None:
    (definition,) = ast.parse(inspect.getsource(HttpOptions)).body
    assert isinstance(definition, ast.ClassDef)
    said: dict[str, str] = {}
    for statement, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            assert isinstance(after, ast.Expr), f"{statement.target.id} has no docstring"
            assert isinstance(after.value, ast.Constant)
            said[statement.target.id] = str(after.value.value)
    rows = ["| Option | Default | Meaning |", "|---|---|---|"]
    for field in msgspec.structs.fields(HttpOptions):
        # Of a default that is made for each, there are only empty ones.
        default = "needed" if field.required else "empty" if field.default in ("", msgspec.NODEFAULT) else field.default
        shown = {None: "none", "needed": "needed", "empty": "empty"}.get(default, f"`{default!s}`")
        rows.append(f"| `{field.name}` | {shown.replace('False', 'false')} | {said[field.name]} |")
    assert "\n".join(rows) + "\n" in PAGE


def test_the_other_defaults_of_openai_s_are_named() -> None:
    for name in ("base_url", "key_env", "batch_size", "batch_tokens", "max_input_tokens"):
        (value,) = [field.default for field in msgspec.structs.fields(OpenAIOptions) if field.name == name]
        assert (f"{value:,}" if isinstance(value, int) else f"`{value}`") in PAGE


def test_the_settings_file_that_it_shows_is_one_that_is_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "settings.toml"
    file.write_text(text)
    registry = Registry({"http": http}, configured=lambda: configured_in(file))
    assert registry.plugin_problems() == []
    assert [model.model_id for model in registry.get_embedding_models()] == ["bge", "small"]
    assert registry.get_embedding_model("b").concurrency == 8
