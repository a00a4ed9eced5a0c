from dataclasses import fields
from pathlib import Path

import pytest

from embedq_core.errors import SettingsError
from embedq_core.settings import ENV_PREFIX, Settings, default_model_file, load_settings, settings_file

PASSWORD = "correct-horse"  # noqa: S105 - what must never be shown
URL = f"redis://someone:{PASSWORD}@redis.example:6379/0"

SAMPLES: dict[str, tuple[str, object]] = {
    "redis_url": (URL, URL),
    "database": ("/data/vectors.db", Path("/data/vectors.db")),
    "model": ("hashing", "hashing"),
    "queue": ("mine", "mine"),
    "queue_bytes": ("7", 7),
    "inflight_bytes": ("8", 8),
    "search_bytes": ("9", 9),
    "chunk_items": ("9", 9),
    "chunk_bytes": ("10", 10),
    "item_bytes": ("11", 11),
    "busy_seconds": ("0.5", 0.5),
    "patience_seconds": ("1.5", 1.5),
    "log_level": ("debug", "debug"),
    "log_format": ("json", "json"),
    "metrics_port": ("9464", 9464),
    "metrics_host": ("0.0.0.0", "0.0.0.0"),  # noqa: S104 - nobody listens there
}


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "settings.toml"
    monkeypatch.setenv("EMBEDQ_SETTINGS", str(file))
    return file


def test_without_any_setting_the_defaults_hold() -> None:
    settings = load_settings()
    assert settings == Settings()
    assert settings.redis_url is None
    assert settings.database.name == "embeddings.db"
    assert settings.database.is_absolute()


def test_every_setting_has_a_sample_here() -> None:
    assert set(SAMPLES) == {field.name for field in fields(Settings)}


def test_a_table_that_means_nothing_is_named(toml: Path) -> None:
    toml.write_text('[models.bge]\nkind = "http"\n[embedq]\n')
    load_settings()
    toml.write_text('[model.bge]\nkind = "http"\n')
    with pytest.raises(
        SettingsError, match=r"settings.toml: 'model' means nothing there: .* models in \[models.NAME\]"
    ):
        load_settings()


@pytest.mark.parametrize("name", SAMPLES)
def test_every_setting_is_read_from_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = SAMPLES[name]
    monkeypatch.setenv(ENV_PREFIX + name.upper(), text)
    assert getattr(load_settings(), name) == value


@pytest.mark.parametrize("name", SAMPLES)
def test_every_setting_is_read_from_the_file(name: str, toml: Path) -> None:
    text, value = SAMPLES[name]
    quoted = text if isinstance(value, int | float) else f'"{text}"'
    toml.write_text(f"[embedq]\n{name} = {quoted}\n")
    assert getattr(load_settings(), name) == value


@pytest.mark.parametrize("name", SAMPLES)
def test_an_empty_variable_is_an_unset_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_PREFIX + name.upper(), "")
    assert load_settings() == Settings()


def test_arguments_win_over_variables_and_variables_over_the_file(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text('[embedq]\nmodel = "file"\nqueue = "file"\nlog_level = "error"\n')
    monkeypatch.setenv("EMBEDQ_MODEL", "variable")
    monkeypatch.setenv("EMBEDQ_QUEUE", "variable")
    settings = load_settings(model="argument", queue=None)
    assert (settings.model, settings.queue, settings.log_level) == ("argument", "variable", "error")


def test_the_settings_file_and_the_default_model_stand_in_one_folder(toml: Path) -> None:
    assert settings_file() == toml
    assert default_model_file().parent == toml.parent


def test_without_a_variable_the_file_is_in_the_users_configuration(tmp_path: Path) -> None:
    assert settings_file().is_relative_to(tmp_path)
    assert settings_file().name == "settings.toml"


def refusal() -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert PASSWORD not in message
    assert PASSWORD not in repr(caught.value)
    assert caught.value.exit_code == 2
    return message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("QUEUE_BYTES", "many", "EMBEDQ_QUEUE_BYTES must be a whole number, not 'many'"),
        ("QUEUE_BYTES", "1.5", "EMBEDQ_QUEUE_BYTES must be a whole number, not '1.5'"),
        ("QUEUE_BYTES", "0", "EMBEDQ_QUEUE_BYTES must be at least 1, not 0"),
        ("INFLIGHT_BYTES", "-1", "EMBEDQ_INFLIGHT_BYTES must be at least 1, not -1"),
        ("CHUNK_ITEMS", "0", "EMBEDQ_CHUNK_ITEMS must be at least 1, not 0"),
        ("CHUNK_BYTES", "0", "EMBEDQ_CHUNK_BYTES must be at least 1, not 0"),
        ("ITEM_BYTES", "0", "EMBEDQ_ITEM_BYTES must be at least 1, not 0"),
        ("BUSY_SECONDS", "soon", "EMBEDQ_BUSY_SECONDS must be a number, not 'soon'"),
        ("BUSY_SECONDS", "-1", "EMBEDQ_BUSY_SECONDS must be a number of seconds, 0 or more, not -1.0"),
        ("BUSY_SECONDS", "nan", "EMBEDQ_BUSY_SECONDS must be a number of seconds, 0 or more, not nan"),
        ("LOG_LEVEL", "loud", "EMBEDQ_LOG_LEVEL must be debug, info, warning or error, not 'loud'"),
        ("LOG_FORMAT", "xml", "EMBEDQ_LOG_FORMAT must be text or json, not 'xml'"),
        ("METRICS_PORT", "many", "EMBEDQ_METRICS_PORT must be a whole number, not 'many'"),
        ("METRICS_PORT", "65536", "EMBEDQ_METRICS_PORT must be a port, from 0 to 65535, not 65536"),
        ("QUEUE", "two words", "EMBEDQ_QUEUE must be a name without white space"),
    ],
)
def test_a_value_that_cant_be_used_is_told_with_its_variable(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_PREFIX + name, value)
    monkeypatch.setenv("EMBEDQ_REDIS_URL", URL)
    assert refusal() == message


