"""Dead letters in a real store: what ends one, what replaces one, and that none is lost on the way back."""

import asyncio
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from embedq_core.counts import Counts
from embedq_core.items import Item
from embedq_core.parts import Document
from embedq_core.settings import Settings
from embedq_core.vectors import encode
from embedq_jobs import Queue, new_run_id
from embedq_store import ChunkMark, DeadLetter, Incoming, Row, Selection, Store, Target, Write
from embedq_store.burying import Origin
from embedq_store.stale import _letters
from support.command_line import CommandLine
from support.requeueing import Moment, requeue_and_die
from support.waiting import BOUND_SECONDS

TARGET = Target("pets", "recording")
FRIDAY, SUNDAY, MONDAY = "20261113-180000-aaaaa", "20261115-120000-bbbbb", "20261116-090000-ccccc"
# Between Friday's run and Sunday's.
SATURDAY = Origin("20261114-120000-aaaaa", 0).began


@pytest.fixture
async def pets(tmp_path: Path) -> AsyncIterator[Store]:
    async with await Store.open(tmp_path / "embeddings.db") as store:
        yield store


def letter(
    content: str | bytes = "cat",
    id: str = "a",  # noqa: A002 - the field's name
    *,
    run: str = FRIDAY,
    chunk: int = 0,
    metadata: str | None = None,
    attempts: int = 1,
    died: float = SATURDAY,
    collection: str = "pets",
    model: str = "recording",
) -> DeadLetter:
    return DeadLetter(run, chunk, collection, id, content, metadata, model, "ValueError", "no", attempts, died)


def row(item: Item) -> Row:
    return Row(*Incoming.of([item])[0], encode([1.0, 2.0]))


async def bury(store: Store, *letters: DeadLetter) -> None:
    for each in letters:
        mark = ChunkMark(each.run, each.chunk, Counts(failed=1), finished=False)
        await store.write(Write(Target(each.collection, each.model), dead=[each], mark=mark))


async def keep(store: Store, *items: Item, run: str | None = MONDAY, chunk: int = 0) -> None:
    mark = None if run is None else ChunkMark(run, chunk, Counts(embedded=len(items)), finished=False)
    await store.write(Write(TARGET, [row(item) for item in items], mark=mark))


# --- what ends a dead letter


def test_the_id_of_a_run_tells_when_it_began() -> None:
    before = time.time()
    began = Origin(new_run_id(), 0).began
    # To the second.
    assert before - 1 <= began <= time.time()
    assert Origin("a run of another kind", 0).began == 0


async def test_an_item_that_is_stored_is_dead_no_longer(pets: Store) -> None:
    await bury(pets, letter("cat"), letter("dog", "b"))
    await keep(pets, Item("a", "cat"), run=FRIDAY)
    assert [each.id for each in await pets.dead.letters()] == ["b"]


async def test_row_and_letter_change_in_one_transaction(pets: Store) -> None:
    await bury(pets, letter("cat"))
    statements: list[str] = []
    assert pets._access.writing is not None
    await pets._access.writing.set_trace_callback(statements.append)
    await keep(pets, Item("a", "cat"))
    begun, ended = statements.index("BEGIN IMMEDIATE"), statements.index("COMMIT")
    (deleted,) = [at for at, text in enumerate(statements) if text.startswith("DELETE FROM embedq_dead")]
    (stored,) = [at for at, text in enumerate(statements) if text.startswith("INSERT OR REPLACE INTO embeddings")]
    assert begun < stored < deleted < ended


async def test_a_collection_without_dead_letters_costs_one_question_for_each_transaction(pets: Store) -> None:
    await bury(pets, letter(collection="others"))
    statements: list[str] = []
    assert pets._access.writing is not None
    await pets._access.writing.set_trace_callback(statements.append)
    await asyncio.gather(*(keep(pets, Item(str(number), "cat")) for number in range(100)))
    assert sum("embedq_dead" in text for text in statements) <= statements.count("COMMIT") <= 2


