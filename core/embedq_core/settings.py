"""Settings: from the environment (`EMBEDQ_*`), then a settings file, then the defaults below."""

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

import platformdirs
import typed_settings as ts
import typed_settings.exceptions
import typed_settings.loaders

from embedq_core.errors import SettingsError

APP_NAME: Final = "embedq"
ENV_PREFIX: Final = "EMBEDQ_"
MIB: Final = 1024 * 1024
_POSITIVE: Final = ("queue_bytes", "inflight_bytes", "chunk_items", "chunk_bytes", "item_bytes")


@dataclass(frozen=True)
class Settings:
    """Everything that can be configured. Field `x_y` is read from the environment variable `EMBEDQ_X_Y`."""

    redis_url: ts.SecretStr | None = None
    """Redis to use: redis://, rediss:// or unix://. None: a private one beside the database."""

    database: Path = field(default_factory=lambda: platformdirs.user_data_path(APP_NAME) / "embeddings.db")
    """SQLite file that holds the vectors."""

    model: str | None = None
    """Model for new collections where none is named."""

    queue: str = APP_NAME
    """Prefix of all keys in Redis; the queue of a model is QUEUE:MODEL."""

    queue_bytes: int = 64 * MIB
    """Bytes of queued chunks of one model at which producers hold back."""

    inflight_bytes: int = 64 * MIB
    """Bytes of chunks that one worker process takes in hand at a time, for each model."""

    chunk_items: int = 2048
    """Items in a chunk, at most."""

    chunk_bytes: int = 4 * MIB
    """Bytes of content in a chunk, about, at most; a single larger item is a chunk of its own."""

    item_bytes: int = 64 * MIB
    """Bytes of content and metadata of one item, at most: larger ones are reported and skipped."""

    busy_seconds: float = 30.0
    """Seconds to wait for another program that is writing to the database."""

    log_level: str = "info"
    """debug, info, warning or error."""

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise SettingsError(f"{ENV_PREFIX}{name.upper()} must be at least 1, not {getattr(self, name)}")
        if self.log_level.lower() not in ("debug", "info", "warning", "error"):
            raise SettingsError(f"{ENV_PREFIX}LOG_LEVEL must be debug, info, warning or error")
        if not self.queue or any(character.isspace() for character in self.queue):
            raise SettingsError(f"{ENV_PREFIX}QUEUE must be a name without white space")


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
    # An empty variable is an unset one: `EMBEDQ_REDIS_URL= embedq …` is how people switch a setting off.
    variables = {field.name: os.environ.get(ENV_PREFIX + field.name.upper()) for field in fields(Settings)}
    loaders: list[ts.loaders.Loader] = [
        ts.FileLoader({"*.toml": ts.TomlFormat(APP_NAME)}, files=[settings_file()]),
        ts.loaders.DictLoader({name: value for name, value in variables.items() if value}),
        ts.loaders.DictLoader({name: value for name, value in overrides.items() if value is not None}),
    ]
    try:
        return ts.load_settings(Settings, loaders=loaders)
    except ts.exceptions.TsError as error:
        causes = [str(cause) for cause in error.exceptions] if isinstance(error, ExceptionGroup) else [str(error)]
        raise SettingsError("; ".join(" ".join(cause.split()) for cause in causes)) from error