def test_all_values_that_cant_be_used_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDQ_QUEUE_BYTES", "x")
    monkeypatch.setenv("EMBEDQ_CHUNK_ITEMS", "y")
    message = refusal()
    assert "EMBEDQ_QUEUE_BYTES must be" in message
    assert "EMBEDQ_CHUNK_ITEMS must be" in message


def test_a_value_in_the_file_is_told_with_its_name_and_the_file(toml: Path) -> None:
    toml.write_text(f'[embedq]\nredis_url = "{URL}"\nqueue_bytes = "many"\n')
    assert refusal() == f"queue_bytes in {toml} must be a whole number, not 'many'"


def test_a_setting_that_there_is_not_is_told_with_the_file(toml: Path) -> None:
    toml.write_text("[embedq]\nqueue_byte = 5\n")
    message = refusal()
    assert "queue_byte" in message
    assert str(toml) in message


def test_a_file_that_is_no_toml_is_told_with_its_name_and_the_line(toml: Path) -> None:
    toml.write_text(f'[embedq]\nredis_url = "{URL}\n')
    message = refusal()
    assert message.startswith(f"{toml}: ")
    assert "line 2" in message


def test_the_password_is_in_no_text_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDQ_REDIS_URL", URL)
    settings = load_settings()
    for text in (repr(settings), str(settings), f"{settings}", f"{settings!r}"):
        assert PASSWORD not in text
    # The value itself is what the connection needs.
    assert settings.redis_url == URL


def test_settings_cant_be_changed_by_mistake() -> None:
    with pytest.raises(AttributeError):
        load_settings().queue = "other"  # type: ignore[misc]


def test_a_settings_file_that_is_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDQ_SETTINGS", str(tmp_path / "missing.toml"))
    with pytest.raises(SettingsError, match=r"EMBEDQ_SETTINGS names a file that is not there: .*missing\.toml"):
        load_settings()


def test_the_database_may_be_below_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDQ_DATABASE", "~/vectors.db")
    assert load_settings().database == Path.home() / "vectors.db"


def test_a_database_of_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDQ_DATABASE", "~nobody-of-this-name/vectors.db")
    with pytest.raises(SettingsError, match=r"^~nobody-of-this-name/vectors.db can't be the database: could not "):
        load_settings()


def test_a_link_to_itself_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").symlink_to("x.db")
    with pytest.raises(SettingsError, match=r"x.db can't be the database: too many levels of symbolic links$"):
        load_settings(database=tmp_path / "x.db")


def test_a_settings_file_that_is_no_text_or_no_file_is_told(toml: Path) -> None:
    toml.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"settings.toml: is not text in UTF-8$"):
        load_settings()
    toml.unlink()
    toml.mkdir()
    with pytest.raises(SettingsError, match=r"settings.toml: can't be read: is a directory$"):
        load_settings()


def test_a_path_that_is_no_text_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"/\\udcff.db can't be the database: its path holds a lone surrogate"):
        load_settings(database=tmp_path / "\udcff.db")
