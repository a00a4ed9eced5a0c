"""Auditing a collection: whether its rows are what they should be, and the model still says what it said.

A dimension check can't see a model that has changed behind its name, as one behind a remote API may. So a random sample
is embedded anew and compared with what is stored.
"""

import asyncio
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from embedq.audit.report import Compared, Repair, Report, Trial, as_object, as_words
from embedq.tables import print_fields
from embedq_core.configuration import differences
from embedq_core.errors import UnknownModel, UsageError
from embedq_core.items import Item
from embedq_core.model import embed_all, explained
from embedq_core.settings import Settings, load_settings
from embedq_core.text import plural, shown
from embedq_core.vectors import cosine_similarity, decode
from embedq_jobs import Queue, open_queue
from embedq_plugins import EmbeddingModel, get_embedding_model, require_library
from embedq_producer.submission import Submission, new_submission, submit
from embedq_producer.submitting import stop_on_interrupt, watch
from embedq_producer.summary import EXIT_DEAD, EXIT_DONE, EXIT_INTERRUPTED, print_submitted
from embedq_producer.terminal import Figures, display
from embedq_store import Sampled, Store
from embedq_store.auditing import BEFORE_ALL

_SEEDS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class AuditRequest:
    """What the command line asks for."""

    collection: str
    sample: int
    seed: int | None
    repair: bool
    json: bool
    database: Path | None


def run_audit(request: AuditRequest) -> None:
    """Audit, print what was found, repair if asked to.

    Exits with 0 where all is well, or all that was wrong is queued; with 1 where something is, or stays, wrong; with
    130 when a repair was interrupted. Raises CollectionMissing, DatabaseMissing, ModelError, UsageError.
    """
    sys.exit(asyncio.run(_audit(request)))


async def _audit(request: AuditRequest) -> int:
    settings = load_settings(database=request.database)
    async with await Store.open(
        settings.database, read_only=not request.repair, must_exist=True, busy_seconds=settings.busy_seconds
    ) as store:
        if request.repair:
            await _check_in_use(request.collection, store)
        report = await examine(store, request.collection, request.sample, request.seed)
        if not request.repair or report.well:
            _print(report, None, as_json=request.json)
            if request.repair and not request.json:
                print("nothing to repair", file=sys.stderr)
            return EXIT_DONE if report.well else EXIT_DEAD
        if report.as_a_whole is not None:
            _print(report, None, as_json=request.json)
            print(f"embedq: not repaired: {report.as_a_whole}", file=sys.stderr)
            return EXIT_DEAD
        if not request.json:
            _print(report, None, as_json=False)
        # A Redis that is away is found before anything is changed.
        async with open_queue(settings) as queue:
            return await _repair(report, store, queue, settings, as_json=request.json)


async def _check_in_use(collection: str, store: Store) -> None:
    """Raise UsageError for vectors beside a collection: what is queued for them is dropped, or goes to that."""
    role = (await store.reembeddings.roles()).get(collection)
    if role is not None:
        raise UsageError(
            f"--repair is for vectors in use: {shown(collection)!r} stands beside {shown(role.collection)!r}, whose "
            "contents it has. Audit it without"
        )


async def examine(store: Store, collection: str, size: int, seed: int | None) -> Report:
    """Look at every row, and try the model on a random sample of `size`. Raises CollectionMissing, ModelError."""
    info = await store.collection(collection)
    seed = random.randrange(_SEEDS) if seed is None else seed  # noqa: S311 - it picks a sample
    model, problem = _model(info.model_id)
    recorded = await store.configuration(info.id)
    found = [] if model is None or recorded is None else differences(recorded, model.configuration)
    # With another configuration all would differ, which is known, and costs nothing.
    tried = None if found or not size else model
    if tried is not None:
        # What is missing is said before a long look at the rows.
        require_library(tried)
        tried.check_setup()
    entries = await store.count(info.id)
    with display(f"audit of {info.name}") as shows:

        def told(done: int) -> None:
            shows.show(Figures.of(done, entries))

        findings = await store.audits.findings(info.id, sample=0 if tried is None else size, seed=seed, told=told)
    trial = None
    if tried is not None and findings.sample:
        trial = await asyncio.to_thread(_try, tried, findings.sample, seed)
    return Report(info.name, info.model_id, findings, found, problem, trial)


