"""What `demo` does: the standard library's docstrings in, three questions out."""

import asyncio
import json
import os
import shutil
import sys
import textwrap
import time
from dataclasses import asdict, dataclass, replace
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
from embedq_producer.summary import EXIT_INTERRUPTED, run_outcome, summary_object
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


def run_demo(database: Path | None, *, as_json: bool) -> None:
    """Run the demo. Exits with 130 if it is interrupted; running it again goes on from there.

    As JSON: the database, the run as 'runs show' has it, and each question with its answers as 'similar' has them.
    """
    file = database or platformdirs.user_data_path(APP_NAME) / "demo.db"
    # Its own queue and its own database, whatever is configured: a demo must not get in the way of real work.
    settings = replace(load_settings(database=file), redis_url=None, model=None)
    sys.exit(asyncio.run(_demo(settings, as_json=as_json)))


async def _demo(settings: Settings, *, as_json: bool) -> int:
    if not as_json:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        print(f"Embedding the documentation of Python {version}'s standard library.")
    summary = await _ingest(settings)
    if not as_json:
        _print_summary(summary)
    # What was not embedded can't answer.
    answers = await _ask(settings) if summary.complete else []
    if as_json:
        told = {"database": str(settings.database), "run": summary_object(summary)}
        print(json.dumps(told | {"questions": [answer.as_object() for answer in answers]}))
    if not summary.complete:
        print("interrupted: run it again and it goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    if not as_json:
        for answer in answers:
            answer.show()
        _print_next_steps(settings, again=not summary.counts.calls)
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


def _print_summary(summary: RunSummary) -> None:
    counts = summary.counts
    rate = counts.done / summary.seconds if summary.seconds else 0
    calls = plural(counts.calls, "model call") if counts.calls else "no model call"
    print(f"{plural(counts.done, 'document')} in {duration(summary.seconds)} ({rate:,.0f}/s): {run_outcome(summary)}")
    print(f"{calls}; run {summary.run.id}")


@dataclass(frozen=True, slots=True)
class _Answer:
    """The entries nearest to a question, of so many; found in so many seconds."""

    question: str
    seconds: float
    documents: int
    entries: list[Entry]

    def as_object(self) -> dict[str, object]:
        """For JSON."""
        results = [asdict(entry) for entry in self.entries]
        return {"question": self.question, "seconds": round(self.seconds, 6), "results": results}

    def show(self) -> None:
        """Print it, for people."""
        print(f"\n{self.question!r} ({self.seconds * 1000:.0f} ms, {self.documents:,} documents)")
        for entry in self.entries:
            text = (entry.content or "").partition(": ")[2]
            print(f"  {entry.score:.3f}  {entry.id}")
            for line in textwrap.wrap(excerpt(text, 2 * WIDTH), WIDTH - 10, max_lines=1, placeholder=" …"):
                print(f"         {line}")


async def _ask(settings: Settings) -> list[_Answer]:
    answers: list[_Answer] = []
    model = get_embedding_model(MODEL)
    async with await Store.open(settings.database, read_only=True) as store:
        found = await store.collection(COLLECTION)
        count = await store.count(found.id)
        for question in QUESTIONS:
            began = time.perf_counter()
            vector = (await asyncio.to_thread(embed_queries, model, [question]))[0]
            entries = await store.search.similar(found.id, vector, ANSWERS)
            answers.append(_Answer(question, time.perf_counter() - began, count, entries))
    return answers


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
