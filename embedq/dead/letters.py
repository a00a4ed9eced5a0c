"""Reading dead letters for the commands that show them, and deleting them."""

import asyncio
import sys
import textwrap
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from embedq.inspecting import moment, size
from embedq.tables import print_fields
from embedq_core.errors import UsageError
from embedq_core.items import json_text, unstorable
from embedq_core.settings import load_settings
from embedq_core.text import plural, shown, shown_lines
from embedq_producer.terminal import Figures, display
from embedq_store import DeadGroup, DeadHeading, DeadLetter, Selection, Store


def dead_headings(selection: Selection, limit: int, database: Path | None) -> list[DeadHeading]:
    """Dead letters without their contents, newest first. Raises DatabaseMissing for a database that was named."""

    async def read() -> list[DeadHeading]:
        async with opened(database, read_only=True) as store:
            return [] if store is None else await store.dead.headings(selection, limit)

    return asyncio.run(read())


def print_letters_json(selection: Selection, limit: int | None, database: Path | None) -> None:
    """Print dead letters as an array of JSON, newest first; only one of them is in memory at a time."""

    async def work() -> None:
        separator = "["
        async with opened(database, read_only=True) as store:
            if store is not None:
                async for letter in _letters(store, selection, limit):
                    print(separator, json_text(_object(letter)), sep="", end="")
                    separator = ", "
        print("[]" if separator == "[" else "]")

    asyncio.run(work())


def print_letters(selection: Selection, database: Path | None, raw: Path | None) -> None:
    """Print dead letters whole, for people; with `raw`, write the content of the only one to that file.

    Raises UsageError where there is none, or with `raw` none or several.
    """

    async def work() -> None:
        async with opened(database, read_only=True) as store:
            headings = [] if store is None else await store.dead.headings(selection)
            if store is None or not headings:
                raise none_matches(selection)
            if raw is not None and len(headings) > 1:
                keys = ", ".join(str(heading.key) for heading in headings[:10])
                raise UsageError(
                    f"--raw is for one dead letter, and {len(headings):,} match: name one with --key ({keys})"
                )
            first = True
            async for letter in _letters(store, selection, None):
                if raw is not None:
                    _write(letter, raw)
                    return
                if not first:
                    print()
                first = False
                _print(letter)

    asyncio.run(work())


async def _letters(store: Store, selection: Selection, limit: int | None) -> AsyncIterator[DeadLetter]:
    for heading in await store.dead.headings(selection, limit):
        for letter in await store.dead.letters(keys=[heading.key]):
            yield letter


def _object(letter: DeadLetter) -> dict[str, object]:
    """A dead letter for JSON. `content` is null where it is not text, `died` in seconds since the epoch."""
    return {
        "key": letter.key,
        "run": letter.run,
        "chunk": letter.chunk,
        "collection": letter.collection,
        "id": letter.id,
        "content": letter.content if isinstance(letter.content, str) else None,
        "content_bytes": None if letter.content is None else len(_bytes(letter)),
        "metadata": letter.metadata,
        "model": letter.model,
        "error": letter.error,
        "message": letter.message,
        "attempts": letter.attempts,
        "died": letter.died,
    }


def _print(letter: DeadLetter) -> None:
    content = letter.content
    if content is None:
        kind = "lost"
    elif isinstance(content, str):
        kind = f"text, {size(len(_bytes(letter)))}"
    else:
        kind = f"binary, {size(len(content))}: --raw FILE writes it to a file"
    print_fields(
        [
            ("key", str(letter.key)),
            ("id", letter.id),
            ("collection", letter.collection or "-"),
            ("run", f"{letter.run}, chunk {letter.chunk}"),
            ("model", letter.model),
            ("error", letter.error),
            ("message", letter.message),
            ("attempts", f"{letter.attempts:,}"),
            ("died", moment(letter.died)),
            ("metadata", letter.metadata or "-"),
            ("content", kind),
        ]
    )
    if isinstance(content, str):
        print(textwrap.indent(shown_lines(content), "  "))


def _bytes(letter: DeadLetter) -> bytes:
    return letter.content.encode() if isinstance(letter.content, str) else letter.content or b""


def _write(letter: DeadLetter, file: Path) -> None:
    if letter.content is None:
        raise UsageError(f"the content of {shown(letter.id)!r} is lost: {letter.message}")
    try:
        if str(file) == "-":
            sys.stdout.buffer.write(_bytes(letter))
            sys.stdout.buffer.flush()
        else:
            file.write_bytes(_bytes(letter))
    except OSError as error:
        raise UsageError(f"{shown(str(file))}: can't be written: {error.strerror}") from error


# --- deleting


def groups_to_purge(selection: Selection, database: Path | None) -> list[DeadGroup]:
    """What would be deleted."""

    async def read() -> list[DeadGroup]:
        async with opened(database, read_only=True) as store:
            return [] if store is None else await store.dead.groups(selection)

    return asyncio.run(read())


def purge(selection: Selection, groups: Sequence[DeadGroup], database: Path | None) -> int:
    """Delete the dead letters of `groups`, and none that have come since; return how many."""
    deleted = 0

    async def delete() -> int:
        async with opened(database) as store:
            if store is None:
                return 0
            many = sum(group.letters for group in groups)
            with display("purging dead letters") as shows:

                def told(done: int) -> None:
                    nonlocal deleted
                    deleted = done
                    shows.show(Figures.of(done, many))

                return await store.dead.delete(selection, max(group.last_key for group in groups), told)

    try:
        return asyncio.run(delete())
    except KeyboardInterrupt:
        print(f"embedq: interrupted: {plural(deleted, 'dead letter')} deleted, the oldest first", file=sys.stderr)
        raise


# --- shared


@asynccontextmanager
async def opened(database: Path | None, *, read_only: bool = False) -> AsyncIterator[Store | None]:
    """The database; None where there is none yet and none was named. Raises DatabaseMissing for one that was."""
    settings = load_settings(database=database)
    if database is None and not settings.database.exists():
        yield None
        return
    async with await Store.open(
        settings.database, read_only=read_only, must_exist=True, busy_seconds=settings.busy_seconds
    ) as store:
        yield store


def selected(
    ids: Sequence[str] | None,
    keys: Sequence[int] | None,
    collection: str | None,
    run: str | None,
    error: str | None,
) -> Selection:
    """What the command line selects. Raises UsageError for what nothing can be named."""
    selection = Selection(tuple(ids or ()), tuple(keys or ()), collection, run, error)
    for text in (*selection.ids, collection, run, error):
        if text is not None and (problem := unstorable(text)) is not None:
            raise UsageError(f"no dead letter can be named {shown(text)!r}: it {problem}")
    return selection


def chosen(selection: Selection, *, everything: bool) -> Selection:
    """`selection`, for a command that does nothing to all dead letters unless it is told to with --all.

    Raises UsageError where nothing is selected, or both something and all.
    """
    if everything and not selection.everything:
        raise UsageError("--all leaves no choice: name some, or give --all alone")
    if not everything and selection.everything:
        raise UsageError("say which: an ID, --key, --collection, --run, --error, or --all")
    return selection


def none_matches(selection: Selection) -> UsageError:
    """What to say where nothing is what was named."""
    named = " ".join([*map(repr, map(shown, selection.ids)), *(f"--key {key}" for key in selection.keys)])
    what = f" {named}" if named else " like that"
    return UsageError(f"there is no dead letter{what}: 'embedq dead list' shows what there is")
