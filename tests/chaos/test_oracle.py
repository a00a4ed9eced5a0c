"""The oracle of the chaos test finds what is wrong: each kind of loss, made on purpose in an end that was good."""

import asyncio
import itertools
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from chaos.oracle import Failure, Report, judge
from chaos.plan import COLLECTIONS, Fault, Part, Plan, Row, casts, corpus, ends_of_producers
from embedq_core.items import Item, metadata_text
from embedq_core.vectors import encode
from embedq_store import DeadLetter, Incoming, Store, Target, Write
from embedq_store import Row as StoredRow
from support.models import vector_of

PLAN = Plan(seed=1, items=90, parts=2, poisoned=0.2)


@dataclass
class End:
    """What there is when all is done."""

    parts: list[Part]
    database: Path
    report: Report

    def judge(self) -> str:
        return judge(self.parts, self.database, self.report)

    def execute(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.database)) as db:
            for statement in statements:
                assert db.execute(statement).rowcount != 0, f"{statement} changed nothing"
            db.commit()


def letter(part: Part, item: Item) -> DeadLetter:
    model = COLLECTIONS[part.collection]
    return DeadLetter(
        f"{part.collection}-{part.number}",
        0,
        part.collection,
        item.id,
        item.content,
        item.metadata,
        model,
        "E",
        "",
        1,
        0.0,
    )


def items_of(part: Part, *, poisoned: bool) -> list[Item]:
    return [
        Item(row["id"], row["content"], metadata_text(row.get("metadata")))
        for row in part.rows
        if ("poison" in row["content"]) == poisoned
    ]


def shown(part: Part) -> Row:
    dead = len(items_of(part, poisoned=True))
    return {
        "run": f"{part.collection}-{part.number}",
        "collection": part.collection,
        "state": "complete",
        "items": len(part.rows),
        "done": len(part.rows),
        "chunks": 2,
        "chunks_done": 2,
        "embedded": len(part.rows) - dead - 3,
        "reused": 2,
        "unchanged": 1,
        "dead": dead,
    }


async def fill(database: Path, parts: list[Part]) -> None:
    async with await Store.open(database) as store:
        for part in parts:
            rows = [
                StoredRow(*incoming, encode(vector_of(incoming.item.content)))
                for incoming in Incoming.of(items_of(part, poisoned=False))
            ]
            dead = [letter(part, item) for item in items_of(part, poisoned=True)]
            await store.write(Write(Target(part.collection, COLLECTIONS[part.collection]), rows, dead=dead))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    database = tmp_path_factory.mktemp("oracle") / "embeddings.db"
    asyncio.run(fill(database, corpus(PLAN)))
    return database


@pytest.fixture
def end(filled: Path, tmp_path: Path) -> End:
    database = tmp_path / "embeddings.db"
    shutil.copy(filled, database)
    parts = corpus(PLAN)
    summaries = {f"{part.collection}-{part.number}": shown(part) for part in parts}
    queues = [{"model_id": model, "jobs": 0, "bytes": 0, "items": 0} for model in ("steady", "shaky")]
    report = Report(
        runs={f"{part.collection}-{part.number}": part for part in parts},
        shown=summaries,
        listed=[dict(summary) for summary in summaries.values()],
        status={"items": 0, "queues": queues},
        failed_producers=0,
    )
    return End(parts, database, report)


def test_a_good_end_is_good(end: End) -> None:
    poisoned = sum(len(items_of(part, poisoned=True)) for part in end.parts)
    assert poisoned
    assert end.judge().startswith(f"90 accepted = {90 - poisoned} stored + {poisoned} dead; none lost")


