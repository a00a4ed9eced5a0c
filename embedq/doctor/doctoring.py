"""What `doctor` does: look at everything, say what was found."""

import asyncio
import json
import stat
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from embedq.doctor.finding import Finding, Verdict
from embedq.doctor.findings import Facts, RedisFacts, SettingsFacts, findings
from embedq_core.collection_names import is_being_removed
from embedq_core.configuration import Configuration, differences
from embedq_core.errors import QueueError, SettingsError, StoreError, UnknownModel
from embedq_core.settings import Settings, load_settings, settings_file
from embedq_core.text import shown
from embedq_jobs import open_queue, queue_exists
from embedq_jobs.connection import queue_directory
from embedq_jobs.embedded import find_server
from embedq_jobs.health import queue_facts, server_facts, worker_facts
from embedq_plugins import get_embedding_model, get_embedding_models, plugin_problems
from embedq_store import CollectionInfo, DeadLetterSummary, Reembedding, Store
from embedq_store.health import database_facts
from embedq_worker.timetable import Upcoming, upcoming

# Long enough for any transaction of ours.
BUSY_SECONDS: Final = 5.0


def run_doctor(database: Path | None, *, full: bool, as_json: bool) -> None:
    """Look, print, and exit with 1 where something is broken."""
    try:
        settings = load_settings(database=database)
    except SettingsError as error:
        # Without them there is nothing else to look at.
        found = [Finding(Verdict.fail, "settings", str(error), "put it right in the environment or in the file")]
    else:
        found = findings(asyncio.run(gather(settings, named=database is not None, full=full)))
    _print(found, as_json=as_json)
    sys.exit(any(finding.verdict is Verdict.fail for finding in found))


async def gather(settings: Settings, *, named: bool, full: bool) -> Facts:
    """All facts. What can't be looked at is a fact as well: no error is raised for it."""
    redis = await _redis(settings)
    database = await database_facts(settings.database, full=full, busy_seconds=min(settings.busy_seconds, BUSY_SECONDS))
    contents = await _contents(settings, usable=database.exists and database.unusable is None)
    users = [(info.model_id, f"the collection {info.name!r}") for info in contents.collections]
    users += [(each.model_id, "its queue") for each in redis.queues if each.jobs]
    return Facts(
        settings=_settings(),
        redis=redis,
        database=database,
        database_named=named,
        models=len(get_embedding_models()),
        missing=tuple((model, user) for model, user in users if not _is_here(model)),
        plugin_problems=tuple((problem.plugin, problem.message) for problem in plugin_problems()),
        drifted=tuple(_drifted(contents.collections, contents.recorded)),
        dead=contents.dead,
        schedules=contents.schedules,
        stopped=contents.stopped,
    )


def _settings() -> SettingsFacts:
    path = settings_file()
    try:
        mode = path.stat().st_mode
        exposed = bool(mode & (stat.S_IRGRP | stat.S_IROTH)) and "redis_url" in path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return SettingsFacts(str(path), path.exists(), exposed=False)
    return SettingsFacts(str(path), exists=True, exposed=exposed)


async def _redis(settings: Settings) -> RedisFacts:
    embedded = settings.redis_url is None
    where = str(queue_directory(settings.database)) if embedded else "EMBEDQ_REDIS_URL"
    try:
        if not queue_exists(settings):
            return RedisFacts(find_server(), embedded)
        async with open_queue(settings) as queue:
            return RedisFacts(
                queue.where,
                embedded,
                server=await server_facts(queue),
                queues=tuple([await queue_facts(queue, model_id) for model_id in await queue.model_ids()]),
                workers=tuple(await worker_facts(queue)),
                pauses=tuple(await queue.pauses()),
            )
    except (QueueError, SettingsError) as error:
        return RedisFacts(where, embedded, problem=str(error))


@dataclass(frozen=True, slots=True)
class _Contents:
    """What is in a database, as far as it can be read: `recorded` is what is known of each collection's model."""

    collections: Sequence[CollectionInfo] = ()
    recorded: Mapping[int, Configuration] = field(default_factory=dict)
    dead: Sequence[DeadLetterSummary] = ()
    schedules: Sequence[Upcoming] = ()
    stopped: Sequence[Reembedding] = ()


async def _contents(settings: Settings, *, usable: bool) -> _Contents:
    if not usable:
        return _Contents()
    try:
        async with await Store.open(settings.database, read_only=True) as store:
            # Of those whose rows are being removed nothing is wanted any more.
            collections = [info for info in await store.collections() if not is_being_removed(info.name)]
            recorded = {info.id: await store.configuration(info.id) for info in collections}
            return _Contents(
                collections,
                {key: value for key, value in recorded.items() if value is not None},
                await store.dead.summary(),
                upcoming(await store.schedules.all(), time.time()),
                [each for each in await store.reembeddings.open() if each.state == "stopped"],
            )
    except StoreError:
        return _Contents()  # what is wrong with the database is a finding of its own


def _drifted(
    collections: Sequence[CollectionInfo], recorded: Mapping[int, Configuration]
) -> Iterator[tuple[str, str, str]]:
    for info in collections:
        if info.id in recorded and _is_here(info.model_id):
            found = differences(recorded[info.id], get_embedding_model(info.model_id).configuration)
            if found:
                yield info.model_id, info.name, "; ".join(found)


def _is_here(model_id: str) -> bool:
    try:
        return get_embedding_model(model_id).model_id == model_id
    except (UnknownModel, SettingsError):
        return False


def _print(found: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([finding._asdict() for finding in found]))
        return
    width = max(len(shown(finding.what)) for finding in found)
    for finding in found:
        words = ": ".join(filter(None, (finding.detail, finding.mend)))
        print(f"{finding.verdict:<4}  {shown(finding.what):<{width}}  {shown(words)}")
