"""`collections import`: a file of entries with their vectors into a collection; read twice, checked before written."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from embedq.transfer.entry_files import EntryFile
from embedq.transfer.forms import form_of, opened
from embedq_core.collection_names import check_collection_name
from embedq_core.configuration import Configuration, check_writing
from embedq_core.digests import content_hash
from embedq_core.errors import BadVectors, ModelMismatch, NoModel, SourceError, UsageError
from embedq_core.items import unstorable
from embedq_core.settings import Settings, load_settings
from embedq_core.text import plural, shown
from embedq_core.vectors import STORED_DTYPE
from embedq_plugins import get_embedding_model
from embedq_producer.source_ids import RepeatedIds
from embedq_producer.terminal import Display, Figures, display
from embedq_store import Selection, Store, StoredEntry, Target

# Of a transaction.
_ROWS: Final = 8192
_BYTES: Final = 32 << 20
# What SQLite can store.
_ENDS_OF_TIME: Final = 2**63


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What the options of one command line ask for. `collection` None: the name that the file says."""

    file: str
    collection: str
    format: str | None
    model: str | None
    replace: bool
    database: Path | None


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file came to: entries that were new, that took the place of others, and that were there already."""

    collection: str
    model_id: str
    new: int
    replaced: int
    same: int

    def as_object(self) -> dict[str, object]:
        """For JSON."""
        return {
            "collection": self.collection,
            "model": self.model_id,
            "imported": self.new,
            "replaced": self.replaced,
            "unchanged": self.same,
        }


def import_file(request: ImportRequest) -> Imported:
    """Check the whole file, then write it. Raises UsageError, SourceError, ModelMismatch, BadVectors … before anything
    is written.
    """
    check_collection_name(request.collection)
    settings = load_settings(database=request.database)
    with opened(request.file, form_of(request.file, request.format), settings.database.parent) as file:
        return asyncio.run(_import(request, file, settings))


async def _import(request: ImportRequest, file: EntryFile, settings: Settings) -> Imported:
    name = request.collection
    async with await Store.open(settings.database, busy_seconds=settings.busy_seconds) as store:
        target = await _target(request, file, store)
        with display(f"import of {name}") as shows:
            entries, different = await _checked(file, target, store, shows)
            if different and not request.replace:
                raise UsageError(
                    f"{shown(name)!r} has {plural(different, 'entry', 'entries')} of the file's ids with another "
                    "content, metadata or vector: say --replace, or import into another collection. Nothing was changed"
                )
            new = replaced = 0
            done = 0
            async for group in _groups(file):
                written = await store.transfer.write(target, group, replace=request.replace)
                new, replaced, done = new + written[0], replaced + written[1], done + len(group)
                shows.show(Figures(done, 0.5 + done / max(entries, 1) / 2))
        if not entries:
            await store.create_collection(name, target.model_id)
        await store.dead.delete_stored(Selection(collection=name))
        return Imported(name, target.model_id, new, replaced, entries - new - replaced)


async def _target(request: ImportRequest, file: EntryFile, store: Store) -> Target:
    """The collection, with the model that it has or that the file says. Raises ModelMismatch, NoModel."""
    name = request.collection
    said = None if file.head is None else file.head.model
    asked = get_embedding_model(request.model).model_id if request.model else None
    found = await store.find_collection(name)
    for model_id in (asked, None if found is None else found.model_id):
        if None not in (said, model_id) and model_id != said:
            whose = "the collection has" if model_id != asked else "-m names"
            raise ModelMismatch(
                f"the vectors in {file.name} were made with {said}, and {whose} {model_id}: "
                "vectors of two models can't be compared; import into another collection"
            )
    if found is not None and asked not in (None, found.model_id):
        raise ModelMismatch(f"the collection {name!r} was embedded with {found.model_id}, not with {asked}")
    model_id = said or (found.model_id if found is not None else asked)
    if model_id is None:
        raise NoModel(f"{file.name} doesn't say which model its vectors are of: name it with -m")
    configuration: Configuration | None = None if file.head is None else file.head.configuration
    if found is not None and configuration is not None:
        recorded = await store.configuration(found.id)
        if recorded is not None:
            check_writing(name, model_id, recorded, configuration)
    return Target(name, model_id, configuration)


async def _checked(file: EntryFile, target: Target, store: Store, shows: Display) -> tuple[int, int]:
    """Read all and check it: how many entries there are, and how many of them are different from those stored."""
    dimension = await store.dimension(target.collection)
    entries = different = 0
    with closing(RepeatedIds()) as ids:
        async for page in _pages(file):
            for place, entry in enumerate(page):
                problem = _problem(entry)
                if problem is not None:
                    raise SourceError(f"entry {entries + place + 1:,} of the file, {shown(entry.id)!r}: {problem}")
                dimension = dimension or len(entry.vector) // 4
                if len(entry.vector) != dimension * 4:
                    raise BadVectors(
                        f"{shown(entry.id)!r} has a vector of {len(entry.vector) // 4} dimensions, where others have "
                        f"{dimension}: nothing was imported"
                    )
            _check_finite(page)
            await asyncio.to_thread(ids.note, [entry.id for entry in page])
            different += len((await store.transfer.compare(target.collection, page)).different)
            entries += len(page)
            share = file.share
            shows.show(Figures(entries, None if share is None else share / 2, "checking"))
        repeated = await asyncio.to_thread(ids.count)
    said = None if file.head is None else file.head.entries
    if file.piped and said is not None and entries < said:
        raise SourceError(
            f"{file.name} ended after {entries:,} of {plural(said, 'entry', 'entries')}: nothing was imported. If the "
            "others were left out on purpose, put it into a file and name that"
        )
    if repeated:
        raise SourceError(f"the file has {plural(repeated, 'id')} more than once: leave one entry of each")
    return entries, different


def _problem(entry: StoredEntry) -> str | None:
    """What keeps an entry from being stored; None where nothing does."""
    if not entry.id or unstorable(entry.id):
        return "the id is empty, or can't be stored"
    if not entry.vector or len(entry.vector) % 4:
        return "the vector is empty, or isn't made of 32-bit floats"
    if entry.content is not None and entry.digest is not None and entry.digest != content_hash(entry.content):
        return "the hash is that of another content"
    if entry.updated is not None and not abs(entry.updated) < _ENDS_OF_TIME:
        return "its time can't be stored"
    return None


def _check_finite(page: Sequence[StoredEntry]) -> None:
    """Raise BadVectors for a vector that holds NaN or infinity."""
    if np.isfinite(np.frombuffer(b"".join([entry.vector for entry in page]), dtype=STORED_DTYPE)).all():
        return
    for entry in page:
        if not np.isfinite(np.frombuffer(entry.vector, dtype=STORED_DTYPE)).all():
            raise BadVectors(f"the vector of {shown(entry.id)!r} holds NaN or infinity: nothing was imported")


async def _groups(file: EntryFile) -> AsyncIterator[list[StoredEntry]]:
    """The entries in groups, for a transaction each."""
    group: list[StoredEntry] = []
    size = 0
    async for page in _pages(file):
        group += page
        size += sum(entry.size for entry in page)
        if len(group) >= _ROWS or size >= _BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


async def _pages(file: EntryFile) -> AsyncIterator[list[StoredEntry]]:
    """The entries, read in a thread; contents without a hash get theirs."""
    pages = file.pages()
    while (page := await asyncio.to_thread(next, pages, None)) is not None:
        yield [
            entry._replace(digest=content_hash(entry.content))
            if entry.digest is None and entry.content is not None
            else entry
            for entry in page
        ]
