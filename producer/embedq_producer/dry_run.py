"""What a submission would come to, without submitting it."""

import asyncio
import json

from embedq_core.errors import DatabaseMissing
from embedq_core.settings import Settings
from embedq_core.text import plural, shown
from embedq_producer.chunks import cut
from embedq_producer.corpus import open_corpus, split
from embedq_producer.corpus_options import CorpusRequest
from embedq_producer.models import check_binary, choose_model
from embedq_producer.pruning import Pruning
from embedq_producer.terminal import RowReport
from embedq_store import Incoming, Known, Store, decide


async def dry_run(request: CorpusRequest, settings: Settings, pruning: Pruning | None = None) -> int:
    """Read everything, ask the database, say what would happen. Nothing is queued and no model is called."""
    report = RowReport()
    reader = await asyncio.to_thread(open_corpus, request, settings, report)
    model = await choose_model(request.collection, request.model, settings, None)
    check_binary(model, request)
    split(reader, request, model)
    if pruning is not None:
        pruning.watch(reader)
    totals = dict.fromkeys(("items", "new", "changed", "reused", "unchanged", "duplicates", "characters", "bytes"), 0)
    try:
        store = await Store.open(settings.database, read_only=True)
    except DatabaseMissing:
        store = None
    try:
        chunks = cut(reader, max_items=settings.chunk_items, max_bytes=settings.chunk_bytes)
        while (piece := await asyncio.to_thread(next, chunks, None)) is not None:
            incoming = Incoming.of(piece.items)
            known = Known() if store is None else await store.known(request.collection, incoming)
            plan = decide(incoming, known, store=request.store)
            contents = [incoming[index].item.content for index in plan.embedded]
            changed = sum(incoming[index].item.id in known.by_id for index in plan.embedded)
            for name, count in {
                "items": len(incoming),
                "new": len(plan.embedded) - changed,
                "changed": changed,
                "reused": len(plan.reused) + len(plan.copied),
                "unchanged": len(plan.unchanged),
                "duplicates": piece.duplicates,
                "characters": sum(len(content) for content in contents if isinstance(content, str)),
                "bytes": sum(len(content) for content in contents if isinstance(content, bytes)),
            }.items():
                totals[name] += count
        if pruning is not None and store is not None and not reader.rejected:
            totals["pruned"] = (await pruning.compare(store))[0].gone
    finally:
        if store is not None:
            await store.close()
    totals["skipped"] = reader.rejected
    if request.json:
        print(json.dumps({"collection": request.collection, "model": model.model_id, **totals}))
    else:
        print(
            f"{shown(request.collection)} ({model.model_id}): {plural(totals['items'], 'item')}: "
            f"{totals['new']:,} new, "
            f"{totals['changed']:,} changed, {totals['reused']:,} of known content, {totals['unchanged']:,} unchanged; "
            f"{plural(totals['duplicates'], 'duplicate id')}, {plural(totals['skipped'], 'row')} skipped"
        )
        binary = f" and {plural(totals['bytes'], 'byte')} of binary content" if totals["bytes"] else ""
        print(f"{totals['characters']:,} characters{binary} to embed; nothing was queued")
        if pruning is not None:
            if reader.rejected:
                print("--prune would remove nothing, since not every row could be read")
            else:
                print(f"--prune would remove {plural(totals.get('pruned', 0), 'entry', 'entries')}")
    return 0
