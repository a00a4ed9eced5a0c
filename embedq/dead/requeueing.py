"""Putting dead letters back into the queue. Each stays where it is until its item is stored."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from embedq.dead.letters import none_matches, opened
from embedq_core.collection_names import base_name
from embedq_core.items import Item
from embedq_core.priority import Priority
from embedq_core.settings import Settings, load_settings
from embedq_core.text import plural, shown
from embedq_jobs import Queue, open_queue
from embedq_producer.submission import Submission, new_submission, submit
from embedq_producer.submitting import stop_on_interrupt, watch
from embedq_producer.summary import (
    EXIT_DEAD,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    print_remarks,
    print_submitted,
    submitted_object,
)
from embedq_producer.terminal import Figures, display
from embedq_store import DeadGroup, DeadLetter, Selection, Store

SOURCE: Final = "dead letters"


def run_requeue(selection: Selection, database: Path | None, priority: Priority, *, as_json: bool) -> None:
    """Queue the dead letters, one run for each collection and model, and print the ids of the runs, or them as JSON.

    Exits with 0, with 1 where some can't be requeued or a run was cancelled meanwhile, with 130 when interrupted.
    """
    submissions: list[Submission] = []
    code = asyncio.run(_requeue(selection, database, _Output(priority, as_json, submissions)))
    if as_json:
        print(json.dumps([submitted_object(submission) for submission in submissions]))
    sys.exit(code)


@dataclass(frozen=True, slots=True)
class _Output:
    """How the runs are to be, and to be told; `submissions` are those that have been made."""

    priority: Priority
    as_json: bool
    submissions: list[Submission]


async def _requeue(selection: Selection, database: Path | None, output: _Output) -> int:
    settings = load_settings(database=database)
    async with opened(database) as store:
        groups = [] if store is None else await store.dead.groups(selection)
        if store is None or not groups:
            if selection.ids or selection.keys:
                raise none_matches(selection)
            print("no dead letters", file=sys.stderr)
            return EXIT_DONE
        stored = await store.dead.delete_stored(selection)
        if stored:
            print(f"{plural(stored, 'item')} had been stored since: no longer dead", file=sys.stderr)
            groups = await store.dead.groups(selection)
        async with open_queue(settings) as queue:
            return await _queue_groups(groups, selection, store, queue, settings, output)


async def _queue_groups(
    groups: list[DeadGroup],
    selection: Selection,
    store: Store,
    queue: Queue,
    settings: Settings,
    output: _Output,
) -> int:
    stop, left, queued = stop_on_interrupt(), False, False
    for each in groups:
        group, model_id = await _destination(each, store)
        problem = await _obstacle(group, model_id, store, queue)
        if problem is not None:
            left = True
            print(f"embedq: {problem}", file=sys.stderr)
            continue
        submission = new_submission(group.collection, model_id, SOURCE, output.priority)
        letters = _Letters(group, selection, store, settings)
        await _queue_group(submission, letters, queue, settings, stop)
        output.submissions.append(submission)
        if output.as_json:
            print_remarks(submission, interrupted=stop.is_set())
        else:
            print_submitted(submission, as_json=False, interrupted=stop.is_set())
        left = left or submission.cancelled
        queued = True
        if stop.is_set():
            return EXIT_INTERRUPTED
    if queued:
        print("each leaves the dead letters when it is stored", file=sys.stderr)
    return EXIT_DEAD if left else EXIT_DONE


async def _destination(group: DeadGroup, store: Store) -> tuple[DeadGroup, str]:
    """The letters under the name of the collection where their items belong now, and its model: it may have been
    embedded anew since they died.
    """
    if not group.collection:
        return group, group.model
    moved = (await store.standing("", -1, group.collection, group.model)).moved
    if moved is None:
        return group, group.model
    name, model_id = moved.collection, moved.model_id
    if name is None or model_id is None:
        # From a re-embedding that has ended: what it was for has them still to come, whichever model it has.
        name = base_name(group.collection) or group.collection
        present = await store.find_collection(name)
        if present is None:
            return group, group.model
        model_id = present.model_id
    if name != group.collection:
        # A letter ends when its item is stored in the collection under whose name it stands.
        await store.reembeddings.adopt_letters(group.collection, name)
    return group._replace(collection=name), model_id


async def _obstacle(group: DeadGroup, model_id: str, store: Store, queue: Queue) -> str | None:
    """Why these can't be requeued for a model, and what to do; None where they can."""
    if not group.collection:
        return (
            f"{plural(group.letters, 'chunk')} for {shown(group.model)} can't be requeued, since what was in "
            f"{'it' if group.letters == 1 else 'them'} can't be read: submit the source again, then purge "
            f"{'it' if group.letters == 1 else 'them'} ('embedq dead show ID --raw FILE' writes the bytes to a file)"
        )
    found = await store.find_collection(group.collection)
    model = await queue.collection_model(group.collection) if found is None else found.model_id
    if model not in (None, model_id):
        return (
            f"{plural(group.letters, 'dead letter')} of {shown(group.collection)!r} can't be requeued, being for the "
            f"model {shown(group.model)}, where the collection has {shown(str(model))}: purge them, or delete the "
            "collection"
        )
    return None


async def _queue_group(
    submission: Submission, letters: "_Letters", queue: Queue, settings: Settings, stop: asyncio.Event
) -> None:
    """Queue a group as a run."""
    with display(submission.run.collection) as shown_on:
        # Whether contents were kept is not known of dead letters: this content needed a hand, so it is.
        sending = asyncio.create_task(submit(submission, letters, queue, settings, store=True, stop=stop.is_set))
        await watch(sending, shown_on, lambda: Figures(submission.items, submission.items / letters.count))


class _Letters:
    """The items of a group of dead letters: those that there were when it was made, one chunk at a time."""

    rejected = 0

    def __init__(self, group: DeadGroup, selection: Selection, store: Store, settings: Settings) -> None:
        self.count = group.letters
        self._last_key = group.last_key
        self._selection = Selection(
            selection.ids, selection.keys, group.collection, selection.run, selection.error, group.model
        )
        self._store = store
        self._settings = settings
        self._loop = asyncio.get_running_loop()

    def before_waiting(self, wait: Callable[[int], None]) -> None:
        """There is no pipe to wait for."""

    def __iter__(self) -> Iterator[Item]:
        key = 0
        while letters := asyncio.run_coroutine_threadsafe(self._page(key), self._loop).result():
            for letter in letters:
                key = letter.key or 0
                if letter.content is not None:
                    yield Item(letter.id, letter.content, letter.metadata)

    async def _page(self, after_key: int) -> list[DeadLetter]:
        return await self._store.dead.page(
            self._selection,
            after_key,
            self._last_key,
            max_items=self._settings.chunk_items,
            max_bytes=self._settings.chunk_bytes,
        )
