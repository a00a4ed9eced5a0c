"""What `collections index` does: build the index of a collection here and now, and show how far it is."""

import asyncio
import json
import time
from pathlib import Path

from embedq_core.errors import StoreError
from embedq_core.settings import Settings, load_settings
from embedq_core.text import plural, shown
from embedq_producer.terminal import Display, Figures, display, duration
from embedq_store import Built, Store


def run_index(collection: str, database: Path | None, *, as_json: bool) -> None:
    """Build, and print what came of it. Raises CollectionMissing, DatabaseMissing, UsageError, StoreError."""
    settings = load_settings(database=database)
    began = time.monotonic()
    with display(f"index of {collection}") as shows:
        try:
            built, count = asyncio.run(_build(collection, settings, shows))
        except OSError as error:
            raise StoreError(f"the index of {shown(collection)} can't be written: {error}") from error
    if built not in (Built.DONE, Built.SMALL):
        raise StoreError(
            f"{shown(collection)} has no files for searching beside the database to index: make its folder writable, "
            "or submit something to it, if another program made it"
        )
    seconds = time.monotonic() - began
    entries = plural(count, "entry", "entries")
    if as_json:
        indexed = built is Built.DONE
        told = {"collection": collection, "entries": count, "indexed": indexed, "seconds": round(seconds, 3)}
        print(json.dumps(told))
    elif built is Built.DONE:
        print(f"indexed {shown(collection)}: {entries}, in {duration(seconds)}")
    else:
        print(f"{shown(collection)} needs no index: {entries} can be searched exactly in a moment")


async def _build(collection: str, settings: Settings, shows: Display) -> tuple[Built, int]:
    def tell(done: int, rows: int) -> None:
        shows.show(Figures(done, done / rows))

    async with await Store.open(settings.database, read_only=True, search_bytes=settings.search_bytes) as store:
        found = await store.collection(collection)
        return await store.search.build_index(found.id, tell), await store.count(found.id)