async def test_a_corrected_text_that_was_submitted_later_ends_the_letter_of_the_bad_one(pets: Store) -> None:
    await bury(pets, letter("bad text"))
    await keep(pets, Item("a", "good text"), run=SUNDAY)
    assert await pets.dead.letters() == []


async def test_a_version_that_was_submitted_before_the_item_died_does_not(pets: Store) -> None:
    """Friday's run is still at work when Sunday's version dies: storing the older one must not lose the newer one."""
    newer = letter("new text", run=SUNDAY, died=Origin(SUNDAY, 0).began + 60)
    await bury(pets, newer)
    await keep(pets, Item("a", "old text"), run=FRIDAY)
    assert await pets.dead.letters() == [newer]


async def test_within_a_run_the_later_chunk_holds_the_later_version(pets: Store) -> None:
    earlier, later = letter("old", run=FRIDAY, chunk=1), letter("new", "b", run=FRIDAY, chunk=3)
    await bury(pets, earlier, later)
    await keep(pets, Item("a", "good"), Item("b", "good"), run=FRIDAY, chunk=2)
    assert await pets.dead.letters() == [later]


async def test_what_a_program_stores_directly_is_later_than_everything(pets: Store) -> None:
    await bury(pets, letter("bad text", died=time.time() + 3600))
    await keep(pets, Item("a", "good text"), run=None)
    assert await pets.dead.letters() == []


async def test_metadata_that_is_not_stored_keeps_the_letter(pets: Store) -> None:
    died = Origin(SUNDAY, 0).began
    kept = letter("cat", metadata='{"n": 2}', run=SUNDAY, died=died)
    await bury(pets, kept, letter("dog", "b", metadata='{"n": 2}', run=SUNDAY, died=died))
    await keep(pets, Item("a", "cat", '{"n": 1}'), Item("b", "dog", '{"n": 2}'), run=FRIDAY)
    assert await pets.dead.letters() == [kept]


async def test_text_and_the_bytes_that_spell_it_are_told_apart(pets: Store) -> None:
    kept = letter(b"cat", run=SUNDAY, died=Origin(SUNDAY, 0).began)
    await bury(pets, kept)
    await keep(pets, Item("a", "cat"), run=FRIDAY)
    assert await pets.dead.letters() == [kept]
    await keep(pets, Item("a", b"cat"), run=FRIDAY)
    assert await pets.dead.letters() == []


async def test_an_update_of_what_is_stored_ends_the_letter_and_one_that_comes_too_late_does_not(pets: Store) -> None:
    await keep(pets, Item("a", "cat"), Item("b", "another text by now"))
    late = letter("dog", "b", metadata='{"n": 1}')
    with closing(sqlite3.connect(pets.path)) as other:
        # As an embedq without this rule has left it.
        other.execute(
            "INSERT INTO embedq_dead (run, chunk, collection, id, content, metadata, model, error, message, attempts,"
            " died) VALUES (?, 0, 'pets', 'a', 'cat', ?, 'recording', 'E', 'm', 1, ?)",
            (FRIDAY, '{"n": 1}', SATURDAY),
        )
        other.commit()
    await bury(pets, late)
    updates = Incoming.of([Item("a", "cat", '{"n": 1}'), Item("b", "dog", '{"n": 1}')])
    mark = ChunkMark(FRIDAY, 0, Counts(unchanged=2), finished=False)
    await pets.write(Write(TARGET, updates=updates, mark=mark))
    assert await pets.dead.letters() == [late]


async def test_of_another_collection_with_the_same_ids_nothing_changes(pets: Store) -> None:
    other = letter("cat", collection="others")
    await bury(pets, other)
    await keep(pets, Item("a", "cat"))
    assert await pets.dead.letters() == [other]


