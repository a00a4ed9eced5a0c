"""Some nights of a company, by a clock that the test moves: a folder is embedded each night, and a model is exchanged.

What schedules run are real commands; somebody searches all the while.
"""

import asyncio
import contextlib
import functools
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import embedq_store
import embedq_worker.reembedding
import embedq_worker.scheduled
import embedq_worker.scheduler
from embedq_core.settings import Settings
from embedq_core.vectors import cosine_similarity
from embedq_jobs import Queue, RunSummary
from embedq_store import Entry, Store
from embedq_worker.service import ServiceOptions
from support.chunks import install
from support.clocks import MovedClock
from support.command_line import TESTS, CommandLine, python_path
from support.models import RecordingModel, vector_of
from support.waiting import BOUND_SECONDS, Eventually
from support.working import worker

QUESTION = "what is it all about"
OLD, NEW = "recording", "recording-wide"
DIMENSIONS = {OLD: 8, NEW: 16}


def models() -> dict[str, RecordingModel]:
    return {name: RecordingModel(name, dimension=dimension) for name, dimension in DIMENSIONS.items()}


class Folder:
    """The documents of the company, and what the collection should hold of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.texts: dict[str, str] = {}

    def write(self, name: str, text: str) -> None:
        self.texts[name] = text
        (self.path / name).parent.mkdir(exist_ok=True, parents=True)
        (self.path / name).write_text(text)

    def remove(self, name: str) -> None:
        del self.texts[name]
        (self.path / name).unlink()


@dataclass
class Reader:
    """Searches again and again, with a collection that was opened once. Notes which models have answered, and asserts
    that no answer is a mix of two, or empty.
    """

    database: Path
    answered: list[str] = field(default_factory=list)
    problem: BaseException | None = None
    searches: int = 0

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self._read, args=[stop])
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(BOUND_SECONDS)
        assert not thread.is_alive()
        if self.problem is not None:
            raise self.problem

    def _read(self, stop: threading.Event) -> None:
        own = models()

        class Asynchronous(embedq_store.AsyncCollection):
            @classmethod
            def resolve_model(cls, name: str) -> RecordingModel:
                return own[name]

        class Synchronous(embedq_store.Collection):
            asynchronous = Asynchronous

        try:
            with contextlib.closing(Synchronous("docs", self.database, create=False)) as docs:
                # A pause lets the others work: what is seen is the same.
                while not stop.wait(0.005):
                    self._note(docs.similar(QUESTION, number=100))
        except BaseException as error:
            self.problem = error

    def _note(self, entries: list[Entry]) -> None:
        self.searches += 1
        assert entries, "an empty collection was answered"
        made_by = {_maker(entry) for entry in entries}
        assert len(made_by) == 1, f"one answer of several models: {made_by}"
        (model_id,) = made_by
        if self.answered[-1:] != [model_id]:
            self.answered.append(model_id)


def _maker(entry: Entry) -> str:
    """Whose vectors, of the query and of the entry, have this score."""
    assert entry.content is not None
    assert entry.score is not None
    (found,) = [
        name for name, dimension in DIMENSIONS.items() if abs(_score(entry.content, dimension) - entry.score) < 1e-6
    ]
    return found


@functools.cache
def _score(content: str, dimension: int) -> float:
    return cosine_similarity(vector_of(QUESTION, dimension), vector_of(content, dimension))


@dataclass
class Company:
    """Its command line, its worker's clock, its folder."""

    embedq: CommandLine
    clock: MovedClock
    folder: Folder
    queue: Queue
    eventually: Eventually
    models: Mapping[str, RecordingModel]

    def paid(self) -> tuple[int, int]:
        """Texts that the old model was given, and the new one."""
        return self.models[OLD].inputs, self.models[NEW].inputs

    def command(self, *arguments: str) -> Any:
        """What a command answers with --json."""
        return json.loads(self.embedq(*arguments, "--json").out)

    async def asked(self, *arguments: str) -> Any:
        return await asyncio.to_thread(self.command, *arguments)

    async def night(self, name: str = "nightly") -> tuple[dict[str, Any], RunSummary]:
        """Move the clock to the minute at which a schedule is due; what its command came to, and the run it made."""
        shown = await self.due(name)
        (run,) = shown["attempts"][0]["runs"]
        return shown, await self.settled(run)

    async def due(self, name: str) -> dict[str, Any]:
        """Move the clock to the minute at which a schedule is due, and wait until its command is done."""
        before = await self.asked("schedule", "show", name)
        self.clock.now = before["due"] + 1
        async with await Store.open(self.embedq.database) as store:
            schedule = await store.schedules.get(name)

            async def is_done() -> bool:
                attempts = await store.schedules.attempts(schedule.key, 100)
                return len(attempts) > len(before["attempts"]) and attempts[0].ended is not None

            await self.eventually(is_done)
        shown = await self.asked("schedule", "show", name)
        assert shown["attempts"][0]["state"] == "done", shown
        assert isinstance(shown, dict)
        return shown

    async def settled(self, run: str) -> RunSummary:
        async def look() -> bool:
            return (await self.queue.runs.summary(run)).settled

        await self.eventually(look)
        return await self.queue.runs.summary(run)

    async def holds(self, model: str, *, store: Store) -> None:
        """Wait until the collection holds just the folder, each text with the vector that `model` makes of it."""
        expected = {name: tuple(vector_of(text, DIMENSIONS[model])) for name, text in self.folder.texts.items()}
        await self.eventually(_holding(store, expected))


