"""The oracle of the console's chaos test finds what is wrong: each kind, made on purpose in an end that was good."""

import asyncio
import re
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chaos.console_oracle import ConsoleEnd, Sent, items_of, judge, see
from chaos.console_plan import CHUNK_ITEMS, COLLECTIONS, SCOPES, Act, ConsolePlan, steps
from chaos.oracle import Failure
from embedq_core.counts import Counts
from embedq_core.items import Item
from embedq_core.vectors import encode
from embedq_jobs import QueueLoad, Run, RunSummary, Scope
from embedq_store import Incoming, Reembedding, Store, Target, Write
from embedq_store import Row as StoredRow
from support.console_plugin import marked_vector

# Of the second, one chunk of two was cancelled.
SENT = [Sent(0, "a", "pets", 2, cancelled=False), Sent(1, "b", "plants", 2, cancelled=True)]


def summary(run: str, collection: str, counts: Counts, chunks: int = 2, **values: Any) -> RunSummary:
    good = RunSummary(
        run=Run(run, collection, "one", "submission", 0.0),
        items=chunks * CHUNK_ITEMS,
        bytes=1,
        chunks=chunks,
        chunks_done=chunks,
        skipped=0,
        duplicates=0,
        closed=True,
        outcome="complete",
        beat=0.0,
        finished=1.0,
        counts=counts,
    )
    return replace(good, **values)


RUNS = [
    summary("a", "pets", Counts(embedded=30, unchanged=10)),
    summary("b", "plants", Counts(embedded=20, cancelled=20), cancelled=1.0),
    summary("c", "pets@next", Counts(embedded=40)),
]


async def write(store: Store, collection: str, model_id: str, items: Sequence[Item]) -> None:
    rows = [
        StoredRow(*incoming, encode(marked_vector(model_id, incoming.item.content))) for incoming in Incoming.of(items)
    ]
    await store.write(Write(Target(collection, model_id), rows))


async def fill(database: Path) -> list[Reembedding]:
    async with await Store.open(database) as store:
        pets = [*items_of(0, 0), *items_of(0, 1)]
        await write(store, "pets", "one", pets)
        await write(store, "plants", "one", items_of(1, 0))
        begun = await store.reembeddings.begin("pets", "two")
        await write(store, "pets@next", "two", pets)
        await store.reembeddings.switch(begun)
        return await store.reembeddings.all()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Reembedding]]:
    database = tmp_path_factory.mktemp("console") / "embeddings.db"
    return database, asyncio.run(fill(database))


@pytest.fixture
def end(filled: tuple[Path, list[Reembedding]], tmp_path: Path) -> ConsoleEnd:
    original, reembeddings = filled
    database = tmp_path / "embeddings.db"
    shutil.copy(original, database)
    loads = [QueueLoad(model_id, 0, 0, 0, 0, 0, None) for model_id in ("one", "two")]
    return ConsoleEnd(SENT, RUNS, loads, [], reembeddings, database)


def execute(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database)) as db:
        for statement in statements:
            assert db.execute(statement).rowcount != 0, f"{statement} changed nothing"
        db.commit()


def test_a_good_end_is_good(end: ConsoleEnd) -> None:
    assert judge(end) == ("80 accepted, 60 stored, 20 cancelled, 1 switch; none lost, none counted twice, no mix")
    seen: set[str] = set()
    see(end.database, seen)
    assert seen == {"pets", "pets@previous", "plants"}


OF_PETS = "WHERE collection_id = (SELECT id FROM collections WHERE name = 'pets')"
OLD = "(SELECT o.embedding FROM embeddings o JOIN collections c ON c.id = o.collection_id AND c.name = 'pets@previous'"


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        ([f"DELETE FROM embeddings {OF_PETS} AND id = '0-1-7'"], "1 items of run a to pets are lost"),
        ([f"DELETE FROM embeddings {OF_PETS}"], "40 items of run a"),
        (["DELETE FROM embeddings WHERE id = '1-0-3'"], "21 items of run b to plants are lost, 20 were cancelled"),
        (["UPDATE collections SET name = 'pets@removing-1' WHERE name = 'pets'"], "there are collections"),
        (
            [
                "CREATE TABLE copy AS SELECT * FROM embeddings",
                "DROP TABLE embeddings",
                "ALTER TABLE copy RENAME TO embeddings",
                f"INSERT INTO embeddings SELECT * FROM embeddings {OF_PETS} LIMIT 1",
            ],
            "of pets stands twice",
        ),
        (
            [f"UPDATE embeddings SET embedding = {OLD} AND o.id = embeddings.id) {OF_PETS} AND id = '0-0-1'"],
            "0-0-1 of pets has another vector than two gives",
        ),
        (["UPDATE collections SET model = 'two' WHERE name = 'pets@previous'"], "has another vector than two gives"),
        ([f"UPDATE embeddings SET content = 'x' {OF_PETS} AND id = '0-0-1'"], "has another content"),
        ([f"UPDATE embeddings SET content_hash = x'00' {OF_PETS} AND id = '0-0-1'"], "the hash of another content"),
        ([f"UPDATE embeddings SET id = 'nobody' {OF_PETS} AND id = '0-0-1'"], "nobody of pets was never sent"),
        (
            ["INSERT INTO embedq_dead VALUES (NULL, 'a', 0, 'pets', '0-0-1', 'x', NULL, NULL, 'one', 'E', 'm', 1, 1)"],
            "1 items are dead",
        ),
    ],
)
def test_what_is_lost_mixed_or_left_in_the_database_is_found(end: ConsoleEnd, statements: list[str], said: str) -> None:
    execute(end.database, *statements)
    with pytest.raises(Failure, match=said):
        judge(end)


