"""Steering what runs: cancelling a run, pausing and resuming work."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from embedq.asking import ask
from embedq.inspecting import moment
from embedq.tables import print_fields, print_table
from embedq_core.errors import UnknownModel, UsageError
from embedq_core.settings import Settings, load_settings
from embedq_core.text import plural, shown, suggestion
from embedq_jobs import Pause, Queue, RunSummary, Scope, open_queue, queue_exists
from embedq_jobs.cancelling import Marked, Removed
from embedq_producer.pausing import described, pause_object, remedy, scope_words
from embedq_producer.summary import EXIT_DEAD, EXIT_DONE, outcome_words, summary_object

# --- cancelling a run


def run_cancel(run: str, database: Path | None, *, yes: bool, as_json: bool) -> None:
    """Cancel a run and say what that did. Exits with 0, with 1 where the run was over, with 2 where there is none."""
    sys.exit(asyncio.run(_cancel(run, load_settings(database=database), yes=yes, as_json=as_json)))


async def _cancel(run: str, settings: Settings, *, yes: bool, as_json: bool) -> int:
    async with open_queue(settings) as queue:
        before = await queue.runs.summary(run)
        if not yes and not before.settled:
            left = plural(before.items - before.counts.ended, "item is", "items are")
            what = f"Cancel run {run} of {shown(before.run.collection)}, of which {left} not done?"
            ask(what)
        marked, removed = await queue.cancelling.cancel(run, before.run.model_id)
        after = await queue.runs.summary(run)
    in_hand = after.items - after.counts.ended
    if as_json:
        taken = {"taken_out": removed.items, "chunks_taken_out": removed.chunks, "in_hand": in_hand}
        print(json.dumps(summary_object(after) | taken))
    elif marked is Marked.over:
        print(f"run {run} is complete: there is nothing to cancel")
    else:
        print_fields(_cancelled(after, marked, removed, in_hand))
    return EXIT_DEAD if marked is Marked.over else EXIT_DONE


def _cancelled(summary: RunSummary, marked: Marked, removed: Removed, in_hand: int) -> list[tuple[str, str]]:
    counts = summary.counts
    stored = counts.done - counts.failed
    words = outcome_words(replace(counts, failed=0, cancelled=0))
    again = ", cancelled before" if marked is Marked.before else ""
    return [
        ("run", f"{summary.run.id}{again}"),
        ("collection", summary.run.collection),
        ("taken out", f"{plural(removed.items, 'item')} in {plural(removed.chunks, 'chunk')}"),
        ("cancelled", f"{counts.cancelled:,} of {plural(summary.items, 'item')}"),
        ("stored", f"{stored:,}{f' ({words})' if words else ''}"),
        ("dead", f"{counts.failed:,}"),
        ("in hand", f"{in_hand:,}{': workers finish them' if in_hand else ''}"),
    ]


# --- pausing and resuming


def run_pause(scope: Scope, reason: str | None, database: Path | None, *, list_only: bool, as_json: bool) -> None:
    """Pause, or only list what is paused, and print that."""
    asyncio.run(_pause(scope, reason, load_settings(database=database), list_only=list_only, as_json=as_json))


async def _pause(scope: Scope, reason: str | None, settings: Settings, *, list_only: bool, as_json: bool) -> None:
    if list_only:
        pauses: list[Pause] = []
        if queue_exists(settings):
            async with open_queue(settings) as queue:
                pauses = await queue.pauses()
        _print_pauses(pauses, as_json=as_json)
        return
    async with open_queue(settings) as queue:
        scope, warning = await _known(scope, queue)
        new = await queue.pausing.pause(scope, reason)
        pauses = await queue.pauses()
        workers = len(await queue.live_workers())
    if warning:
        print(f"embedq: {warning}", file=sys.stderr)
    if as_json:
        _print_pauses(pauses, as_json=True)
        return
    (pause,) = (pause for pause in pauses if pause.scope == scope)
    if new:
        print(shown(described(pause)))
        finish = (
            f"{plural(workers, 'worker finishes', 'workers finish')} what is in hand" if workers else "no worker runs"
        )
        print(f"{finish}; more can be queued meanwhile", file=sys.stderr)
    else:
        print(f"{shown(described(pause))}; it has been so since {moment(pause.since)}")


async def _known(scope: Scope, queue: Queue) -> tuple[Scope, str]:
    """The scope with the full id of its model, and a warning where nothing by that name is known."""
    if scope.kind == "model":
        from embedq_plugins import get_embedding_model, get_embedding_models

        queued = await queue.model_ids()
        if scope.name in queued:
            return scope, ""
        try:
            return Scope("model", get_embedding_model(scope.name).model_id), ""
        except UnknownModel:
            return scope, _unknown(scope, [*queued, *(model.model_id for model in get_embedding_models())])
    if scope.kind == "collection":
        collections = await queue.collection_names()
        if scope.name not in collections:
            return scope, _unknown(scope, collections)
    return scope, ""


def _unknown(scope: Scope, known: Sequence[str]) -> str:
    return (
        f"nothing has been queued for a {scope.kind} {shown(scope.name)!r} yet.{suggestion(scope.name, known)} "
        f"It is paused all the same: '{remedy(Pause(scope, 0.0))}' takes that back"
    )


def _print_pauses(pauses: Sequence[Pause], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([pause_object(pause) for pause in pauses]))
    elif not pauses:
        print("nothing is paused")
    else:
        print_table(
            ["paused", "since", "reason"],
            [[scope_words(each.scope), moment(each.since), each.reason or "-"] for each in pauses],
        )
        print("'embedq resume', with --model or --collection for one of these, lets it go on", file=sys.stderr)


def run_resume(scope: Scope, database: Path | None, *, everything: bool, as_json: bool) -> None:
    """Lift a pause, or all. Exits with 1 where what was named is not paused, and something else is."""
    sys.exit(asyncio.run(_resume(scope, load_settings(database=database), everything=everything, as_json=as_json)))


async def _resume(scope: Scope, settings: Settings, *, everything: bool, as_json: bool) -> int:
    if not queue_exists(settings):
        _print_pauses([], as_json=as_json)
        return EXIT_DONE
    async with open_queue(settings) as queue:
        before = await queue.pauses()
        if scope.kind == "model" and all(pause.scope != scope for pause in before):
            scope, _ = await _known(scope, queue)
        wanted = [pause.scope for pause in before] if everything else [scope]
        # Also where it is not paused: who lifted it may have been killed before all was due again.
        lifted = await queue.pausing.resume(wanted, await queue.model_ids())
        left = await queue.pauses()
    if as_json:
        _print_pauses(left, as_json=True)
    else:
        _say_resumed(scope, lifted, left, everything=everything)
    return EXIT_DEAD if left and not lifted else EXIT_DONE


def _say_resumed(scope: Scope, lifted: Sequence[Scope], left: Sequence[Pause], *, everything: bool) -> None:
    for each in lifted:
        print(f"resumed: {shown(scope_words(each))}")
    if not lifted and not left:
        print("nothing is paused")
    elif not lifted and not everything:
        named = [pause.scope.name for pause in left if pause.scope.kind == scope.kind and scope.name]
        what = f"{shown(scope_words(scope))} is not paused" if scope.name else "there is no pause of everything"
        print(f"{what}.{suggestion(scope.name, named)}")
    for pause in left:
        print(f"still: {shown(described(pause))}", file=sys.stderr)


def scope_of(model: str | None, collection: str | None) -> Scope:
    """What --model and --collection name together. Raises UsageError for both at once, or an empty name."""
    if model is not None and collection is not None:
        raise UsageError("--model and --collection contradict each other: give two commands")
    for kind, name in (("model", model), ("collection", collection)):
        if name == "":
            raise UsageError(f"--{kind} needs a name")
    if model is not None:
        return Scope("model", model)
    return Scope("collection", collection) if collection is not None else Scope()