def _holding(store: Store, expected: Mapping[str, tuple[float, ...]]) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        found = await store.collection("docs")
        if await store.count(found.id) != len(expected) or not await store.vectors(found.id, list(expected)):
            return False
        held = await store.vectors(found.id, list(expected))
        return {name: tuple(vector.tolist()) for name, vector in held.items()} == expected

    return look


@pytest.fixture
def company(
    embedq: CommandLine,
    queue: Queue,
    redis_url: str,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> Company:
    """A worker's environment, which its commands inherit, and an operator's, which is the same."""
    environment = {
        "EMBEDQ_REDIS_URL": redis_url,
        "EMBEDQ_MODEL": OLD,
        "EMBEDQ_PLUGINS": str(TESTS / "support" / "plugin.py"),
        "PYTHONPATH": python_path(),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
        embedq.environment[name] = value
    monkeypatch.setattr(embedq_worker.scheduler, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(embedq_worker.scheduled, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(embedq_worker.reembedding, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(embedq_worker.reembedding, "IDLE_SECONDS", 0.02)
    folder = Folder(embedq.directory / "docs")
    for number in range(8):
        folder.write(f"part-{number % 2}/{number}.md", f"what is written in document {number}")
    company = Company(embedq, MovedClock.at(time.time()), folder, queue, eventually, models())
    install(monkeypatch, *company.models.values())
    return company


async def test_a_folder_is_kept_night_by_night_and_gets_another_model_while_somebody_searches(
    company: Company, settings: Settings
) -> None:
    embedq, folder = company.embedq, company.folder
    settings = replace(settings, database=embedq.database)
    add = ("schedule", "add", "nightly", "0 3 * * *", "--timezone", "Europe/Berlin")
    embedq(*add, "--", "submit", "docs", "--files", "./docs", "**/*.md", "--prune", "--yes")
    async with (
        await Store.open(embedq.database) as store,
        worker(settings, ServiceOptions(schedules=True, clock=company.clock, lease_seconds=1)),
    ):
        # The first night: all of it.
        _, run = await company.night()
        assert (run.state, run.counts.embedded, run.items) == ("complete", 8, 8)
        await company.holds(OLD, store=store)
        reader = Reader(embedq.database)
        with reader.reading():
            # A file was changed: that one.
            folder.write("part-1/1.md", "what is written there since Tuesday")
            _, run = await company.night()
            assert (run.counts.embedded, run.counts.unchanged) == (1, 7)
            await company.holds(OLD, store=store)
            # A file was removed: so is its entry, and nothing is paid for.
            folder.remove("part-0/2.md")
            shown, run = await company.night()
            assert (run.counts.inputs, run.counts.unchanged) == (0, 7)
            assert "pruned 1 entry that the source no longer has" in shown["attempts"][0]["output"]
            await company.holds(OLD, store=store)
            assert (company.paid(), reader.answered) == ((9, 0), [OLD])
            # Another model, by a schedule too, if it finds what it should.
            golden = embedq.directory / "golden.jsonl"
            golden.write_text(json.dumps({"query": folder.texts["part-1/1.md"], "expected": ["part-1/1.md"]}))
            upgrade = ("reembed", "docs", "-m", NEW, "--golden", "golden.jsonl")
            embedq("schedule", "add", "upgrade", "0 4 * * *", "--timezone", "Europe/Berlin", "--", *upgrade)
            await company.night("upgrade")
            await company.holds(NEW, store=store)
            # The night after, it has that model, and what is to be done each night is done.
            (attempt, *_) = (await company.due("upgrade"))["attempts"]
            assert (attempt["runs"], "docs is embedded with recording-wide already" in attempt["output"]) == ([], True)
            await company.asked("schedule", "remove", "upgrade", "--yes")
            # The next night goes on with that model, and finds one file to do.
            folder.write("part-1/3.md", "what is written there since Thursday")
            _, run = await company.night()
            assert (run.run.model_id, run.counts.embedded, run.counts.unchanged) == (NEW, 1, 6)
            await company.holds(NEW, store=store)
            # With one golden query each.
            assert company.paid() == (9 + 1, 8 + 1)
            # Back: the old vectors, and what came since is embedded with the old model.
            await company.asked("collections", "rollback", "docs", "--yes")
            await company.holds(OLD, store=store)
        assert reader.searches > 10
        assert reader.answered == [OLD, NEW, OLD]
        assert company.paid() == (10 + 1, 8 + 1)
        (roles,) = [row for row in company.command("reembed", "--list") if row["collection"] == "docs"]
        assert roles["state"] == "rolled back"
