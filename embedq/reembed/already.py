"""A collection that has the model already: nothing is to be done, which is no mistake: a schedule asks each night."""

import json
import sys

from embedq_core.collection_names import base_name
from embedq_core.text import shown
from embedq_plugins import EmbeddingModel
from embedq_store import CollectionInfo, Store

UNCHANGED = "unchanged"


async def has_it_already(found: CollectionInfo, model: EmbeddingModel, store: Store) -> bool:
    """Whether a collection has this model, and is to keep it: one that is being embedded anew is another matter."""
    if found.model_id != model.model_id or base_name(found.name) is not None:
        return False
    latest = await store.reembeddings.get(found.name)
    return latest is None or not latest.open


async def say_so(found: CollectionInfo, store: Store, *, as_json: bool, queueing: bool) -> None:
    """Print that nothing is to be done. Where a run's id would be printed (`queueing`), to stderr: there is no run."""
    kept = await store.reembeddings.kept(found.name)
    name = shown(found.name)
    message = f"{name} is embedded with {found.model_id} already: nothing to do; --force embeds all of it again"
    if as_json:
        print(json.dumps(_object(found, message)))
        return
    print(message, file=sys.stderr if queueing else sys.stdout)
    if kept is not None and kept.state == "switched":
        print(
            f"the vectors of {kept.old_model} are kept: 'embedq collections drop-old {name}' drops them",
            file=sys.stderr,
        )


def _object(found: CollectionInfo, message: str) -> dict[str, object]:
    """With the names that a re-embedding has in JSON."""
    nothing = dict.fromkeys(("run", "started", "switched", "recall", "share", "seconds_left", "coverage"))
    return {
        "collection": found.name,
        "state": UNCHANGED,
        "message": message,
        "old_model": found.model_id,
        "model": found.model_id,
        **nothing,
        "golden": False,
        "drop_old": False,
    }