def _model(model_id: str) -> tuple[EmbeddingModel | None, str | None]:
    try:
        return get_embedding_model(model_id), None
    except UnknownModel as error:
        return None, str(error)


def _try(model: EmbeddingModel, sample: Sequence[Sampled], seed: int) -> Trial:
    """Embed a sample anew, and compare."""
    fitting = [entry for entry in sample if model.unsupported(entry.content) is None]
    with explained(model):
        matrix = embed_all(model, [entry.content for entry in fitting], model.batch_size).matrix
    compared = [
        Compared(entry.id, similarity(decode(entry.vector), row.tolist()), entry.digest)
        for entry, row in zip(fitting, matrix, strict=True)
    ]
    return Trial(seed, matrix.shape[1], sorted(compared, key=lambda entry: (entry.similarity, entry.id)))


def similarity(stored: Sequence[float], present: Sequence[float]) -> float:
    """The cosine of two vectors; 0 where their dimensions differ, 1 for two of zeros, which are equal."""
    if len(stored) != len(present):
        return 0.0
    if not any(stored) and not any(present):
        return 1.0
    return cosine_similarity(stored, present)


async def _repair(report: Report, store: Store, queue: Queue, settings: Settings, *, as_json: bool) -> int:
    """Clear what is wrong, and queue all that is cleared and has content: also what was left by a repair that died."""
    collection = (await store.collection(report.collection)).id
    digests = [entry.digest for entry in report.drifted]
    cleared = await store.audits.clear(collection, report.findings.dimension or 0, digests)
    submission = new_submission(report.collection, report.model_id, f"audit {report.collection}")
    rows = _Cleared(store, collection, await store.audits.last_rowid(), settings)
    stop = stop_on_interrupt()
    if report.wrong > report.without_content:
        with display(report.collection) as shown_on:
            sending = asyncio.create_task(
                submit(submission, rows, queue, settings, store=True, stop=stop.is_set, mends=True)
            )
            await watch(sending, shown_on, lambda: Figures(submission.items, None))
    repair = Repair(
        submission.run.id if submission.items else None,
        cleared,
        submission.items,
        report.without_content,
        rows.rejected,
    )
    if as_json:
        _print(report, repair, as_json=True)
    else:
        _tell(repair, submission, interrupted=stop.is_set())
    if stop.is_set():
        return EXIT_INTERRUPTED
    return EXIT_DEAD if repair.without_content or repair.unreadable else EXIT_DONE


def _tell(repair: Repair, submission: Submission, *, interrupted: bool) -> None:
    if repair.run is not None:
        print_submitted(submission, as_json=False, interrupted=interrupted)
    if interrupted:
        print("what was not queued is found again by the next audit", file=sys.stderr)
    if repair.without_content:
        print(
            f"{plural(repair.without_content, 'entry', 'entries')} had no content to embed anew: submit the source "
            "again",
            file=sys.stderr,
        )
    if repair.unreadable:
        print(
            f"{plural(repair.unreadable, 'entry', 'entries')} can't be read, being no UTF-8: submit the source again",
            file=sys.stderr,
        )


class _Cleared:
    """The cleared rows of a collection that have content, a chunk at a time: those that there are now."""

    def __init__(self, store: Store, collection: int, last: int, settings: Settings) -> None:
        self.rejected = 0
        self._store = store
        self._collection = collection
        self._last = last
        self._settings = settings
        self._loop = asyncio.get_running_loop()

    def before_waiting(self, wait: object) -> None:
        """There is no pipe to wait for."""

    def __iter__(self) -> Iterator[Item]:
        after: int | None = BEFORE_ALL
        while after is not None:
            page = asyncio.run_coroutine_threadsafe(
                self._store.audits.cleared_page(
                    self._collection,
                    after,
                    self._last,
                    max_items=self._settings.chunk_items,
                    max_bytes=self._settings.chunk_bytes,
                ),
                self._loop,
            ).result()
            self.rejected += page.unreadable
            yield from page.items
            after = page.after


def _print(report: Report, repair: Repair | None, *, as_json: bool) -> None:
    print(json.dumps(as_object(report, repair))) if as_json else print_fields(as_words(report))
