"""The oracle of the console's chaos test: what was sent is accounted for, once, and nothing is left anywhere."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from chaos.console_plan import CHUNK_ITEMS, COLLECTIONS
from chaos.oracle import Failure
from embedq_core.digests import content_hash
from embedq_core.items import Item
from embedq_core.text import plural
from embedq_core.vectors import encode
from embedq_jobs import QueueLoad, RunSummary
from embedq_store import Reembedding
from support.console_plugin import MARKS, marked_vector


class Sent(NamedTuple):
    """A submission: so many chunks of it were accepted. `cancelled` says that its run was cancelled in time."""

    number: int
    run: str
    collection: str
    chunks: int
    cancelled: bool


@dataclass(frozen=True)
class ConsoleEnd:
    """What there is when all is quiet."""

    sent: Sequence[Sent]
    runs: Sequence[RunSummary]
    """All in the ledger: those of re-embeddings and rollbacks, too."""
    loads: Sequence[QueueLoad]
    keys: Sequence[str]
    """Of Redis, those that go when a chunk is done."""
    reembeddings: Sequence[Reembedding]
    database: Path


def items_of(number: int, chunk: int) -> list[Item]:
    """What chunk `chunk` of a submission holds."""
    return [Item(f"{number}-{chunk}-{row}", f"text {number} {chunk} {row}") for row in range(CHUNK_ITEMS)]


def judge(end: ConsoleEnd) -> str:
    """Raise Failure where anything was lost, counted twice, mixed or left; else say what was found."""
    _judge_queues(end)
    _judge_reembeddings(end)
    with closing(sqlite3.connect(end.database)) as db:
        _expect(db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "the database is damaged")
        dead = db.execute("SELECT collection, id, error, message FROM embedq_dead").fetchall()
        _expect(not dead, f"{len(dead)} items are dead: {dead[:3]}")
        stored = _stored(db, {item.id: item for sent in end.sent for item in _items(sent)})
    summaries = {summary.run.id: summary for summary in end.runs}
    accepted = cancelled = 0
    for sent in end.sent:
        _expect(sent.run in summaries, f"run {sent.run} is not in the ledger")
        summary = summaries.pop(sent.run)
        _judge_run(sent, summary)
        missing = [item.id for item in _items(sent) if item.id not in stored[sent.collection]]
        _expect(
            len(missing) <= summary.counts.cancelled,
            f"{len(missing)} items of run {sent.run} to {sent.collection} are lost, {summary.counts.cancelled} were"
            f" cancelled: {missing[:5]}",
        )
        accepted, cancelled = accepted + summary.items, cancelled + summary.counts.cancelled
    for summary in summaries.values():
        _judge_counts(summary)
    there = sum(len(ids) for ids in stored.values())
    switches = sum(each.switched is not None for each in end.reembeddings)
    return (
        f"{accepted:,} accepted, {there:,} stored, {cancelled:,} cancelled, {plural(switches, 'switch', 'switches')};"
        " none lost, none counted twice, no mix"
    )


def see(database: Path, seen: set[str]) -> None:
    """Look as a reader does, in one snapshot: Failure at a mix of models, or where all that was `seen` is gone."""
    query = (
        "SELECT c.name, c.model, substr(e.embedding, 1, 4), count(*)"
        " FROM embeddings e JOIN collections c ON c.id = e.collection_id GROUP BY 1, 2, 3"
    )
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as db:
        rows = db.execute(query).fetchall()
    for name, model_id, mark, count in rows:
        _expect(mark == encode([MARKS[model_id]]), f"{count} vectors of {name} are of another model than {model_id}")
    present = {row[0] for row in rows}
    gone = [name for name in COLLECTIONS if name in seen and name not in present]
    _expect(not gone, f"a reader found nothing in {gone}")
    seen |= present


def _items(sent: Sent) -> list[Item]:
    return [item for chunk in range(sent.chunks) for item in items_of(sent.number, chunk)]


def _judge_queues(end: ConsoleEnd) -> None:
    for load in end.loads:
        weight = (load.jobs, load.bytes, load.items)
        _expect(weight == (0, 0, 0), f"in the queue of {load.model_id} are left: jobs, bytes, items = {weight}")
    _expect(not end.keys, f"keys are left in Redis: {end.keys[:5]}")


def _judge_reembeddings(end: ConsoleEnd) -> None:
    left = [(each.collection, each.state, each.message) for each in end.reembeddings if each.open]
    _expect(not left, f"re-embeddings have not come to an end: {left}")


def _stored(db: sqlite3.Connection, sent: dict[str, Item]) -> dict[str, set[str]]:
    """The ids in each collection that is asked for by users; all vectors, kept ones as well, have been looked at."""
    names = [row[0] for row in db.execute("SELECT name FROM collections")]
    odd = [name for name in names if name.partition("@")[0] not in COLLECTIONS or "@removing" in name]
    _expect(not odd, f"there are collections {odd}")
    found: dict[str, set[str]] = {name: set() for name in (*COLLECTIONS, *names)}
    rows = db.execute(
        "SELECT c.name, c.model, e.id, e.content, e.content_hash, e.embedding"
        " FROM embeddings e JOIN collections c ON c.id = e.collection_id"
    )
    for name, model_id, id_, content, hash_, vector in rows:
        who = f"{id_} of {name}"
        _expect(id_ in sent, f"{who} was never sent, or not accepted")
        _expect(content == sent[id_].content, f"{who} has another content")
        _expect(hash_ == content_hash(content), f"{who} has the hash of another content")
        _expect(vector == encode(marked_vector(model_id, content)), f"{who} has another vector than {model_id} gives")
        _expect(id_ not in found[name], f"{who} stands twice")
        found[name].add(id_)
    return {name: found[name] for name in COLLECTIONS}


def _judge_run(sent: Sent, summary: RunSummary) -> None:
    state = "cancelled" if sent.cancelled else "complete"
    who, counts = f"run {sent.run}", summary.counts
    _expect(summary.state == state, f"{who} is {summary.state}, not {state}")
    _expect(summary.chunks == sent.chunks, f"{who}: {summary.chunks} chunks, {sent.chunks} were accepted")
    items = sent.chunks * CHUNK_ITEMS
    _expect(summary.items == items, f"{who}: {summary.items} items, {items} were accepted")
    _expect(sent.cancelled or not counts.cancelled, f"{who}: {counts.cancelled} cancelled, and nobody did that")
    _judge_counts(summary)


def _judge_counts(summary: RunSummary) -> None:
    who, counts = f"run {summary.run.id} ({summary.run.source})", summary.counts
    _expect(summary.chunks_done == summary.chunks, f"{who}: {summary.chunks_done} of {summary.chunks} chunks are done")
    _expect(
        counts.ended == summary.items,
        f"{who}: {counts.ended} outcomes of {summary.items} items: {json.dumps(counts.nonzero())}",
    )
    _expect(counts.failed == 0, f"{who}: {counts.failed} failed")


def _expect(holds: object, otherwise: str) -> None:
    if not holds:
        raise Failure(otherwise)
