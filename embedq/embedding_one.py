"""What `embed` does: one value, embedded here, printed or kept."""

import asyncio
import base64
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedq.search.searching import read_value
from embedq_core.collection_names import check_collection_name
from embedq_core.errors import UsageError
from embedq_core.model import explained
from embedq_core.settings import Settings, load_settings
from embedq_core.vectors import encode
from embedq_plugins import get_embedding_model, require_library
from embedq_producer.models import FALLBACK_MODEL, choose_model, default_model_id
from embedq_store import Store, checked_item, embed_into


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """What is asked for, as it was given."""

    collection: str | None
    id: str | None
    content: str | None
    input: Path | None
    binary: bool
    metadata: str | None
    store: bool
    format: str | None
    model: str | None


def run_embed(request: EmbedRequest, *, database: Path | None) -> None:
    """Embed and print or keep. Raises UsageError, UnknownModel, ModelMismatch, StoreError."""
    if request.collection is not None and request.id is None:
        raise UsageError("a collection needs an ID to keep the vector under")
    if request.content is not None and request.input is not None:
        raise UsageError("give the value in one way: -c TEXT or -i FILE")
    if request.binary and request.content is not None:
        raise UsageError("--binary is for -i FILE and standard input")
    if request.collection is not None:
        check_collection_name(request.collection)
    if request.metadata is not None and request.collection is None:
        raise UsageError("--metadata is kept in a collection: name one")
    metadata = _metadata(request.metadata)
    value = request.content if request.content is not None else read_value(request.input, binary=request.binary)
    if not value:
        raise UsageError("there is nothing to embed: the value is empty")
    settings = load_settings(database=database)
    if request.collection is None:
        model = get_embedding_model(request.model or default_model_id(settings) or FALLBACK_MODEL)
        require_library(model)
        with explained(model):
            vector = model.embed(value)
        _print_vector(vector, request.format or "json")
        return
    vector = asyncio.run(_keep(request, value, metadata, settings))
    if request.format is not None:
        _print_vector(vector, request.format)


def _metadata(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--metadata is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError('--metadata must be an object, such as \'{"source": "here"}\'')
    return value


async def _keep(
    request: EmbedRequest, value: str | bytes, metadata: dict[str, Any] | None, settings: Settings
) -> list[float]:
    name, entry_id = request.collection or "", request.id or ""
    model = await choose_model(name, request.model, settings, None)
    require_library(model)
    item = checked_item(entry_id, value, metadata)
    # Not through a collection object, which would make the collection before the model has been seen to work.
    async with await Store.open(settings.database, busy_seconds=settings.busy_seconds) as store:
        with explained(model):
            await embed_into(store, name, model, [item], store=request.store)
        return list(await store.vector((await store.collection(name)).id, entry_id))


def _print_vector(vector: list[float], form: str) -> None:
    match form:
        case "json":
            print(json.dumps(vector))
        case "base64":
            print(base64.b64encode(encode(vector)).decode())
        case "hex":
            print(encode(vector).hex())
        case _:
            sys.stdout.buffer.write(encode(vector))
            sys.stdout.buffer.flush()