async def test_letters_and_rows_that_are_written_together_see_each_other(pets: Store) -> None:
    mark = ChunkMark(FRIDAY, 0, Counts(), finished=False)
    await asyncio.gather(
        pets.write(Write(TARGET, dead=[letter("cat")], mark=mark)),
        pets.write(Write(TARGET, [row(Item("a", "cat"))], mark=mark)),
    )
    assert await pets.dead.letters() == []


# --- what replaces one


async def test_one_that_fails_again_takes_the_place_of_the_old_one_and_attempts_add_up(pets: Store) -> None:
    await bury(pets, letter("cat", attempts=3), letter("dog", "b"))
    (old,) = await pets.dead.letters(ids=["a"])
    again = letter("cat", run=MONDAY, attempts=2, died=Origin(MONDAY, 0).began + 1)
    await bury(pets, again)
    (new,) = await pets.dead.letters(ids=["a"])
    assert new == replace(again, attempts=5)
    assert new.key == old.key
    assert len(await pets.dead.letters()) == 2


async def test_a_chunk_that_is_worked_off_twice_counts_its_attempts_once(pets: Store) -> None:
    await bury(pets, letter("cat", attempts=3))
    await bury(pets, letter("cat", attempts=3))
    assert [each.attempts for each in await pets.dead.letters()] == [3]


async def test_a_later_version_that_dies_replaces_the_earlier_one(pets: Store) -> None:
    await bury(pets, letter("bad"))
    worse = letter("worse", run=SUNDAY, died=Origin(SUNDAY, 0).began + 1)
    await bury(pets, worse)
    assert await pets.dead.letters() == [worse]


async def test_of_two_versions_whose_order_nobody_knows_both_are_kept(pets: Store) -> None:
    one, other = letter("one", died=Origin(MONDAY, 0).began), letter("other", run=SUNDAY, died=Origin(MONDAY, 0).began)
    await bury(pets, one, other)
    assert sorted(each.content or "" for each in await pets.dead.letters()) == ["one", "other"]


async def test_of_the_same_item_in_two_runs_at_once_there_is_one_letter(pets: Store) -> None:
    late = Origin(MONDAY, 0).began
    await bury(pets, letter("cat", run=SUNDAY, died=late), letter("cat", run=FRIDAY, died=late, metadata='{"n": 1}'))
    assert [(each.run, each.attempts) for each in await pets.dead.letters()] == [(FRIDAY, 2)]


async def test_a_key_that_stays_is_not_given_to_another_letter_of_the_same_write(pets: Store) -> None:
    await bury(pets, letter("dog", "d"))
    both = [letter("cat", "a", run=SUNDAY), letter("dog", "d", run=SUNDAY)]
    await pets.write(Write(TARGET, dead=both))
    assert sorted(each.id for each in await pets.dead.letters()) == ["a", "d"]


async def test_a_slow_worker_can_not_bury_what_another_has_stored(pets: Store) -> None:
    await keep(pets, Item("a", "cat", '{"n": 1}'), run=FRIDAY)
    await bury(pets, letter("cat"), letter("cat", metadata='{"n": 1}'))
    assert await pets.dead.letters() == []
    for different in (letter("dog"), letter("cat", metadata='{"n": 2}'), letter("cat", model="other")):
        await bury(pets, different)
        assert different in await pets.dead.letters()


versions = st.tuples(st.sampled_from("ab"), st.sampled_from(["cat", "dog", "cow"]), st.booleans())