WITHOUT_KEYS = (
    "CREATE TABLE copy AS SELECT * FROM embeddings",
    "DROP TABLE embeddings",
    "ALTER TABLE copy RENAME TO embeddings",
)


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["DELETE FROM embeddings WHERE id = (SELECT min(id) FROM embeddings)"], "is lost"),
        (["DELETE FROM embedq_dead WHERE key = 1"], "is lost"),
        (["DELETE FROM embeddings"], "is lost"),
        ([*WITHOUT_KEYS, "INSERT INTO embeddings SELECT * FROM embeddings LIMIT 1"], "ids stand twice"),
        (
            [
                (
                    "INSERT INTO embedq_dead SELECT NULL, run, 99, collection, id, content, NULL, metadata, model,"
                    " error, message, attempts, died FROM embedq_dead LIMIT 1"
                )
            ],
            "items are dead twice",
        ),
        (
            [
                (
                    "INSERT INTO embedq_dead SELECT NULL, 'r', 0, 'alpha', id, content, NULL, metadata, 1, 2, 3, 4, 5"
                    " FROM embeddings WHERE id LIKE 'alpha/%' LIMIT 1"
                )
            ],
            "is stored and dead",
        ),
        (
            [
                (
                    "INSERT INTO embedq_dead SELECT NULL, 'r', 0, 'alpha', id, content, NULL, metadata, 1, 2, 3, 4, 5"
                    " FROM embeddings WHERE id LIKE 'alpha/%' LIMIT 1"
                ),
                "DELETE FROM embeddings WHERE id IN (SELECT id FROM embedq_dead)",
            ],
            "is dead, poisoned: False",
        ),
        (
            [
                (
                    "INSERT INTO embeddings SELECT c.id, d.id, x'00', d.content, NULL, x'00', d.metadata, 0"
                    " FROM embedq_dead d JOIN collections c ON c.name = d.collection WHERE d.key = 1"
                ),
                "DELETE FROM embedq_dead WHERE key = 1",
            ],
            "is stored, poisoned: True",
        ),
        (
            ["UPDATE embeddings SET content = content || ' ' WHERE id = 'alpha/6'"],
            "alpha/6 of alpha has another content",
        ),
        (["UPDATE embeddings SET content = NULL WHERE id = 'alpha/6'"], "alpha/6 of alpha has another content"),
        (["UPDATE embedq_dead SET content = 'poison' WHERE key = 1"], "has another content"),
        (["UPDATE embeddings SET metadata = '{\"number\": -1}' WHERE id = 'alpha/6'"], "has other metadata"),
        (["UPDATE embeddings SET metadata = NULL WHERE metadata NOT NULL"], "has other metadata"),
        (
            [
                "UPDATE embedq_dead SET metadata = '{}' WHERE metadata NOT NULL",
                "UPDATE embedq_dead SET metadata = '{\"a\": 1}'",
            ],
            "has other metadata",
        ),
        (
            ["UPDATE embeddings SET embedding = (SELECT embedding FROM embeddings WHERE id = 'alpha/24')"],
            "of alpha has another vector",
        ),
        (["UPDATE embeddings SET content_hash = x'00' WHERE id = 'alpha/6'"], "has the hash of another content"),
        (
            [
                (
                    "INSERT INTO embeddings SELECT collection_id, 'nobody', embedding, content, NULL, x'00', NULL, 0"
                    " FROM embeddings LIMIT 1"
                )
            ],
            "never sent.*nobody",
        ),
        (["UPDATE embeddings SET collection_id = 3 - collection_id WHERE id = 'alpha/6'"], "alpha/6 of alpha is lost"),
        (["UPDATE collections SET model = 'other' WHERE name = 'alpha'"], "the collections are"),
        (["DELETE FROM collections WHERE name = 'alpha'"], "the collections are"),
    ],
)
def test_what_is_lost_doubled_or_changed_in_the_database_is_found(end: End, statements: list[str], said: str) -> None:
    end.execute(*statements)
    with pytest.raises(Failure, match=said):
        end.judge()


def test_a_database_that_is_damaged_is_found(end: End) -> None:
    with closing(sqlite3.connect(end.database)) as db:
        root, size = db.execute(
            "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_master"
            " WHERE name = 'idx_embeddings_content_hash'"
        ).fetchone()
    data = bytearray(end.database.read_bytes())
    data[(root - 1) * size + size // 2 : root * size] = bytes(size - size // 2)
    end.database.write_bytes(data)
    with pytest.raises((Failure, sqlite3.DatabaseError), match=r"damaged|malformed"):
        end.judge()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("state", "in_progress", "is in_progress"),
        ("items", 14, "14 items, 15 were sent"),
        ("items", 30, "30 items, 15 were sent"),
        ("embedded", 0, "outcomes of 15 items"),
        ("unchanged", 2, "16 outcomes of 15 items"),
        ("reused", 3, "16 outcomes of 15 items"),
        ("done", 14, "14 done, 15 outcomes"),
        ("chunks_done", 1, "chunks are missing"),
        ("collection", "beta", "is of beta"),
    ],
)
def test_a_run_whose_counts_do_not_agree_is_found(end: End, field: str, value: object, said: str) -> None:
    for rows in (end.report.shown["alpha-0"], end.report.listed[0]):
        rows[field] = value
    with pytest.raises(Failure, match=said):
        end.judge()


