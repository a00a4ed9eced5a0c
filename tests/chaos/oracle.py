"""The oracle: what went in, what is stored, what is dead, and what the commands say must all agree."""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from chaos.plan import COLLECTIONS, Part, Row
from embedq_core.digests import content_hash
from embedq_core.vectors import encode
from support.chaos_plugin import POISON
from support.models import vector_of


class Failure(Exception):  # noqa: N818 - it is the verdict
    """Something was lost, doubled or changed, or took too long."""


@dataclass(frozen=True)
class Report:
    """What the commands say at the end, as JSON."""

    runs: dict[str, Part]
    """The run of each part, as the producer that sent it to its end has printed it."""
    shown: dict[str, Row]
    """What `runs show` says of each of them."""
    listed: list[Row]
    """What `runs list` says of all."""
    status: Row
    failed_producers: int
    """Producers that were killed or gave up: their parts were sent again."""


def judge(parts: Sequence[Part], database: Path, report: Report) -> str:
    """Raise Failure where anything was lost, doubled or changed; else say what was found."""
    with closing(sqlite3.connect(database)) as db:
        _expect(db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "the database is damaged")
        models = db.execute("SELECT name, model FROM collections ORDER BY name").fetchall()
        _expect(models == sorted(COLLECTIONS.items()), f"the collections are {models}")
        stored = _stored(db)
        dead = _dead(db)
    for part in parts:
        for row in part.rows:
            key = (part.collection, row["id"])
            _judge_row(part.collection, row, stored.get(key), dead.get(key))
    sent = {(part.collection, row["id"]) for part in parts for row in part.rows}
    extra = sorted((set(stored) | set(dead)) - sent)
    _expect(not extra, f"there are items that were never sent: {extra[:5]}")
    accepted = _judge_runs(parts, report)
    _expect(accepted == len(stored) + len(dead), f"{accepted} accepted, {len(stored)} stored, {len(dead)} dead")
    return f"{accepted:,} accepted = {len(stored):,} stored + {len(dead):,} dead; none lost, none twice, none changed"


_Key = tuple[str, str]


def _stored(db: sqlite3.Connection) -> dict[_Key, Row]:
    columns = ("content", "metadata", "content_hash", "embedding")
    rows = db.execute(
        f"SELECT c.name, e.id, {', '.join('e.' + column for column in columns)}"
        " FROM embeddings e LEFT JOIN collections c ON c.id = e.collection_id"
    ).fetchall()
    twice = [key for key, count in Counter(row[:2] for row in rows).items() if count > 1]
    _expect(not twice, f"ids stand twice: {twice[:5]}")
    return {(row[0], row[1]): dict(zip(columns, row[2:], strict=True)) for row in rows}


def _dead(db: sqlite3.Connection) -> dict[_Key, Row]:
    rows = db.execute("SELECT run, collection, id, content, metadata FROM embedq_dead").fetchall()
    twice = [key for key, count in Counter(row[:3] for row in rows).items() if count > 1]
    _expect(not twice, f"items are dead twice: {twice[:5]}")
    # One that was sent twice, since its producer was killed, may have died twice.
    return {(row[1], row[2]): {"content": row[3], "metadata": row[4]} for row in rows}


def _judge_row(collection: str, row: Row, stored: Row | None, dead: Row | None) -> None:
    who = f"{row['id']} of {collection}"
    _expect(stored is not None or dead is not None, f"{who} is lost")
    _expect(stored is None or dead is None, f"{who} is stored and dead")
    found = stored or dead or {}
    _expect(found["content"] == row["content"], f"{who} has another content")
    metadata = json.loads(found["metadata"]) if found["metadata"] else None
    _expect(metadata == row.get("metadata"), f"{who} has other metadata")
    poisoned = POISON in row["content"]
    _expect(poisoned == (dead is not None), f"{who} is {'dead' if dead else 'stored'}, poisoned: {poisoned}")
    if stored is not None:
        _expect(stored["content_hash"] == content_hash(row["content"]), f"{who} has the hash of another content")
        _expect(stored["embedding"] == encode(vector_of(row["content"])), f"{who} has another vector")


def _judge_runs(parts: Sequence[Part], report: Report) -> int:
    """The number of items that complete runs have accepted."""
    answered = sorted((part.collection, part.number) for part in report.runs.values())
    wanted = sorted((part.collection, part.number) for part in parts)
    _expect(answered == wanted, f"parts sent to their end are {answered}")
    for run, part in report.runs.items():
        shown = report.shown[run]
        poisoned = sum(POISON in row["content"] for row in part.rows)
        outcomes = shown["embedded"] + shown["reused"] + shown["unchanged"] + shown["dead"]
        _expect(shown["state"] == "complete", f"run {run} is {shown['state']}")
        _expect(shown["collection"] == part.collection, f"run {run} is of {shown['collection']}")
        _expect(shown["items"] == len(part.rows), f"run {run}: {shown['items']} items, {len(part.rows)} were sent")
        _expect(outcomes == shown["items"], f"run {run}: {outcomes} outcomes of {shown['items']} items")
        _expect(shown["done"] == outcomes, f"run {run}: {shown['done']} done, {outcomes} outcomes")
        _expect(shown["dead"] == poisoned, f"run {run}: {shown['dead']} dead, {poisoned} poisoned")
        _expect(shown["chunks_done"] == shown["chunks"], f"run {run}: chunks are missing")
        listed = [each for each in report.listed if each["run"] == run]
        _expect(listed == [shown], f"run {run}: 'runs list' says other than 'runs show'")
    others = {each["run"] for each in report.listed} - set(report.runs)
    _expect(
        len(others) <= report.failed_producers,
        f"{len(others)} runs that nobody was told of, {report.failed_producers} producers failed",
    )
    for each in report.listed:
        _expect(each["done"] == each["items"], f"run {each['run']}: {each['done']} done of {each['items']} queued")
    left = report.status["items"]
    _expect(left == 0, f"status says that {left} items are to be done")
    for queue in report.status["queues"]:
        weight = (queue["jobs"], queue["bytes"], queue["items"])
        _expect(weight == (0, 0, 0), f"the empty queue of {queue['model_id']} weighs {weight}")
    return sum(shown["items"] for shown in report.shown.values())


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failure(otherwise)
