"""What `similar` does: find the query's vector, search, print."""

import asyncio
import sys
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from embedq.asking import ended_by_ctrl_c
from embedq_core.errors import UsageError
from embedq_core.items import json_text
from embedq_core.model import explained
from embedq_core.settings import Settings, load_settings
from embedq_core.text import shown, shown_lines
from embedq_core.vectors import Vector
from embedq_plugins import get_embedding_model, require_library
from embedq_store import CollectionInfo, Entry, Store, Where, query_vectors, steadily, where_given


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What is asked for, as it was given. One of `id`, `content` and `input` says what to compare with."""

    collection: str
    id: str | None
    content: str | None
    input: Path | None
    binary: bool
    number: int
    prefix: str
    where: tuple[str, ...] = ()
    ann: bool = False
    group: bool = False


def run_similar(request: SearchRequest, *, plain: bool, as_json: bool = False, database: Path | None) -> None:
    """Search and print. Raises UsageError, CollectionMissing, EntryMissing, DatabaseMissing, UnknownModel."""
    given = [value for value in (request.id, request.content, request.input) if value is not None]
    if len(given) != 1:
        raise UsageError("say what to compare with, in one way: an ID, -c TEXT or -i FILE")
    if request.binary and request.input is None:
        raise UsageError("--binary is for -i FILE")
    settings = load_settings(database=database)
    where = where_given(request.where)
    print_entries(asyncio.run(_search(request, where, settings)), plain=plain, as_json=as_json)


async def _search(request: SearchRequest, where: Where, settings: Settings) -> list[Entry]:
    async with await Store.open(settings.database, read_only=True, search_bytes=settings.search_bytes) as store:
        await store.collection(request.collection)  # if it isn't there, nothing need be read
        content = None
        if request.id is None:
            content = (
                request.content if request.content is not None else read_value(request.input, binary=request.binary)
            )
            if not content:
                raise UsageError("there is nothing to compare with: the value is empty")

        async def search(found: CollectionInfo) -> list[Entry]:
            vector = await _vector(store, found, request.id, content)
            return await _nearest(store, found, vector, request, where)

        return await steadily(store, lambda: store.collection(request.collection), search)


async def _vector(store: Store, found: CollectionInfo, id_: str | None, content: str | bytes | None) -> Vector:
    """The vector of the entry, or else of the content."""
    if id_ is not None:
        return await store.vector(found.id, id_)
    assert content is not None  # noqa: S101 - one of both is given
    model = get_embedding_model(found.model_id)
    require_library(model)
    with explained(model):
        vectors = await query_vectors(store, found.id, found.name, model, [content])
    return cast("Vector", vectors[0])


async def _nearest(
    store: Store, collection: CollectionInfo, vector: Vector, request: SearchRequest, where: Where
) -> list[Entry]:
    entries = await store.search.similar(
        collection.id,
        vector,
        request.number,
        skip_id=request.id,
        prefix=request.prefix,
        where=where,
        ann=request.ann,
        group=request.group,
    )
    if request.ann:
        say_why_exact(store, collection)
    return entries


def say_why_exact(store: Store, collection: CollectionInfo) -> None:
    """Say on stderr why an approximate search was exact, where it was and need not be."""
    why = store.search.why_exact(collection.id)
    if why is not None:
        print(f"{shown(collection.name)} was searched exactly: {why}", file=sys.stderr)


def read_value(path: Path | None, *, binary: bool) -> str | bytes:
    """A value from a file, or from standard input for None and '-'. Raises UsageError, naming the file."""
    name = "standard input" if path is None or str(path) == "-" else str(path)
    try:
        with ended_by_ctrl_c():
            data = sys.stdin.buffer.read() if name == "standard input" else Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"{shown(name)}: can't be read: {error.strerror}") from error
    if binary:
        return data
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{shown(name)}: is not text in UTF-8; use --binary for a model that takes bytes") from error


def print_entries(entries: list[Entry], *, plain: bool, as_json: bool) -> None:
    """Print results: a line of JSON each, an array of all, or text to read."""
    if as_json:
        print(json_text([asdict(entry) for entry in entries]))
        return
    for entry in entries:
        if not plain:
            print(json_text(asdict(entry)))
            continue
        print(f"{shown(entry.id)} ({entry.score:.4f})\n")
        if entry.content:
            print(textwrap.indent(shown_lines(entry.content), "  "))
        if entry.metadata:
            print(textwrap.indent(json_text(entry.metadata), "  "))
        print()
