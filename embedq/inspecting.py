"""Reading a database for the commands that show it, and deleting from it."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from embedq.steer.queued import QueuedFor, queued_for
from embedq_core.configuration import Configuration, differences
from embedq_core.errors import ModelError, QueueError
from embedq_core.settings import Settings, load_settings
from embedq_core.text import shown
from embedq_producer import terminal
from embedq_store import CollectionFigures, Role, Store


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many entries have vectors as the model, set as it is here and now, would make them: all or none. None where
    nobody can tell. `problem` says why not all.
    """

    current: int | None
    problem: str | None = None

    @classmethod
    def of(cls, entries: int, model_id: str, recorded: Configuration | None) -> "Coverage":
        """The coverage of a collection of `entries`, made with `model_id` in the configuration that is recorded."""
        from embedq_plugins import get_embedding_model

        try:
            present = get_embedding_model(model_id).configuration
        except ModelError:
            return cls(None, f"there is no model {model_id} here")
        changes = differences(recorded or {}, present) if entries else []
        return cls(0, "; ".join(changes)) if changes else cls(entries)

    def words(self, entries: int) -> str:
        """For people."""
        if self.current is None:
            return f"unknown: {self.problem}"
        made = f"{self.current:,} of {entries:,} as the model is set now"
        return f"{made}: {self.problem}" if self.problem else made


@dataclass(frozen=True, slots=True)
class Figures:
    """A collection, for people and for programs."""

    name: str
    model_id: str
    figures: CollectionFigures
    dead: int
    configuration: Configuration | None
    coverage: "Coverage"
    queued: "QueuedFor | None"
    """What waits for it in the queue; None where nobody can tell."""

    def as_object(self) -> dict[str, object]:
        """For JSON; sizes in bytes, times in seconds since the epoch."""
        figures = self.figures
        return {
            "name": self.name,
            "model": self.model_id,
            "configuration": self.configuration,
            "entries": figures.entries,
            "dimension": figures.dimension,
            "with_content": figures.with_content,
            "with_metadata": figures.with_metadata,
            "vector_bytes": figures.vector_bytes,
            "content_bytes": figures.content_bytes,
            "oldest": figures.oldest,
            "newest": figures.newest,
            "dead": self.dead,
            "coverage": {"current": self.coverage.current, "of": figures.entries, "problem": self.coverage.problem},
            "queued": None if self.queued is None else self.queued.items,
            "queued_runs": None if self.queued is None else self.queued.runs,
        }

    def as_words(self) -> list[tuple[str, str]]:
        """For people."""
        figures = self.figures
        return [
            ("collection", self.name),
            ("model", self.model_id),
            *self._configured(),
            ("entries", f"{figures.entries:,}"),
            ("dimension", "-" if figures.dimension is None else str(figures.dimension)),
            ("coverage", self.coverage.words(figures.entries)),
            ("with content", f"{figures.with_content:,}"),
            ("with metadata", f"{figures.with_metadata:,}"),
            ("vectors", size(figures.vector_bytes)),
            ("contents", size(figures.content_bytes)),
            ("oldest", moment(figures.oldest)),
            ("newest", moment(figures.newest)),
            ("dead letters", f"{self.dead:,}"),
            ("queued", self._queued()),
        ]

    def _queued(self) -> str:
        if self.queued is None:
            return "unknown: the queue does not answer"
        runs = f" ({', '.join(self.queued.runs[:3])}{' …' if len(self.queued.runs) > 3 else ''})"
        return f"{self.queued.items:,}{runs if self.queued.runs else ''}"

    def _configured(self) -> Iterator[tuple[str, str]]:
        for number, (name, value) in enumerate(sorted((self.configuration or {}).items())):
            # An option may be called `model`, as a line above is.
            yield "" if number else "configuration", f"{name} = {json.dumps(value, ensure_ascii=False)}"


