"""Settings: from the environment (`EMBEDQ_*`), then a settings file, then the defaults below."""

import math
import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final

import platformdirs
import typed_settings as ts
import typed_settings.converters
import typed_settings.exceptions
import typed_settings.loaders

from embedq_core.errors import SettingsError
from embedq_core.items import unstorable
from embedq_core.text import shown

APP_NAME: Final = "embedq"
ENV_PREFIX: Final = "EMBEDQ_"
MIB: Final = 1024 * 1024
MOST_PORT: Final = 65_535
_KINDS: Final = {int: "a whole number", float: "a number", int | None: "a whole number"}
# The message of a value that typed-settings can't convert.
_UNCONVERTED: Final = re.compile(r"value (.*) for option '(\w+)' from loader (\w+)")
# Tables of the settings file; what `models` may hold is known to embedq_plugins.kinds, which does without this module.
_SECTIONS: Final = frozenset({APP_NAME, "models"})
_SECONDS: Final = ("busy_seconds", "patience_seconds")
_POSITIVE: Final = ("queue_bytes", "inflight_bytes", "chunk_items", "chunk_bytes", "item_bytes", "search_bytes")


@dataclass(frozen=True)
class Settings:
    """Everything that can be configured. Field `x_y` is read from the environment variable `EMBEDQ_X_Y`."""

    redis_url: ts.SecretStr | None = None
    """Redis to use: redis://, rediss://, redis+sentinel:// or unix://. None: a private one beside the database."""

    database: Path = field(default_factory=lambda: platformdirs.user_data_path(APP_NAME) / "embeddings.db")
    """SQLite file that holds the vectors."""

    model: str | None = None
    """Model for new collections where none is named."""

    queue: str = APP_NAME
    """Prefix of all keys in Redis; the queue of a model is QUEUE:MODEL."""

    queue_bytes: int = 64 * MIB
    """Bytes of queued chunks of one model at which producers hold back; high runs may fill a quarter more."""

    inflight_bytes: int = 64 * MIB
    """Bytes of chunks that a worker process has in hand, of each model; a quarter more with both priorities."""

    chunk_items: int = 2048
    """Items in a chunk, at most."""

    chunk_bytes: int = 4 * MIB
    """Bytes of content in a chunk, about, at most; a single larger item is a chunk of its own."""

    item_bytes: int = 64 * MIB
    """Bytes of content and metadata of one item, at most: larger ones are reported and skipped."""

    search_bytes: int = 4096 * MIB
    """Bytes of a collection's vectors that a search may map at a time: larger ones are searched block by block."""

    busy_seconds: float = 30.0
    """Seconds to wait for another program that is writing to the database."""

    patience_seconds: float = 300.0
    """Seconds that producers, and those who wait for a run, wait for a Redis that went away."""

    log_level: str = "info"
    """debug, info, warning or error."""

    log_format: str = "text"
    """Form of the log lines of `embedq worker`: text, or json for programs that gather logs."""

    metrics_port: int | None = None
    """Port at which `embedq worker` serves metrics for Prometheus; 0: any that is free. None: it serves none."""

    metrics_host: str = "127.0.0.1"
    """Address at which it serves them; 0.0.0.0: to everybody who can reach this machine."""


def settings_file() -> Path:
    """The settings file: `EMBEDQ_SETTINGS`, or settings.toml in the user's configuration directory."""
    named = os.environ.get(ENV_PREFIX + "SETTINGS")
    return Path(named) if named else platformdirs.user_config_path(APP_NAME) / "settings.toml"


def default_model_file() -> Path:
    """The file in which `embedq models default` keeps its choice."""
    return settings_file().with_name("default-model.txt")