def with_run(number: int, **values: Any) -> Callable[[ConsoleEnd], ConsoleEnd]:
    runs = [replace(each, **values) if place == number else each for place, each in enumerate(RUNS)]
    return lambda end: replace(end, runs=runs)


def with_load(**values: Any) -> Callable[[ConsoleEnd], ConsoleEnd]:
    return lambda end: replace(end, loads=[replace(end.loads[0], **values), *end.loads[1:]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda end: replace(end, runs=RUNS[1:]), "run a is not in the ledger"),
        (with_run(0, counts=Counts(embedded=30, unchanged=30)), "60 outcomes of 40 items"),
        (with_run(0, counts=Counts(embedded=39)), "39 outcomes of 40 items"),
        (with_run(0, counts=Counts(embedded=39, failed=1)), "1 failed"),
        (with_run(0, counts=Counts(embedded=20, cancelled=20)), "20 cancelled, and nobody did that"),
        (with_run(0, cancelled=1.0), "is cancelled, not complete"),
        (with_run(0, chunks_done=1), "is in_progress, not complete"),
        (with_run(0, chunks=3, chunks_done=3), "3 chunks, 2 were accepted"),
        (with_run(0, items=20), "20 items, 40 were accepted"),
        (with_run(1, cancelled=None), "is complete, not cancelled"),
        (with_run(1, chunks_done=1), "1 of 2 chunks are done"),
        (with_run(1, counts=Counts(embedded=40)), "20 items of run b to plants are lost, 0 were cancelled"),
        (with_run(2, chunks_done=1), "1 of 2 chunks are done"),
        (with_run(2, counts=Counts(embedded=60)), "60 outcomes of 40 items"),
        (with_load(jobs=1), "in the queue of one are left"),
        (with_load(bytes=-5), "in the queue of one are left"),
        (with_load(items=20), "in the queue of one are left"),
        (lambda end: replace(end, keys=["arq:job:a:1"]), "keys are left in Redis"),
        (
            lambda end: replace(end, reembeddings=[replace(end.reembeddings[0], state="stopped")]),
            "re-embeddings have not come to an end",
        ),
    ],
)
def test_what_ledger_and_queue_say_and_is_not_so_is_found(
    end: ConsoleEnd, change: Callable[[ConsoleEnd], ConsoleEnd], said: str
) -> None:
    with pytest.raises(Failure, match=said):
        judge(change(end))


def test_a_reader_notices_a_mix_and_a_collection_that_is_gone(end: ConsoleEnd) -> None:
    seen: set[str] = set()
    see(end.database, seen)
    execute(end.database, "DELETE FROM embeddings WHERE id LIKE '1-%'")
    with pytest.raises(Failure, match=r"found nothing in \['plants'\]"):
        see(end.database, seen)
    see(end.database, {"pets"})
    execute(end.database, f"UPDATE embeddings SET embedding = {OLD} LIMIT 1) {OF_PETS} AND id = '0-0-1'")
    with pytest.raises(Failure, match="1 vectors of pets are of another model than two"):
        see(end.database, {"pets"})


# --- the seed


def test_a_seed_fixes_every_act_and_another_one_gives_others() -> None:
    assert steps(ConsolePlan(1)) == steps(ConsolePlan(1))
    assert steps(ConsolePlan(1)) != steps(ConsolePlan(2))
    printed = [str(step) for step in steps(ConsolePlan(1))]
    assert re.fullmatch(r"\+0\.\d{3} s  send 0 to (pets|plants), (high|normal), chunks [12]+", printed[0])
    assert all(line.startswith("+0.") for line in printed)


@pytest.mark.parametrize("seed", range(10))
def test_where_each_act_is_to_happen_each_does_early(seed: int) -> None:
    plan = ConsolePlan(seed, steps=30, each_once=True)
    assert {step.act for step in steps(plan)[: 2 * len(Act)]} == set(Act)


def test_over_many_steps_each_act_has_its_share_and_means_something_that_is_there() -> None:
    plan = ConsolePlan(1, steps=20_000)
    done = steps(plan)
    for act, share in plan.shares.items():
        number = sum(step.act is act for step in done)
        assert number / len(done) == pytest.approx(share / sum(plan.shares.values()), rel=0.25)
    assert {step.number for step in done if step.act is Act.KILL} == set(range(plan.workers))
    assert {step.collection for step in done if step.act is Act.REEMBED} == set(COLLECTIONS)
    assert {Scope.of(step.scope) for step in done if step.act is Act.PAUSE} == {Scope.of(scope) for scope in SCOPES}
    sent = 0
    for step in done:
        assert step.act is not Act.SEND or step.number == sent
        assert step.act not in (Act.CANCEL, Act.AGAIN) or step.number < sent
        sent += step.act is Act.SEND
