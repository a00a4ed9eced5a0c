"""A collection is embedded anew beside itself: what is missing, what covers it, the switch, the way back."""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from embedq_core.errors import (
    CollectionMissing,
    CollectionMoved,
    ContentMissing,
    DatabaseReadOnly,
    NotCovered,
    ReembeddingMissing,
    UsageError,
)
from embedq_core.items import Item
from embedq_core.vectors import encode
from embedq_store import (
    Coverage,
    DeadLetter,
    Incoming,
    Moved,
    Reembedding,
    RolledBack,
    Row,
    Store,
    Target,
    Write,
    beginning,
    removing,
    rolling_back,
    switching,
)
from embedq_store.bulk import in_thread
from embedq_store.marks import Mark, Since, since

OLD, NEW = [1.0, 0.0, 0.0], [0.0, 1.0]

VECTORS = {"old": encode(OLD), "new": encode(NEW)}


async def put(
    store: Store,
    collection: str,
    model: str,
    texts: Mapping[str, str | bytes],
    metadata: str | None = None,
    *,
    keep: bool = True,
) -> None:
    rows = [
        Row(*entry, VECTORS[model]) for entry in Incoming.of([Item(id_, text, metadata) for id_, text in texts.items()])
    ]
    await store.write(Write(Target(collection, model), rows, store=keep))


async def bury(store: Store, collection: str, model: str, texts: Mapping[str, str], run: str = "r") -> None:
    letters = [
        DeadLetter(run, 0, collection, id_, text, None, model, "ContentRefused", "no", 1, 1e9)
        for id_, text in texts.items()
    ]
    await store.write(Write(Target(collection, model), dead=letters))


async def embed_missing(store: Store, record: Reembedding) -> list[str]:
    """Do what a worker does, and return the ids that it was given."""
    ids: list[str] = []
    while page := await store.reembeddings.missing(record, ids[-1] if ids else None, max_items=2, max_bytes=1_000_000):
        ids += [item.id for item in page]
        rows = [Row(*entry, VECTORS[record.new_model]) for entry in Incoming.of(page)]
        await store.write(Write(Target(record.next_name, record.new_model), rows))
    return ids


async def contents(store: Store, collection: str) -> dict[str, tuple[str, int]]:
    """Content and dimension of each entry."""
    found = await store.collection(collection)
    with closing(sqlite3.connect(store.path)) as db:
        rows = db.execute(
            "SELECT id, coalesce(content, content_blob), length(embedding) / 4 FROM embeddings WHERE collection_id = ?",
            (found.id,),
        )
        return {row[0]: (row[1], row[2]) for row in rows}


def change(store: Store, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(store.path, isolation_level=None)) as db:
        db.execute(sql, values)


async def names(store: Store) -> dict[str, str]:
    return {info.name: info.model_id for info in await store.collections()}


async def letters(store: Store) -> set[tuple[str, str]]:
    return {(letter.collection, letter.id) for letter in await store.dead.letters()}


async def switched(store: Store) -> Reembedding:
    record = await store.reembeddings.begin("docs", "new")
    await embed_missing(store, record)
    return (await store.reembeddings.switch(record)).reembedding


