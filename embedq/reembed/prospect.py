"""What a re-embedding would come to, before it begins."""

import asyncio
import json
import time
from dataclasses import asdict

from embedq_core.settings import Settings
from embedq_core.text import plural, shown
from embedq_plugins import EmbeddingModel
from embedq_store import CollectionInfo, Reembedding, Store


async def dry_run(
    found: CollectionInfo, model: EmbeddingModel, store: Store, settings: Settings, *, as_json: bool
) -> int:
    """Say what a re-embedding would come to; 1 where it could not begin, as contents are missing.

    Nothing is written, nothing queued, and no model called.
    """
    prospect = await _prospect(found, model, store)
    coverage = await store.reembeddings.coverage(prospect)
    totals = dict.fromkeys(("characters", "bytes", "tokens"), 0)
    after: str | None = None
    while items := await store.reembeddings.missing(
        prospect, after, max_items=settings.chunk_items, max_bytes=settings.chunk_bytes
    ):
        after = items[-1].id
        contents = [item.content for item in items]
        totals["characters"] += sum(len(content) for content in contents if isinstance(content, str))
        totals["bytes"] += sum(len(content) for content in contents if isinstance(content, bytes))
        totals["tokens"] += await asyncio.to_thread(lambda some: sum(map(model.count_tokens, some)), contents)
    missing = coverage.without_content
    if as_json:
        figures = asdict(coverage) | totals | {"tokens_estimated": model.estimates_tokens}
        print(json.dumps({"collection": found.name, "old_model": found.model_id, "model": model.model_id} | figures))
        return int(missing > 0)
    name, entries = shown(found.name), plural(coverage.entries, "entry", "entries")
    print(f"{name}: {entries}, embedded with {found.model_id}; {coverage.missing:,} to embed with {model.model_id}")
    binary = f", {plural(totals['bytes'], 'byte')} of binary content" if totals["bytes"] else ""
    about = "about " if model.estimates_tokens else ""
    print(
        f"{totals['characters']:,} characters{binary}, {about}{plural(totals['tokens'], 'token')}; nothing was queued"
    )
    if missing:
        count = plural(missing, "entry", "entries")
        print(f"the contents of {count} were not stored: submit the source again with --store, which costs nothing")
    return int(missing > 0)


async def _prospect(found: CollectionInfo, model: EmbeddingModel, store: Store) -> Reembedding:
    """The re-embedding as it is, or as it would be: with the vectors that a rollback has kept."""
    current = await store.reembeddings.get(found.name)
    if current is not None and current.open and current.new_model == model.model_id:
        return current
    kept = await store.reembeddings.kept(found.name)
    # No collection has this key.
    shadow = -1
    if kept is not None and (kept.state, kept.new_model) == ("rolled back", model.model_id):
        shadow = kept.shadow
    now = time.time()
    return Reembedding(
        key=0,
        collection=found.name,
        source=found.id,
        shadow=shadow,
        old_model=found.model_id,
        new_model=model.model_id,
        golden=None,
        recall=None,
        drop_old=False,
        run=None,
        state="embedding",
        message=None,
        started=now,
        switched=None,
    )