def test_dead_items_that_are_counted_as_embedded_are_found(end: End) -> None:
    for rows in (end.report.shown["alpha-0"], end.report.listed[0]):
        rows["dead"], rows["embedded"] = rows["dead"] + 1, rows["embedded"] - 1
    with pytest.raises(Failure, match=r"dead, \d+ poisoned"):
        end.judge()


def drop_a_part(report: Report) -> Report:
    return replace(report, runs={run: part for run, part in report.runs.items() if run != "alpha-0"})


def send_a_part_twice(report: Report) -> Report:
    again = dict(report.shown["alpha-0"], run="again")
    return replace(
        report,
        runs=report.runs | {"again": report.runs["alpha-0"]},
        shown=report.shown | {"again": again},
        listed=[*report.listed, again],
    )


def run_of_nobody(report: Report) -> Report:
    return replace(report, listed=[*report.listed, dict(report.listed[0], run="nobody's")])


def interrupted_run_with_a_chunk_left(report: Report) -> Report:
    left = dict(report.listed[0], run="interrupted", done=3)
    return replace(report, listed=[*report.listed, left], failed_producers=1)


def list_and_show_differ(report: Report) -> Report:
    return replace(report, listed=[dict(report.listed[0], calls=7), *report.listed[1:]])


def something_to_do(report: Report) -> Report:
    return replace(report, status=dict(report.status, items=1))


def weight_of_nothing(report: Report) -> Report:
    return replace(
        report, status=dict(report.status, queues=[{"model_id": "steady", "jobs": 0, "bytes": -5, "items": 0}])
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop_a_part, "parts sent to their end"),
        (send_a_part_twice, "parts sent to their end"),
        (run_of_nobody, "1 runs that nobody was told of, 0 producers failed"),
        (interrupted_run_with_a_chunk_left, "interrupted: 3 done of 15 queued"),
        (list_and_show_differ, "'runs list' says other than 'runs show'"),
        (something_to_do, "1 items are to be done"),
        (weight_of_nothing, "empty queue of steady weighs"),
    ],
)
def test_what_the_commands_say_and_is_not_so_is_found(end: End, change: Callable[[Report], Report], said: str) -> None:
    end.report = change(end.report)
    with pytest.raises(Failure, match=said):
        end.judge()


# --- the seed


def test_a_seed_fixes_the_corpus_the_casts_and_the_victims_and_another_one_gives_others() -> None:
    def play(seed: int) -> object:
        plan = Plan(seed, items=300)
        return corpus(plan), *(list(itertools.islice(every(plan), 200)) for every in (casts, ends_of_producers))

    assert play(1) == play(1)
    assert all(one != other for one, other in zip(play(1), play(2), strict=True))  # type: ignore[call-overload] # a tuple


def test_over_many_casts_each_fault_has_its_share() -> None:
    plan = Plan(1)
    some = list(itertools.islice(casts(plan), 20_000))
    for fault, share in plan.faults.items():
        assert sum(cast.fault is fault for cast in some) / len(some) == pytest.approx(share, rel=0.25)
    assert {cast.victim for cast in some} == {0, 1, 2}


@pytest.mark.parametrize("seed", range(20))
def test_where_each_fault_is_to_happen_each_does_early(seed: int) -> None:
    plan = Plan(seed, each_once=True, faults={})
    assert {cast.fault for cast in itertools.islice(casts(plan), 16)} == {*Fault, None}


def test_the_corpus_has_poison_texts_that_repeat_and_metadata_in_every_part() -> None:
    for part in corpus(Plan(1)):
        assert items_of(part, poisoned=True)
        assert any("metadata" in row for row in part.rows)
    texts = [row["content"] for part in corpus(Plan(1)) for row in part.rows]
    assert len(set(texts)) < len(texts) == 24_000