async def test_new_vectors_are_made_beside_the_old_and_take_their_place(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound", "b": b"\x00cat", "c": "bird"}, '{"n": NaN}')
    record = await store.reembeddings.begin("docs", "new", golden="{}", recall=0.9)
    assert (record.collection, record.old_model, record.new_model, record.state) == ("docs", "old", "new", "embedding")
    assert await store.reembeddings.coverage(record) == Coverage(entries=3, missing=3)
    assert (await store.reembeddings.roles())["docs@next"].kind == "next"
    with pytest.raises(NotCovered, match="3 entries of 'docs' still to be embedded with new"):
        await store.reembeddings.switch(record)
    assert await names(store) == {"docs": "old", "docs@next": "new"}
    assert await embed_missing(store, record) == ["a", "b", "c"]
    assert (await store.reembeddings.coverage(record)).complete
    done = await store.reembeddings.switch(record)
    assert (done.entries, done.dead, done.reembedding.state) == (3, 0, "switched")
    roles = await store.reembeddings.roles()
    assert [(name, role.collection, role.kind) for name, role in roles.items()] == [
        ("docs@previous", "docs", "previous")
    ]
    assert await names(store) == {"docs": "new", "docs@previous": "old"}
    assert await contents(store, "docs") == {"a": ("hound", 2), "b": (b"\x00cat", 2), "c": ("bird", 2)}
    found = await store.collection("docs")
    assert [entry.id for entry in await store.search.similar(found.id, NEW, 3)] == ["a", "b", "c"]
    assert await store.reembeddings.open() == []


# --- what covers what


@pytest.mark.parametrize("thorough", [False, True])
async def test_what_comes_and_goes_meanwhile_is_seen_until_the_switch(store: Store, thorough: bool) -> None:
    await put(store, "docs", "old", {"a": "hound", "b": "cat", "c": "bird"})
    record = await store.reembeddings.begin("docs", "new")
    await embed_missing(store, record)
    await put(store, "docs", "old", {"b": "tomcat", "d": "fish"}, '{"late": 1}')
    await put(store, "docs", "old", {"a": "hound"}, '{"tag": "x"}')
    change(store, "DELETE FROM embeddings WHERE id = 'c' AND collection_id = ?", record.source)
    assert await store.reembeddings.coverage(record) == Coverage(entries=3, covered=1, missing=2, extra=1)
    assert await embed_missing(store, record) == ["b", "d"]
    if thorough:  # as where others delete something just before the lock is taken
        await store._access.transact(lambda db: in_thread(db, lambda c: switching.switch(c, record, None)))
    else:
        await store.reembeddings.switch(record)
    assert await contents(store, "docs") == {"a": ("hound", 2), "b": ("tomcat", 2), "d": ("fish", 2)}
    found = await store.collection("docs")
    entries = await store.search.similar(found.id, NEW, 3)
    assert {entry.id: entry.metadata for entry in entries} == {"a": {"tag": "x"}, "b": {"late": 1}, "d": {"late": 1}}


@pytest.mark.parametrize("where", ["after the survey", "before it"])
async def test_what_is_written_just_before_the_switch_is_not_left_behind(store: Store, where: str) -> None:
    await put(store, "docs", "old", {"a": "hound", "b": "cat"})
    record = await store.reembeddings.begin("docs", "new")
    await embed_missing(store, record)
    survey = switching.Survey(Mark(0, 0, 0, 0, ()), Coverage(), 0)
    if where == "after the survey":
        pair = switching.forward(record)
        mark = await in_thread(store._access.reader, lambda db: Mark.of(db, pair))
        survey = switching.Survey(mark, await store.reembeddings.coverage(record), 0)
    await put(store, "docs", "old", {"b": "tomcat"})
    with pytest.raises(NotCovered, match="1 entry of 'docs'"):
        await store._access.transact(lambda db: in_thread(db, lambda c: switching.switch(c, record, survey)))
    assert await names(store) == {"docs": "old", "docs@next": "new"}


@pytest.fixture
def _only_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no switch go through all of two collections with the lock held."""

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(switching, "ranges", never)
    monkeypatch.setattr(switching, "_coverage", never)


def just_before_the_switch(store: Store, monkeypatch: pytest.MonkeyPatch, happening: Callable[[], object]) -> None:
    """Have something happen after all was gone through, once."""
    remove, happenings = store.reembeddings._remove_earlier, [happening]

    async def removing(record: Reembedding) -> None:
        if happenings:
            happenings.pop()()
        await remove(record)

    monkeypatch.setattr(store.reembeddings, "_remove_earlier", removing)


@pytest.mark.usefixtures("_only_what_changed")
async def test_what_is_deleted_just_before_the_switch_is_deleted_there_and_rows_in_its_place_are_seen(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store, "docs", "old", {"a": "hound", "b": "cat", "c": "bird", "d": "dove"})
    record = await store.reembeddings.begin("docs", "new")
    await embed_missing(store, record)
    # Found when all is gone through.
    change(store, "DELETE FROM embeddings WHERE id = 'd' AND collection_id = ?", record.source)
    # One more that is the last row of the table: its place is given to what comes next.
    await put(store, "docs@next", "new", {"z": "zebra"})
    await put(store, "docs", "old", {"z": "zebra"})

    def deleting() -> None:
        for id_ in ("b", "z"):
            change(store, "DELETE FROM embeddings WHERE id = ? AND collection_id = ?", id_, record.source)
        row = "collection_id, 'x', embedding, content, content_blob, content_hash, metadata, updated"
        sql = f"INSERT INTO embeddings SELECT {row} FROM embeddings WHERE id = 'a' AND collection_id = ?"
        change(store, sql, record.source)

    just_before_the_switch(store, monkeypatch, deleting)
    with pytest.raises(NotCovered, match="1 entry of 'docs'"):
        await store.reembeddings.switch(record)
    assert await embed_missing(store, record) == ["x"]
    await store.reembeddings.switch(record)
    assert await contents(store, "docs") == {"a": ("hound", 2), "c": ("bird", 2), "x": ("hound", 2)}
    assert await store.look(deletions) == []


@pytest.mark.usefixtures("_only_what_changed")
async def test_a_new_vector_that_is_deleted_just_before_the_switch_is_late(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store, "docs", "old", {"a": "hound", "b": "cat"})
    record = await store.reembeddings.begin("docs", "new")
    await embed_missing(store, record)
    just_before_the_switch(
        store,
        monkeypatch,
        lambda: change(store, "DELETE FROM embeddings WHERE id = 'b' AND collection_id = ?", record.shadow),
    )
    with pytest.raises(NotCovered, match="1 entry of 'docs'"):
        await store.reembeddings.switch(record)
    assert [item.id for item in await store.reembeddings.latecomers(record, max_items=9)] == ["b"]
    await put(store, "docs@next", "new", {"b": "cat"})
    await store.reembeddings.switch(record)
    assert await contents(store, "docs") == {"a": ("hound", 2), "b": ("cat", 2)}


@pytest.mark.parametrize("change_in_place", ["metadata = 'm'", "embedding = zeroblob(12)"])
async def test_what_is_changed_in_place_just_before_the_switch_is_more_than_can_be_told(
    store: Store, change_in_place: str
) -> None:
    await put(store, "docs", "old", {"a": "hound", "b": "cat"})
    record = await store.reembeddings.begin("docs", "new")
    await embed_missing(store, record)
    pair = switching.forward(record)
    mark = await store.look(lambda db: Mark.of(db, pair))
    change(store, "DELETE FROM embeddings WHERE id = 'b' AND collection_id = ?", record.source)
    assert await store.look(lambda db: since(db, pair, mark)) == Since(mark.last_row, mark.logged)
    change(store, f"UPDATE embeddings SET {change_in_place} WHERE id = 'a' AND collection_id = ?", record.source)
    assert await store.look(lambda db: since(db, pair, mark)) is None
    await store.reembeddings.switch(record)
    assert await contents(store, "docs") == {"a": ("hound", 2)}


async def test_ids_of_what_was_deleted_are_kept_while_a_collection_is_embedded_anew_and_no_longer(
    store: Store,
) -> None:
    await put(store, "docs", "old", {"a": "hound", "b": "cat", "c": "bird"})
    change(store, "DELETE FROM embeddings WHERE id = 'a'")
    assert await store.look(deletions) == []
    record = await store.reembeddings.begin("docs", "new")
    change(store, "DELETE FROM embeddings WHERE id = 'b'")
    assert await store.look(deletions) == [(record.shadow, "b")]
    await store.reembeddings.cancel("docs")
    change(store, "DELETE FROM embeddings WHERE id = 'c'")
    assert await store.look(deletions) == []


def deletions(db: sqlite3.Connection) -> list[tuple[int, str]]:
    return db.execute("SELECT shadow, id FROM embedq_reembedding_deletions ORDER BY number").fetchall()


async def test_dead_letters_account_for_what_the_new_model_could_not_embed(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound", "b": "cat"})
    await bury(store, "docs", "old", {"z": "never stored"}, "r0")
    record = await store.reembeddings.begin("docs", "new")
    await bury(store, "docs@next", "new", {"b": "cat", "a": "an earlier text"})
    assert await store.reembeddings.coverage(record) == Coverage(entries=2, dead=1, missing=1)
    assert await embed_missing(store, record) == ["a"]
    done = await store.reembeddings.switch(record)
    assert (done.entries, done.dead) == (1, 1)
    assert await letters(store) == {("docs@previous", "z"), ("docs", "b")}


async def test_an_empty_collection_takes_its_new_model_at_once(store: Store) -> None:
    await store.create_collection("docs", "old")
    record = await store.reembeddings.begin("docs", "new")
    assert (await store.reembeddings.switch(record)).entries == 0
    assert await names(store) == {"docs": "new", "docs@previous": "old"}
    assert (await store.reembeddings.rollback("docs")).newcomers == 0


async def test_a_wrong_hash_does_not_keep_an_entry_missing_for_ever(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound"})
    change(store, "UPDATE embeddings SET content_hash = x'00'")
    record = await store.reembeddings.begin("docs", "new")
    assert await embed_missing(store, record) == ["a"]
    assert await store.reembeddings.coverage(record) == Coverage(entries=1, covered=1)


async def test_pages_hold_as_much_as_was_asked_for_and_go_on_after_an_id(store: Store) -> None:
    await put(store, "docs", "old", {f"{number:04}": "x" * 100 for number in range(5000)})
    record = await store.reembeddings.begin("docs", "new")
    ids: list[str] = []
    while page := await store.reembeddings.missing(record, ids[-1] if ids else None, max_items=900, max_bytes=50_000):
        assert len(page) <= 500
        ids += [item.id for item in page]
    assert ids == [f"{number:04}" for number in range(5000)]
    await put(store, "docs@next", "new", dict.fromkeys(ids[:-1], "x" * 100))
    (last,) = await store.reembeddings.missing(record, None, max_items=9, max_bytes=1)
    assert last == Item("4999", "x" * 100)


# --- beginning


async def test_contents_that_were_not_stored_are_named(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound"})
    await put(store, "docs", "old", {"b": "cat", "c": "bird"}, keep=False)
    with pytest.raises(ContentMissing, match=r"2 entries of 'docs' were not stored \(ids b, c\).*--store"):
        await store.reembeddings.begin("docs", "new")
    assert await names(store) == {"docs": "old"}
    await put(store, "docs", "old", {"b": "cat", "c": "bird"})
    record = await store.reembeddings.begin("docs", "new")
    await put(store, "docs", "old", {"d": "fish"}, keep=False)
    assert await store.reembeddings.coverage(record) == Coverage(entries=4, missing=3, without_content=1)
    assert len(await embed_missing(store, record)) == 3
    with pytest.raises(NotCovered):
        await store.reembeddings.switch(record)


async def test_what_makes_no_sense_is_refused_before_anything_is_made(store: Store) -> None:
    with pytest.raises(CollectionMissing):
        await store.reembeddings.begin("docs", "new")
    await put(store, "docs", "old", {"a": "hound"})
    with pytest.raises(UsageError, match=r"with old already: .*--force"):
        await store.reembeddings.begin("docs", "old")
    for name in ("docs@next", "docs@previous"):
        beside = await store.create_collection(name, "old")
        with pytest.raises(UsageError, match=f"'{name}', and its name is needed"):
            await store.reembeddings.begin("docs", "new")
        with pytest.raises(UsageError, match="beside 'docs'"):
            await store.reembeddings.begin(name, "new")
        await store.delete_collection(beside.id)
    assert await store.reembeddings.all() == []
    record = await store.reembeddings.begin("docs", "old", force=True)
    assert await store.reembeddings.coverage(record) == Coverage(entries=1, missing=1)


async def test_beginning_again_goes_on_and_another_model_is_told_to_wait(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound"})
    first = await store.reembeddings.begin("docs", "new", golden="one", drop_old=True)
    await store.reembeddings.note_run(first, "run-1")
    assert (await store.reembeddings.stop(first, "recall fell")).message == "recall fell"
    again = await store.reembeddings.begin("docs", "new", golden="two")
    assert again == replace(first, golden="two", run="run-1")
    with pytest.raises(UsageError, match=r"anew with new: .*--cancel"):
        await store.reembeddings.begin("docs", "third")


# --- the way back


async def thorough_rollback(store: Store) -> RolledBack:
    """As where others change things just before the lock is taken: nothing that was found before counts."""

    def roll_back(db: sqlite3.Connection) -> RolledBack:
        return rolling_back.roll_back(db, "docs", None)

    return await store._access.transact(lambda db: in_thread(db, roll_back))


@pytest.mark.parametrize("thorough", [False, True])
async def test_a_rollback_restores_and_loses_nothing_that_came_since(store: Store, thorough: bool) -> None:
    await put(store, "docs", "old", {"a": "hound", "b": "cat", "c": "bird", "d": "worm"})
    record = await store.reembeddings.begin("docs", "new")
    await bury(store, "docs@next", "new", {"d": "worm"})
    await embed_missing(store, record)
    await store.reembeddings.switch(record)
    await put(store, "docs", "new", {"b": "tomcat", "e": "fish"})
    await put(store, "docs", "new", {"a": "hound"}, '{"tag": 1}')
    await bury(store, "docs", "new", {"f": "frog"}, "r2")
    change(store, "DELETE FROM embeddings WHERE id = 'c' AND collection_id = ?", record.shadow)
    done = await (thorough_rollback(store) if thorough else store.reembeddings.rollback("docs"))
    assert (done.newcomers, done.without_content, done.removed, done.letters) == (2, 0, 1, 1)
    assert await names(store) == {"docs": "old", "docs@next": "new"}
    assert await contents(store, "docs") == {"a": ("hound", 3), "b": ("cat", 3), "d": ("worm", 3)}
    assert await letters(store) == {("docs@next", "d"), ("docs", "f")}
    with pytest.raises(UsageError, match="2 entries still to be embedded with old, and in 'docs@next' alone"):
        await store.reembeddings.drop("docs")

    page = await store.reembeddings.newcomers(done.reembedding, None, max_items=9, max_bytes=99)
    assert [(item.id, item.content) for item in page] == [("b", "tomcat"), ("e", "fish")]
    await put(store, "docs", "old", {"b": "tomcat"})
    await bury(store, "docs", "old", {"e": "fish"}, "r3")
    assert await store.reembeddings.owed(done.reembedding) == (0, 0)
    await store.reembeddings.drop("docs")
    assert await names(store) == {"docs": "old"}
    assert await letters(store) == {("docs", "f"), ("docs", "e")}


async def test_what_is_written_just_before_a_rollback_is_not_left_behind(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound"})
    record = await switched(store)
    pair = rolling_back.backward(record, record.previous_name)
    mark = await store.look(lambda db: Mark.of(db, pair))
    await put(store, "docs", "new", {"a": "poodle", "b": "cat"})

    def roll_back(db: sqlite3.Connection) -> RolledBack:
        return rolling_back.roll_back(db, "docs", rolling_back.Differences(mark, []))

    done = await store._access.transact(lambda db: in_thread(db, roll_back))
    assert done.newcomers == 2
    page = await store.reembeddings.newcomers(done.reembedding, None, max_items=9, max_bytes=99)
    assert [item.content for item in page] == ["poodle", "cat"]


async def test_what_is_changed_after_a_rollback_is_newer_than_what_came_before_it(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound"})
    await switched(store)
    await put(store, "docs", "new", {"a": "poodle", "b": "cat"})
    done = await store.reembeddings.rollback("docs")
    await put(store, "docs", "old", {"a": "terrier"})
    page = await store.reembeddings.newcomers(done.reembedding, None, max_items=9, max_bytes=99)
    assert [item.id for item in page] == ["b"]


async def test_rolling_forward_again_pays_for_nothing_and_keeps_newcomers(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound", "b": "cat"})
    first = await switched(store)
    await put(store, "docs", "new", {"b": "tomcat", "c": "bird"})
    await store.reembeddings.rollback("docs")
    with pytest.raises(UsageError, match=r"vectors of new that a rollback of 'docs' kept .*drop-old docs"):
        await store.reembeddings.begin("docs", "third")
    again = await store.reembeddings.begin("docs", "new")
    assert again.shadow == first.shadow
    with pytest.raises(ReembeddingMissing):
        await store.reembeddings.drop("docs")
    await put(store, "docs", "old", {"d": "dove"})
    assert await store.reembeddings.coverage(again) == Coverage(entries=3, covered=2, missing=1)
    assert await embed_missing(store, again) == ["d"]
    await store.reembeddings.cancel("docs")
    assert await names(store) == {"docs": "old", "docs@next": "new"}
    again = await store.reembeddings.begin("docs", "new")
    await store.reembeddings.switch(again)
    assert await contents(store, "docs") == {
        "a": ("hound", 2),
        "b": ("tomcat", 2),
        "c": ("bird", 2),
        "d": ("dove", 2),
    }
    done = await store.reembeddings.rollback("docs")
    assert done.newcomers == 2


async def test_an_update_that_the_new_model_refused_survives_the_way_there_and_back(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound"})
    record = await store.reembeddings.begin("docs", "new")
    await embed_missing(store, record)
    await put(store, "docs", "old", {"a": "poodle"})
    await bury(store, "docs@next", "new", {"a": "poodle"})
    await store.reembeddings.switch(record)
    assert await contents(store, "docs") == {"a": ("hound", 2)}
    assert (await store.reembeddings.rollback("docs")).newcomers == 0
    assert await contents(store, "docs") == {"a": ("poodle", 3)}


async def test_what_an_audit_has_cleared_beside_the_collection_is_not_covered(store: Store) -> None:
    """Its vector may be of zeros, and chunks that were to mend it are dropped after the switch."""
    await put(store, "docs", "old", {"a": "hound", "b": "cat"})
    record = await store.reembeddings.begin("docs", "new")
    await embed_missing(store, record)
    change(store, "UPDATE embeddings SET embedding = zeroblob(4) WHERE collection_id = ? AND id = 'a'", record.shadow)
    assert await store.audits.clear(record.shadow, 2, []) == 1
    assert (await store.reembeddings.coverage(record)).missing == 1
    assert await embed_missing(store, record) == ["a"]
    await store.reembeddings.switch(record)
    # And the old ones, which a rollback would bring back.
    change(store, "UPDATE embeddings SET embedding = zeroblob(4) WHERE collection_id = ? AND id = 'b'", record.source)
    assert await store.audits.clear(record.source, 3, []) == 1
    done = await store.reembeddings.rollback("docs")
    assert done.newcomers == 1
    found = await store.reembeddings.newcomers(done.reembedding, None, max_items=9, max_bytes=999)
    assert [item.id for item in found] == ["b"]


async def test_an_audit_after_a_rollback_does_not_hide_what_is_newer_beside_the_collection(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound"})
    await switched(store)
    await put(store, "docs", "new", {"a": "poodle"})
    record = (await store.reembeddings.rollback("docs")).reembedding
    (old,) = Incoming.of([Item("a", "hound")])
    assert await store.audits.clear(record.source, 3, [old.digest]) == 1
    assert await store.reembeddings.owed(record) == (1, 0)
    with pytest.raises(UsageError, match="1 entry still to be embedded with old"):
        await store.reembeddings.drop("docs")
    # Nor does the way forward take what was cleared for newer.
    again = await store.reembeddings.begin("docs", "new")
    assert await store.reembeddings.coverage(again) == Coverage(entries=1, covered=1)


async def test_an_audit_on_either_side_hides_no_newcomer_and_makes_none_for_ever(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound", "b": "cat"})
    hound, cat, poodle = (
        entry.digest for entry in Incoming.of([Item("", text) for text in ("hound", "cat", "poodle")])
    )
    old = (await store.collection("docs")).id
    await store.audits.clear(old, 3, [hound, cat])
    record = await switched(store)
    await put(store, "docs", "new", {"a": "poodle"})
    await store.audits.clear(record.shadow, 2, [cat, poodle])
    record = (await store.reembeddings.rollback("docs")).reembedding
    # Repaired before a worker gets to the newcomers.
    await put(store, "docs", "old", {"a": "hound"})
    for _ in range(2):
        found = await store.reembeddings.newcomers(record, None, max_items=9, max_bytes=999)
        assert [(item.id, item.content) for item in found] == [("a", "poodle"), ("b", "cat")]
    await put(store, "docs", "old", {item.id: str(item.content) for item in found})
    assert await store.reembeddings.owed(record) == (0, 0)


async def test_what_was_deleted_after_the_switch_does_not_come_back_though_the_new_model_refused_it(
    store: Store,
) -> None:
    await put(store, "docs", "old", {"a": "hound", "b": "cat", "c": "bird"})
    record = await store.reembeddings.begin("docs", "new")
    await put(store, "docs@next", "new", {"a": "hound", "c": "bird"})
    await put(store, "docs", "old", {"a": "poodle"})
    await bury(store, "docs@next", "new", {"a": "poodle", "b": "cat"})
    await store.reembeddings.switch(record)
    assert await contents(store, "docs") == {"a": ("hound", 2), "c": ("bird", 2)}
    prunable = store.prunable(await store.collection("docs"))
    assert [each.id async for page in prunable.entries() for each in page] == ["a", "c"]
    assert await prunable.delete(["a", "b"]) == 1
    await store.reembeddings.rollback("docs")
    assert await contents(store, "docs") == {"c": ("bird", 3)}


async def test_how_a_collection_stands_is_not_what_was_cancelled_last(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound"})
    first = await switched(store)
    await store.reembeddings.begin("docs", "third")
    assert (await store.reembeddings.current())["docs"].new_model == "third"
    cancelled = await store.reembeddings.cancel("docs")
    assert (await store.reembeddings.current())["docs"] == first
    await put(store, "docs", "new", {"b": "cat"})
    await store.reembeddings.rollback("docs")
    current = (await store.reembeddings.current())["docs"]
    assert (current.key, current.state) == (first.key, "rolled back")
    assert await store.reembeddings.get("docs") == cancelled
    assert await store.reembeddings.owed(current) == (1, 0)


async def test_one_that_used_what_a_rollback_kept_is_as_rolled_back_when_it_is_cancelled(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound"})
    await switched(store)
    await put(store, "docs", "new", {"b": "cat"})
    await store.reembeddings.rollback("docs")
    await store.reembeddings.begin("docs", "new")
    ended = await store.reembeddings.cancel("docs")
    assert ended.state == "rolled back"
    # Whoever looks for what is still to be queued looks at the latest.
    assert await store.reembeddings.get("docs") == ended == await store.reembeddings.kept("docs")
    assert await store.reembeddings.owed(ended) == (1, 0)
    assert await contents(store, "docs@next") == {"a": ("hound", 2), "b": ("cat", 2)}


# --- what is kept, and what ends


async def test_the_vectors_of_a_switch_before_make_room_and_their_letters_stay(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound"})
    await bury(store, "docs", "old", {"a": "hound", "z": "zebra"}, "r0")
    await switched(store)
    assert (await store.reembeddings.kept("docs")) is not None
    record = await store.reembeddings.begin("docs", "old")
    await embed_missing(store, record)
    await store.reembeddings.switch(record)
    assert await names(store) == {"docs": "old", "docs@previous": "new"}
    assert await letters(store) == {("docs@previous", "z")}
    await store.reembeddings.drop("docs")
    assert await names(store) == {"docs": "old"}
    assert await letters(store) == {("docs", "z")}
    with pytest.raises(ReembeddingMissing, match="nothing to drop"):
        await store.reembeddings.drop("docs")
    with pytest.raises(ReembeddingMissing, match="no switch to undo"):
        await store.reembeddings.rollback("docs")
    assert [record.state for record in await store.reembeddings.all()] == ["dropped", "dropped"]


async def test_cancelling_removes_what_was_made(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound", "b": "cat"})
    record = await store.reembeddings.begin("docs", "new")
    await put(store, "docs@next", "new", {"a": "hound"})
    await bury(store, "docs@next", "new", {"b": "cat"})
    assert (await store.reembeddings.cancel("docs")).state == "cancelled"
    assert await names(store) == {"docs": "old"}
    assert await letters(store) == set()
    with pytest.raises(ReembeddingMissing):
        await store.reembeddings.switch(record)
    with pytest.raises(ReembeddingMissing):
        await store.reembeddings.cancel("docs")


async def test_removing_lets_others_write_in_between(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removing, "_REMOVED_ROWS", 2)
    monkeypatch.setattr(removing, "_REMOVING_SECONDS", 0.0)
    await put(store, "docs", "old", {"a": "hound", "b": "cat", "c": "bird", "d": "dove", "e": "eel"})
    await switched(store)
    removed, remove = list[int](), removing.remove_some

    def told(db: sqlite3.Connection, key: int) -> int:
        removed.append(remove(db, key))
        return removed[-1]

    monkeypatch.setattr(removing, "remove_some", told)
    await store.reembeddings.drop("docs")
    assert [some for some in removed if some] == [2, 2, 1]
    assert await names(store) == {"docs": "new"}


async def test_removing_goes_on_after_a_process_died(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound"})
    record = await switched(store)

    await store._access.transact(lambda db: in_thread(db, lambda c: beginning.drop(c, record)))
    roles = await store.reembeddings.roles()
    assert [(role.collection, role.kind) for role in roles.values()] == [("docs", "removing")]
    await store.reembeddings.sweep()
    assert await names(store) == {"docs": "new"}


async def test_a_collection_that_anybody_deletes_ends_what_was_going_on(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound"})
    await store.reembeddings.begin("docs", "new")
    change(store, "DELETE FROM collections WHERE name = 'docs@next'")
    ended = await store.reembeddings.get("docs")
    assert ended is not None
    assert (ended.state, ended.message) == ("cancelled", "collection docs@next was deleted")
    await switched(store)
    await store.delete_collection((await store.collection("docs")).id)
    assert await names(store) == {}
    assert [record.state for record in await store.reembeddings.all()] == ["dropped", "cancelled"]


async def test_what_stands_beside_a_collection_is_deleted_by_its_name_only_when_nothing_is_lost(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound"})
    await bury(store, "docs", "old", {"z": "zebra"})
    await switched(store)
    await store.delete_collection((await store.collection("docs@previous")).id)
    assert await letters(store) == {("docs", "z")}
    again = await store.reembeddings.begin("docs", "old")
    await embed_missing(store, again)
    await store.reembeddings.switch(again)
    await put(store, "docs", "old", {"b": "cat"})
    await store.reembeddings.rollback("docs")
    beside = await store.collection("docs@next")
    for _ in range(2):
        with pytest.raises(UsageError, match="'docs@next' alone"):
            await store.delete_collection(beside.id)
        await store.reembeddings.begin("docs", "old")  # the vectors that were kept are as precious when they are in use
    await store.reembeddings.cancel("docs")
    await put(store, "docs", "new", {"b": "cat"})
    await store.delete_collection(beside.id)
    assert await names(store) == {"docs": "new"}


async def test_a_file_that_embedq_has_not_written_to_has_no_re_embeddings(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "llm.db")) as db:
        db.execute("CREATE TABLE collections (id INTEGER PRIMARY KEY, name TEXT, model TEXT)")
        db.execute("INSERT INTO collections VALUES (1, 'docs', 'old')")
        columns = "collection_id, id, embedding, content, content_blob, content_hash, metadata, updated"
        db.execute(f"CREATE TABLE embeddings ({columns})")
        db.execute("INSERT INTO embeddings (collection_id, id, content) VALUES (1, 'a', 'hound')")
        db.commit()
    async with await Store.open(tmp_path / "llm.db", read_only=True) as store:
        assert await store.reembeddings.all() == []
        assert await store.reembeddings.roles() == {}
        assert await store.reembeddings.kept("docs") is None
        prospect = Reembedding(
            0,
            "docs",
            1,
            -1,
            "old",
            "new",
            None,
            None,
            drop_old=False,
            run=None,
            state="embedding",
            message=None,
            started=0,
            switched=None,
        )
        assert await store.reembeddings.coverage(prospect) == Coverage(entries=1, missing=1)
        page = await store.reembeddings.missing(prospect, None, max_items=9, max_bytes=9)
        assert page == [Item("a", "hound")]
        with pytest.raises(DatabaseReadOnly):
            await store.reembeddings.begin("docs", "new")


# --- chunks that are late


async def moved(store: Store, collection: str, model: str) -> Moved | None:
    return (await store.standing("r", 0, collection, model)).moved


async def test_chunks_for_what_a_collection_was_are_told_where_they_belong(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound"})
    assert await moved(store, "docs", "third") is None
    record = await store.reembeddings.begin("docs", "new")
    assert await moved(store, "docs@next", "new") is None
    assert await moved(store, "docs", "new") is None
    await embed_missing(store, record)
    await store.reembeddings.switch(record)
    assert await moved(store, "docs", "old") == Moved("docs", "new")
    assert await moved(store, "docs@previous", "old") == Moved("docs", "new")
    assert await moved(store, "docs@next", "new") == Moved(None, None)
    assert await moved(store, "docs", "new") is None
    assert await moved(store, "docs", "third") is None
    await store.reembeddings.rollback("docs")
    assert await moved(store, "docs", "new") == Moved("docs", "old")
    assert await moved(store, "docs@next", "new") == Moved(None, None)
    await store.reembeddings.drop("docs")
    assert await moved(store, "docs", "new") == Moved("docs", "old")


async def test_a_late_write_does_not_make_a_shadow_anew(store: Store) -> None:
    await put(store, "docs", "old", {"a": "hound"})
    await store.reembeddings.begin("docs", "new")
    await store.reembeddings.cancel("docs")
    with pytest.raises(CollectionMoved, match="beside 'docs'"):
        await put(store, "docs@next", "new", {"a": "hound"})
    with pytest.raises(CollectionMoved, match="beside 'docs'"):
        await bury(store, "docs@next", "new", {"a": "hound"})
    assert (await names(store), await letters(store)) == ({"docs": "old"}, set())
    await put(store, "other@next", "new", {"a": "hound"})
    assert (await store.collection("other@next")).model_id == "new"
