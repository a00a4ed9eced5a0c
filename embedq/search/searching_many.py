"""What `similar --batch` does: embed a file of queries, search for all of them at once, print a line for each."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from threading import Event

from embedq.search.searching import say_why_exact
from embedq_core.errors import ModelError, ModelMismatch, ModelUnavailable, RowError, StoreError, UsageError
from embedq_core.items import Item, json_text
from embedq_core.model import embed_queries, query_count
from embedq_core.settings import Settings, load_settings
from embedq_core.text import plural, shown
from embedq_core.vectors import Matrix
from embedq_plugins import EmbeddingModel, get_embedding_model, require_library
from embedq_producer.readers import FORMATS, LINES, QuerySource, Reader, RowOptions
from embedq_producer.reading import waiting_until, woken_by_ctrl_c
from embedq_producer.terminal import RowReport
from embedq_store import CollectionInfo, Entry, Store, Where, is_whole, query_vectors, steadily, where_given


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What is asked for, as it was given."""

    collection: str
    file: Path
    format: str | None
    number: int
    prefix: str
    where: tuple[str, ...]
    ann: bool = False
    group: bool = False


def run_similar_batch(request: BatchRequest, *, database: Path | None, as_json: bool = False) -> None:
    """Search, print, exit with 0, or with 1 where no query could be read.

    Lines are printed as they come. An array is printed when all is known: half of one would be no JSON.

    Raises UsageError, SourceError, CollectionMissing, DatabaseMissing, UnknownModel, ModelError.
    """
    if request.format is not None and request.format not in (*FORMATS, LINES):
        raise UsageError(f"there is no format {request.format!r}: there are {', '.join((*FORMATS, LINES))}")
    settings = load_settings(database=database)
    report = RowReport()
    path = None if str(request.file) == "-" else request.file
    reader = Reader([QuerySource(path, request.format)], RowOptions(item_bytes=settings.item_bytes), report)
    answers: list[str] = []
    tell = answers.append if as_json else print
    found = asyncio.run(_search(request, where_given(request.where), settings, reader, report, tell))
    if as_json:
        print(f"[{', '.join(answers)}]")
    if report.count:
        print(f"{plural(report.count, 'query', 'queries')} skipped: see above", file=sys.stderr)
    sys.exit(bool(report.count and not found))


async def _search(
    request: BatchRequest,
    where: Where,
    settings: Settings,
    reader: Reader,
    report: RowReport,
    tell: Callable[[str], None],
) -> int:
    """Tell the answers, as JSON, as they come; return how many."""
    count, ended = 0, Event()
    woken_by_ctrl_c()
    reader.before_waiting(waiting_until(ended.is_set))
    async with await Store.open(settings.database, read_only=True, search_bytes=settings.search_bytes) as store:
        found = await store.collection(request.collection)
        model = get_embedding_model(found.model_id)
        require_library(model)
        queries = _accepted(reader, model, report)

        async def search(now: CollectionInfo) -> list[list[Entry]]:
            vectors = await _embedded(store, now, get_embedding_model(now.model_id), some, reader.describe())
            return await store.search.similar_many(
                now.id,
                vectors,
                request.number,
                prefix=request.prefix,
                where=where,
                ann=request.ann,
                group=request.group,
            )

        async def resolve() -> CollectionInfo:
            # All are answered by one model, unless its vectors are removed meanwhile.
            nonlocal found
            if not await is_whole(store, found):
                found = await store.collection(request.collection)
            return found

        try:
            while some := await asyncio.to_thread(list, islice(queries, query_count(model))):
                answers = await steadily(store, resolve, search)
                if request.ann and not count:
                    say_why_exact(store, found)
                for query, entries in zip(some, answers, strict=True):
                    tell(json_text({"query": query.id, "results": [asdict(entry) for entry in entries]}))
                count += len(some)
                sys.stdout.flush()
        finally:
            # Ctrl-C leaves the thread that reads: it must not wait for a pipe for ever.
            ended.set()
    return count


async def _embedded(
    store: Store, collection: CollectionInfo, model: EmbeddingModel, queries: Sequence[Item], source: str
) -> Matrix:
    """The vectors of the queries. Raises ModelError, naming the one that the model fails on.

    Raises what can be no query's fault as it is: ModelMismatch, ModelUnavailable, StoreError.
    """
    try:
        return await query_vectors(store, collection.id, collection.name, model, [query.content for query in queries])
    except (ModelMismatch, ModelUnavailable, StoreError):
        raise
    except Exception as error:
        first, last = (shown(query.id) for query in (queries[0], queries[-1]))
        culprit = await asyncio.to_thread(_failing, model, queries)
        which = f"one of the queries {first} to {last}" if culprit is None else f"query {shown(culprit.id)}"
        raise ModelError(
            f"{source}, {which}: {model.model_id} fails: {type(error).__name__}: {shown(str(error))}"
        ) from error


def _failing(model: EmbeddingModel, queries: Sequence[Item]) -> Item | None:
    """The first of them that the model fails on alone, as halving finds it; None where it does so no more."""
    while len(queries) > 1:
        half = queries[: len(queries) // 2]
        queries = half if _fails(model, half) else queries[len(half) :]
    return queries[0] if _fails(model, queries) else None


def _fails(model: EmbeddingModel, queries: Sequence[Item]) -> bool:
    try:
        embed_queries(model, [query.content for query in queries])
    except Exception:
        return True
    return False


def _accepted(reader: Reader, model: EmbeddingModel, report: RowReport) -> Iterator[Item]:
    for item in reader:
        problem = model.unsupported(item.content)
        if problem is None:
            yield item
        else:
            report(RowError(f"{reader.describe()}, id {item.id!r}", problem))
