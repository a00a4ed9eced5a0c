"""`--prune`: removing from a collection what its source no longer has.

It happens after the whole source was read, and only where every row of it could be read. An entry goes whose id, and
whose document, the source did not give; but not yet one whose content the source has under another id that is not
stored: it has the vector, and without it the same text would be paid for twice.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from embedq_core.errors import DatabaseMissing, EmbedqError, UsageError
from embedq_core.items import Item
from embedq_core.settings import Settings
from embedq_core.text import plural, shown
from embedq_producer.corpus_options import CorpusRequest
from embedq_producer.readers import Reader
from embedq_producer.source_ids import SourceIds
from embedq_producer.submission import Submission
from embedq_producer.terminal import Figures, display
from embedq_store import Prunable, Store

# A larger share of a collection goes only where somebody says so: a folder that is not mounted is no empty one.
SHARE: Final = 0.2

_AT_ONCE: Final = 2048

_INTERRUPTED: Final = "interrupted: the next --prune goes on"


class Verdict(Enum):
    """Whether to prune."""

    PRUNE = auto()
    ASK = auto()
    """More than `SHARE` would go."""
    EMPTY = auto()
    """The source gave nothing at all, so all would go: a folder that is not mounted looks like that."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A collection beside its source: its `entries` (under the prefix), how many of them the source lacks, and how many
    of these stay for now (`moved`), since the source has their content under ids that are not stored. `letters` are
    ids of dead letters that it lacks, too.
    """

    entries: int = 0
    gone: int = 0
    moved: int = 0
    letters: int = 0

    @property
    def going(self) -> int:
        """How many are to go now."""
        return self.gone - self.moved


@dataclass(frozen=True, slots=True)
class Pruned:
    """What `--prune` came to: entries removed, and those left for now; or why nothing was to be removed."""

    removed: int = 0
    moved: int = 0
    refused: str | None = None

    def lines(self) -> list[str]:
        """For people."""
        if self.refused is not None:
            removed = f" after {plural(self.removed, 'entry', 'entries')}" if self.removed else ""
            return [f"embedq: {'pruning stopped' if removed else 'nothing was pruned'}{removed}: {self.refused}"]
        found = [f"pruned {plural(self.removed, 'entry', 'entries')} that the source no longer has"]
        if self.moved:
            found.append(
                f"{plural(self.moved, 'entry', 'entries')} will go with the next --prune: the source has their "
                "contents under new ids, which are not stored yet"
            )
        return found

    def as_object(self) -> dict[str, object]:
        """For JSON."""
        return {"pruned": self.removed, "prune_left": self.moved, "prune_refused": self.refused}


def obstacle(submission: Submission, *, interrupted: bool) -> str | None:
    """Why nothing may be pruned, whoever says so: the source is not known whole. None where it is."""
    if interrupted:
        return "the reading was interrupted"
    if submission.cancelled:
        return "the run was cancelled before all of the source was read"
    if submission.problem is not None:
        return "the source could not be read to its end"
    if submission.skipped:
        return f"{plural(submission.skipped, 'row')} of the source could not be read: see above"
    return None


def verdict(compared: Compared, items: int, *, yes: bool = False, allow_empty: bool = False) -> Verdict:
    """Whether to remove what a source of `items` lacks, where somebody has said `yes` to much, or `allow_empty`.

    A yes is given beforehand, for whatever may go; that nothing is left of a source has to be said by itself.
    """
    if not items and not allow_empty and (compared.gone or compared.letters):
        return Verdict.EMPTY
    return Verdict.ASK if compared.gone > SHARE * compared.entries and not yes else Verdict.PRUNE


def refusal(compared: Compared, reason: Verdict) -> str | None:
    """Why nothing goes where nobody has said so; None where nothing needs to be said."""
    share = f"{compared.gone:,} of {plural(compared.entries, 'entry', 'entries')} would go"
    if not compared.gone:
        share = f"{plural(compared.letters, 'dead letter')} would go"
    match reason:
        case Verdict.PRUNE:
            return None
        case Verdict.ASK:
            return f"{share}, more than {SHARE:.0%}: say --yes if that is right"
        case Verdict.EMPTY:
            return f"the source is empty, so {share}: is it mounted? Say --allow-empty if that is right"


@contextmanager
def pruning_asked_for(request: CorpusRequest, settings: Settings) -> "Iterator[Pruning | None]":
    """What `--prune` does for the block, None where it is not asked for.

    Raises UsageError where the database can't be seen from here: before anything is queued.
    """
    if not request.prune:
        yield None
        return
    if settings.redis_url is not None and not settings.database.exists():
        raise UsageError(
            f"--prune removes entries from the database, and {settings.database} is not there: run it where the "
            "workers' database is, or name that with -d"
        )
    with closing(SourceIds()) as ids:
        yield Pruning(request, settings, ids)


class Pruning:
    """One `--prune`, from the first row of the source until the last entry is removed: see `pruning_asked_for`."""

    def __init__(self, request: CorpusRequest, settings: Settings, ids: SourceIds) -> None:
        self._request = request
        self._settings = settings
        self._ids = ids
        self._removed = 0

    def watch(self, reader: Reader) -> None:
        """Note whatever `reader` gives. To be called when it splits what it is to split."""
        split = reader.split

        def noted(item: Item) -> Iterable[Item]:
            parts = [item] if split is None else list(split(item))
            self._ids.note(item, parts)
            return parts

        reader.split = noted

    async def compare(self, store: Store, stop: Callable[[], bool]) -> "tuple[Compared, Prunable | None]":
        """What of the collection the source lacks, and where it can be deleted; not all of it after a `stop`."""
        info = await store.find_collection(self._request.collection)
        if info is None:
            return Compared(), None
        ids = self._ids
        await asyncio.to_thread(ids.complete)
        prunable = store.prunable(info, self._request.prefix)
        entries = gone = moved = 0
        with display(f"pruning {info.name}") as shows:
            async for page in prunable.entries():
                entries, gone = entries + len(page), gone + await asyncio.to_thread(ids.set_aside_lacking, page)
                shows.show(Figures(entries, None, "comparing"))
                if stop():
                    return Compared(entries, gone), None
        beyond = None
        while digests := ids.moved(beyond, _AT_ONCE):
            beyond = digests[-1]
            held = await prunable.ids_with(digests)
            going = ids.going(id_ for _, id_ in held)
            moved += ids.let_stay({*digests} - {digest for digest, id_ in held if id_ not in going})
        letters = 0
        async for page in prunable.letters():
            letters += await asyncio.to_thread(ids.set_aside_lacking, page)
        return Compared(entries, gone, moved, letters), prunable

    async def run(self, submission: Submission, confirm: Callable[[str], bool], stop: Callable[[], bool]) -> Pruned:
        """Compare, and remove what is to go: `confirm` is asked where that is much.

        Never raises an EmbedqError: the source is submitted whatever becomes of this, which says what was wrong.
        """
        problem = obstacle(submission, interrupted=stop())
        if problem is not None:
            return Pruned(refused=problem)
        busy_seconds = self._settings.busy_seconds
        try:
            async with await Store.open(self._settings.database, must_exist=True, busy_seconds=busy_seconds) as store:
                compared, prunable = await self.compare(store, stop)
                if stop():
                    # Not all was looked at: there is nobody to ask whether to remove the rest.
                    return Pruned(refused=_INTERRUPTED)
                problem = self._refusal(compared, confirm)
                if prunable is not None and problem is None:
                    problem = await self._remove(prunable, stop)
                return Pruned(self._removed, compared.moved, problem)
        except DatabaseMissing:
            return Pruned()
        except EmbedqError as error:
            return Pruned(self._removed, refused=str(error))

    async def _remove(self, prunable: Prunable, stop: Callable[[], bool]) -> str | None:
        """Remove what is set aside, some thousands in each transaction; why it ended before all was removed."""
        last = ""
        while ids := self._ids.next_gone(last, _AT_ONCE):
            if stop():
                return _INTERRUPTED
            self._removed += await prunable.delete(ids)
            last = ids[-1]
        return None

    def _refusal(self, compared: Compared, confirm: Callable[[str], bool]) -> str | None:
        """Why not to prune after all."""
        reason = self.verdict(compared)
        share = f"{compared.gone:,} of {plural(compared.entries, 'entry', 'entries')}"
        question = f"The source no longer has {share} of {shown(self._request.collection)}. Remove them?"
        return None if reason is Verdict.ASK and confirm(question) else refusal(compared, reason)

    def verdict(self, compared: Compared) -> Verdict:
        """Whether to remove it, by what the command line says."""
        return verdict(compared, self._ids.items, yes=self._request.yes, allow_empty=self._request.allow_empty)
