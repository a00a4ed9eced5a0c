"""What `demo` does: the standard library's docstrings in, three questions out."""

import asyncio
import os
import shutil
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import platformdirs

from embedq.docstrings import DocstringSource
from embedq.ingesting import first_of, ingest_run, working
from embedq_core.model import embed_queries
from embedq_core.settings import APP_NAME, Settings, load_settings
from embedq_core.text import excerpt, plural
from embedq_jobs import Patience, RunSummary, open_queue
from embedq_plugins import get_embedding_model
from embedq_producer.models import full_batch
from embedq_producer.readers import Reader, RowOptions
from embedq_producer.submission import new_submission
from embedq_producer.submitting import stop_on_interrupt
from embedq_producer.summary import EXIT_INTERRUPTED, run_outcome
from embedq_producer.terminal import RowReport, display, duration
from embedq_store import Entry, Store

COLLECTION: Final = "stdlib"
MODEL: Final = "hashing"
QUESTIONS: Final = (
    "parse a date from text",
    "read lines from a compressed file",
    "run a command and capture its output",
)
ANSWERS: Final = 4
WIDTH: Final = 76


def run_demo(database: Path | None) -> None:
    """Run the demo. Exits with 130 if it is interrupted; running it again goes on from there."""
    file = database or platformdirs.user_data_path(APP_NAME) / "demo.db"
    # Its own queue and its own database, whatever is configured: a demo must not get in the way of real work.
    settings = replace(load_settings(database=file), redis_url=None, model=None)
    sys.exit(asyncio.run(_demo(settings)))


async def _demo(settings: Settings) -> int:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    print(f"Embedding the documentation of Python {version}'s standard library.")
    summary = await _ingest(settings)
    counts = summary.counts
    rate = counts.done / summary.seconds if summary.seconds else 0
    calls = plural(counts.calls, "model call") if counts.calls else "no model call"
    print(f"{plural(counts.done, 'document')} in {duration(summary.seconds)} ({rate:,.0f}/s): {run_outcome(summary)}")
    print(f"{calls}; run {summary.run.id}")
    if not summary.complete:
        print("interrupted: run it again and it goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    await _ask(settings)
    _print_next_steps(settings, again=not counts.calls)
    return 0


async def _ingest(settings: Settings) -> RunSummary:
    report = RowReport()
    reader = await asyncio.to_thread(Reader, [DocstringSource()], RowOptions(), report)
    async with open_queue(settings) as queue:
        stop = stop_on_interrupt()
        submission = new_submission(
            COLLECTION, MODEL, reader.describe(), batch_size=full_batch(get_embedding_model(MODEL))
        )
        with display(COLLECTION) as shown_on:
            report.display = shown_on
            async with working(settings, queue, shown_on, stop) as serving:
                watching = asyncio.create_task(
                    ingest_run(
                        submission,
                        reader,
                        queue,
                        settings,
                        store=True,
                        stop=stop,
                        shown_on=shown_on,
                        # The worker says what there is to say.
                        patience=Patience(settings.patience_seconds, lambda _: None, stop.is_set),
                    )
                )
                return await first_of(watching, serving, stop)


async def _ask(settings: Settings) -> None:
    model = get_embedding_model(MODEL)
    async with await Store.open(settings.database, read_only=True) as store:
        found = await store.collection(COLLECTION)
        count = await store.count(found.id)
        for question in QUESTIONS:
            began = time.perf_counter()
            vector = (await asyncio.to_thread(embed_queries, model, [question]))[0]
            entries = await store.search.similar(found.id, vector, ANSWERS)
            took = (time.perf_counter() - began) * 1000
            print(f"\n{question!r} ({took:.0f} ms, {count:,} documents)")
            for entry in entries:
                _print_answer(entry)


def _print_answer(entry: Entry) -> None:
    text = (entry.content or "").partition(": ")[2]
    lines = textwrap.wrap(excerpt(text, 2 * WIDTH), WIDTH - 10, max_lines=1, placeholder=" …")
    print(f"  {entry.score:.3f}  {entry.id}")
    for line in lines:
        print(f"         {line}")


def _print_next_steps(settings: Settings, *, again: bool) -> None:
    option = f"-d {settings.database}"
    print(f"\nThe vectors are in {settings.database}")
    print("The built-in model compares words, not meanings: plugins bring others.\n")
    print("Next:")
    program = _program()
    print(f"  {program} similar {COLLECTION} -c 'your question' --plain -n 3 {option}")
    if not again:
        print(f"  {program} demo                      # again: nothing has changed, no model is called")
    print(f"  {program} ingest notes --files . '**/*.md'")
    print(f"  {program} --help")


def _program() -> str:
    """What to type to run this program: its name, or its path where the name is not on the PATH."""
    if shutil.which(APP_NAME) is not None:
        return APP_NAME
    path = Path(sys.argv[0])
    return os.path.relpath(path) if path.name == APP_NAME else f"{sys.executable} -m {APP_NAME}"