def load_settings(**overrides: object) -> Settings:
    """The settings as they stand now, `overrides` that are not None above all.

    Raises SettingsError, naming the setting, for a value or a file that can't be used.
    """
    if os.environ.get(ENV_PREFIX + "SETTINGS") and not settings_file().exists():
        raise SettingsError(f"{ENV_PREFIX}SETTINGS names a file that is not there: {settings_file()}")
    # An empty variable is an unset one: `EMBEDQ_REDIS_URL= embedq …` is how people switch a setting off.
    variables = {field.name: os.environ.get(ENV_PREFIX + field.name.upper()) for field in fields(Settings)}
    _check_file()
    loaders: list[ts.loaders.Loader] = [
        ts.FileLoader({"*.toml": ts.TomlFormat(APP_NAME)}, files=[settings_file()]),
        ts.loaders.DictLoader({name: value for name, value in variables.items() if value}),
        ts.loaders.DictLoader({name: value for name, value in overrides.items() if value is not None}),
    ]
    try:
        settings = ts.load_settings(Settings, loaders=loaders, converter=ts.converters.TSConverter(resolve_paths=False))
    except ts.exceptions.TsError as error:
        causes = error.exceptions if isinstance(error, ExceptionGroup) else [error]
        # Not 'from error': its text may hold values, and a URL has a password.
        raise SettingsError("; ".join(map(_explained, causes))) from None
    settings = replace(settings, database=_located(settings.database))
    problems = [f"{ENV_PREFIX}{name.upper()} must be {problem}" for name, problem in _problems(settings)]
    if problems:
        raise SettingsError("; ".join(problems))
    return settings


def _located(database: Path) -> Path:
    """The absolute path of the database. Raises SettingsError where there can be none."""
    try:
        path = database.expanduser().absolute()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
    except (OSError, ValueError, RuntimeError) as error:
        # No such user, a folder that may not be entered, a name that is too long, a link to itself …
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError(f"{database} can't be the database: {str(reason).lower().rstrip('.')}") from error
    # It goes into addresses and into what workers say of themselves.
    problem = unstorable(str(path))
    if problem is not None:
        raise SettingsError(f"{shown(str(path))} can't be the database: its path {problem}")
    return path


def _check_file() -> None:
    """Raise SettingsError for a file that can't be read, and for a table that means nothing, [model.x] for [models.x].

    What is no TOML typed-settings explains.
    """
    try:
        with settings_file().open("rb") as file:
            strange = tomllib.load(file).keys() - _SECTIONS
    except (FileNotFoundError, tomllib.TOMLDecodeError):
        return
    except UnicodeDecodeError as error:
        raise SettingsError(f"{settings_file()}: is not text in UTF-8") from error
    except OSError as error:
        raise SettingsError(f"{settings_file()}: can't be read: {str(error.strerror).lower()}") from error
    if strange:
        raise SettingsError(
            f"{settings_file()}: {min(strange)!r} means nothing there: "
            f"settings are in [{APP_NAME}], models in [models.NAME]"
        )


def _problems(settings: Settings) -> Iterator[tuple[str, str]]:
    for name in _POSITIVE:
        if getattr(settings, name) < 1:
            yield name, f"at least 1, not {getattr(settings, name)}"
    for name in _SECONDS:
        value = getattr(settings, name)
        if not (math.isfinite(value) and value >= 0):
            yield name, f"a number of seconds, 0 or more, not {value}"
    if settings.log_level.lower() not in ("debug", "info", "warning", "error"):
        yield "log_level", f"debug, info, warning or error, not {settings.log_level!r}"
    if settings.log_format not in ("text", "json"):
        yield "log_format", f"text or json, not {settings.log_format!r}"
    if settings.metrics_port is not None and not 0 <= settings.metrics_port <= MOST_PORT:
        yield "metrics_port", f"a port, from 0 to {MOST_PORT}, not {settings.metrics_port}"
    if not settings.queue or any(character.isspace() for character in settings.queue):
        yield "queue", "a name without white space"


def _explained(error: BaseException) -> str:
    """What typed-settings says, on one line: which setting, where it was set, what it must be."""
    unconverted = _UNCONVERTED.search(str(error))
    if unconverted is not None:
        value, name, loader = unconverted.groups()
        where = f"{name} in {settings_file()}" if loader == "FileLoader" else ENV_PREFIX + name.upper()
        kind = _KINDS.get(Settings.__annotations__[name])
        # Only a value that should have been a number is repeated: others may be secret.
        return f"{where} must be {kind}, not {value}" if kind else f"{where} can't be used: it must be text"
    message = " ".join(str(error).split())
    return f"{settings_file()}: {message}" if isinstance(error, ts.exceptions.ConfigFileLoadError) else message