@given(st.lists(st.lists(versions, max_size=4, unique_by=lambda version: version[0]), max_size=6))
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_runs_one_after_the_other_an_id_is_what_its_last_version_came_to(
    runs: list[list[tuple[str, str, bool]]],
) -> None:
    """Whatever came before: its last version is stored and no letter is left, or it is the only letter."""

    async def main() -> None:
        async with await Store.open() as store:
            held: dict[str, str] = {}
            last: dict[str, tuple[str, bool]] = {}
            for day, some in enumerate(runs, 10):
                run = f"202611{day}-120000-aaaaa"
                dead = [letter(text, id_, run=run, died=Origin(run, 0).began + 60) for id_, text, dies in some if dies]
                # What is stored with this content does not die: it is found unchanged, and no version of it is new.
                dead = [each for each in dead if held.get(each.id) != each.content]
                rows = [row(Item(id_, text)) for id_, text, dies in some if not dies]
                mark = ChunkMark(run, 0, Counts(), finished=True)
                await store.write(Write(TARGET, rows, dead=dead, mark=mark))
                held |= {each.item.id: str(each.item.content) for each in rows}
                last |= {each.item.id: (str(each.item.content), False) for each in rows}
                last |= {each.id: (str(each.content), True) for each in dead}
            letters = {each.id: str(each.content) for each in await store.dead.letters()}
            assert len(letters) == len(await store.dead.letters())
            assert letters == {id_: text for id_, (text, dead_now) in last.items() if dead_now}

    asyncio.run(main())


# --- looking at them


async def test_a_selection_leaves_out_what_does_not_match_all_of_it(pets: Store) -> None:
    letters = [letter("cat", "a"), letter("dog", "b", run=SUNDAY), letter("cow", "a", collection="others")]
    await bury(pets, *letters)

    async def ids(selection: Selection) -> set[tuple[str, str]]:
        return {(each.collection, each.id) for each in await pets.dead.headings(selection)}

    assert await ids(Selection(ids=("a",))) == {("pets", "a"), ("others", "a")}
    assert await ids(Selection(ids=("a",), collection="pets")) == {("pets", "a")}
    assert await ids(Selection(ids=("a", "b", "nobody"), run=SUNDAY)) == {("pets", "b")}
    assert await ids(Selection(error="KeyError")) == set()
    (key,) = [each.key for each in await pets.dead.headings(Selection(run=SUNDAY))]
    assert await ids(Selection(keys=(key,))) == {("pets", "b")}
    assert await ids(Selection(ids=("' OR 1 --",))) == set()
    assert len(await ids(Selection())) == 3


async def test_headings_tell_the_size_in_bytes_and_hold_no_content(pets: Store) -> None:
    await bury(pets, letter("é" * 10), letter(b"\x00" * 7, "b"))
    assert {each.id: each.size for each in await pets.dead.headings(Selection())} == {"a": 20, "b": 7}


async def test_pages_are_bounded_by_items_and_by_bytes_and_give_each_letter_once(pets: Store) -> None:
    await bury(pets, *(letter("x" * size, f"i{number}") for number, size in enumerate([10, 10, 10, 50, 1, 1])))
    (group,) = await pets.dead.groups(Selection())
    assert (group.collection, group.model, group.letters) == ("pets", "recording", 6)
    pages, key = [], 0
    while some := await pets.dead.page(Selection(), key, group.last_key, max_items=3, max_bytes=25):
        pages.append([each.id for each in some])
        key = some[-1].key or 0
    assert pages == [["i0", "i1"], ["i2"], ["i3"], ["i4", "i5"]]


async def test_what_died_since_a_purge_was_agreed_to_is_kept(pets: Store) -> None:
    await bury(pets, letter("cat"))
    (group,) = await pets.dead.groups(Selection())
    since = letter("dog", "b")
    await bury(pets, since)
    assert await pets.dead.delete(Selection(), group.last_key) == 1
    assert await pets.dead.letters() == [since]


async def test_letters_of_what_another_tool_has_stored_are_found(pets: Store) -> None:
    await bury(pets, letter("cat"), letter("dog", "b"), letter("cow", "c", metadata='{"n": 1}'))
    with closing(sqlite3.connect(pets.path)) as other:
        other.execute("INSERT INTO collections (name, model) VALUES ('pets', 'recording')")
        for item in (Item("a", "cat"), Item("b", "another"), Item("c", "cow")):
            other.execute(
                "INSERT INTO embeddings (collection_id, id, embedding, content_hash) VALUES (1, ?, ?, ?)",
                (item.id, encode([1.0]), Incoming.of([item])[0].digest),
            )
        other.commit()
    assert await pets.dead.delete_stored(Selection()) == 1
    assert {each.id for each in await pets.dead.letters()} == {"b", "c"}