def size(count: int) -> str:
    """'0 B', '1.4 KiB', '23 MiB'."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" or value >= 10 else f"{value:.1f} {units[0]}"


def moment(seconds: float | None) -> str:
    """A time since the epoch, in local time, to the second; '-' for None."""
    if seconds is None:
        return "-"
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        # Another tool may count milliseconds.
        return f"{seconds:,.0f} s after 1970"


@dataclass(frozen=True, slots=True)
class Listed:
    """A collection in the list; `role` says what it is to another, beside which it stands."""

    name: str
    model_id: str
    entries: int
    role: Role | None

    def as_object(self) -> dict[str, object]:
        """For JSON."""
        beside = None if self.role is None else {"collection": self.role.collection, "kind": self.role.kind}
        return {"name": self.name, "model": self.model_id, "entries": self.entries, "beside": beside}

    @property
    def role_words(self) -> str:
        """For people."""
        if self.role is None:
            return ""
        if self.role.kind == "removing":
            return "being removed"
        open_ = self.role.kind == "next" and self.role.state != "rolled back"
        return f"{self.role.kind} vectors of {self.role.collection}, {'being made' if open_ else 'kept'}"


def collection_list(database: Path | None) -> list[Listed]:
    """Every collection, by name. Raises DatabaseMissing for one that was named."""

    async def read(settings: Settings) -> list[Listed]:
        if database is None and not settings.database.exists():
            return []
        async with await Store.open(settings.database, read_only=True) as store:
            roles = await store.reembeddings.roles()
            return [
                Listed(info.name, info.model_id, await store.count(info.id), roles.get(info.name))
                for info in await store.collections()
            ]

    return asyncio.run(read(load_settings(database=database)))


def collection_figures(name: str, database: Path | None) -> Figures:
    """The figures of a collection. Raises CollectionMissing, DatabaseMissing."""

    async def read(settings: Settings) -> Figures:
        async with await Store.open(settings.database, read_only=True) as store:
            found = await store.collection(name)
            summary = await store.dead.summary()
            dead = sum(part.letters for part in summary if part.collection == name)
            configuration = await store.configuration(found.id)
            figures = await terminal.patiently(f"reading {name}", store.describe(found.id))
        coverage = Coverage.of(figures.entries, found.model_id, configuration)
        queued = await _queued(name, settings)
        return Figures(found.name, found.model_id, figures, dead, configuration, coverage, queued)

    return asyncio.run(read(load_settings(database=database)))


async def _queued(name: str, settings: Settings) -> QueuedFor | None:
    from embedq_jobs import open_queue, queue_exists

    if not queue_exists(settings):
        return QueuedFor([], 0)
    try:
        async with open_queue(settings) as queue:
            return await queued_for(queue, name)
    except QueueError:
        return None


def collection_count(name: str, database: Path | None) -> int:
    """The number of entries of a collection. Raises CollectionMissing, DatabaseMissing."""

    async def read(settings: Settings) -> int:
        async with await Store.open(settings.database, read_only=True) as store:
            return await store.count((await store.collection(name)).id)

    return asyncio.run(read(load_settings(database=database)))


def delete_collection(name: str, database: Path | None) -> int:
    """Delete a collection; a shared queue forgets which model it had. Returns how many entries it had at the end.

    It is gone at once; then its rows go. Interrupted there, it is not put back, and that is said.
    """
    gone = False

    async def delete(settings: Settings) -> int:
        nonlocal gone
        async with await Store.open(settings.database, must_exist=True, busy_seconds=settings.busy_seconds) as store:
            info = await store.collection(name)
            entries = await store.part_with(info.id)
            gone = True
            await _forget(name, settings)
            with terminal.display(f"deleting {name}") as shows:

                def told(done: int) -> None:
                    shows.show(terminal.Figures.of(done, entries))

                await store.reembeddings.sweep(told)
        return entries

    try:
        return asyncio.run(delete(load_settings(database=database)))
    except KeyboardInterrupt:
        if gone:
            print(
                f"embedq: {shown(name)} is deleted, but rows of it still take space: a worker that starts, or the next "
                "'embedq collections delete' or 'copy', removes them",
                file=sys.stderr,
            )
        raise


async def _forget(name: str, settings: Settings) -> None:
    """Have the queue forget which model a collection had."""
    from embedq_jobs import open_queue, queue_exists

    if queue_exists(settings):
        # The database has the last word; the queue's note is corrected by the next submission.
        with suppress(QueueError):
            async with open_queue(settings) as queue:
                await queue.forget_collection(name)
