"""What `models default` does: show, set or forget the model for new collections where none is named."""

import json
import sys

from embedq_core.errors import SettingsError
from embedq_core.settings import default_model_file, load_settings
from embedq_core.text import shown
from embedq_plugins import get_embedding_model
from embedq_producer.models import FALLBACK_MODEL, default_model_id


def run_default(name: str | None, *, remove: bool, as_json: bool) -> None:
    """Set the default, or remove it, or do neither; and print it. Raises UnknownModel, SettingsError.

    As JSON: which model is used from now on where none is named, and whether anybody has `set` it.
    """
    chosen = None if name is None else get_embedding_model(name).model_id
    if chosen is not None or remove:
        _write(chosen)
    settings = load_settings()
    used = default_model_id(settings)
    if as_json:
        print(json.dumps({"model": used or FALLBACK_MODEL, "set": used is not None}))
    elif chosen is not None:
        print(chosen)
    elif not remove:
        print(used or f"{FALLBACK_MODEL} (built in: no default is set)")
    if settings.model and (chosen is not None or remove):
        print(f"the setting EMBEDQ_MODEL goes first: {shown(settings.model)}", file=sys.stderr)


def _write(model_id: str | None) -> None:
    file = default_model_file()
    try:
        if model_id is None:
            file.unlink(missing_ok=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(model_id + "\n", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from error