async def test_a_database_that_an_earlier_embedq_made_gets_the_indexes(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.db"
    async with await Store.open(path):
        pass
    with closing(sqlite3.connect(path)) as other:
        other.executescript("DROP INDEX embedq_dead_item; DROP INDEX embedq_dead_error; DROP INDEX embedq_dead_died")
    async with await Store.open(path) as store:
        await bury(store, letter())
    with closing(sqlite3.connect(path)) as other:
        for question, answer in (
            ("SELECT 1 FROM embedq_dead WHERE collection = 'c' AND id IN ('a')", "COVERING INDEX embedq_dead_item"),
            ("SELECT key FROM embedq_dead ORDER BY died DESC, key DESC LIMIT 9", "COVERING INDEX embedq_dead_died"),
            (
                "SELECT collection, error, count(*) FROM embedq_dead GROUP BY collection, error ORDER BY 3",
                "COVERING INDEX embedq_dead_error",
            ),
        ):
            assert answer in str(other.execute(f"EXPLAIN QUERY PLAN {question}").fetchall())


# --- back into the queue


@pytest.fixture
def shared(embedq: CommandLine, settings: Settings) -> CommandLine:
    """The command line on the database and the Redis of the tests."""
    embedq.environment |= {
        "EMBEDQ_DATABASE": str(settings.database),
        "EMBEDQ_REDIS_URL": str.__str__(settings.redis_url),
        "EMBEDQ_CHUNK_ITEMS": "2",
    }
    return embedq


@pytest.mark.parametrize(("moment", "chunks"), [("before", 2), ("after", 3)])
async def test_a_requeue_that_is_killed_loses_no_letter_and_can_be_begun_again(
    shared: CommandLine, settings: Settings, store: Store, queue: Queue, moment: Moment, chunks: int
) -> None:
    letters = [letter(f"text {number}", f"i{number}", metadata='{"n": 1}') for number in range(7)]
    await bury(store, *letters)
    killed = requeue_and_die(shared.environment, moment, chunks)
    await asyncio.to_thread(killed.join, BOUND_SECONDS)
    assert killed.exitcode == -signal.SIGKILL
    assert sorted(await store.dead.letters(), key=lambda each: each.id) == letters
    (summary,) = await queue.runs.latest(2)
    assert (summary.chunks, summary.items, summary.closed) == (chunks, 2 * chunks, False)
    await asyncio.to_thread(shared, "dead", "requeue", "--all")
    await asyncio.to_thread(shared, "worker", "--burst")
    assert await store.dead.letters() == []
    with closing(sqlite3.connect(settings.database)) as database:
        found = database.execute("SELECT id, content, metadata FROM embeddings ORDER BY id").fetchall()
    assert found == [(each.id, each.content, each.metadata) for each in letters]


async def test_among_many_dead_letters_only_those_are_looked_at_that_are_asked_for(pets: Store) -> None:
    many = [letter(f"cat {number}", str(number)) for number in range(3000)]
    await pets.write(Write(TARGET, dead=many, mark=ChunkMark(FRIDAY, 0, Counts(failed=3000), finished=False)))
    hundreds: list[None] = []

    def count_steps(db: sqlite3.Connection) -> None:
        db.set_progress_handler(lambda: hundreds.append(None), 100)

    await pets.look(count_steps)
    page = await pets.dead.page(Selection(collection="pets"), 0, 3000, max_items=10, max_bytes=10**6)
    assert [each.id for each in page] == [str(number) for number in range(10)]
    assert len(hundreds) < 30
    hundreds.clear()
    documents = [Document(f"doc {number}", 2) for number in range(63)] + [Document("7", 1)]
    found = await pets.look(lambda db: _letters(db, "pets", documents, Origin(MONDAY, 0)))
    assert [document.id for document, _ in found] == ["7"]
    assert len(hundreds) < 300
