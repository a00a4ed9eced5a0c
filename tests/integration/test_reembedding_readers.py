"""Whoever reads or writes a collection while it is exchanged has one model's vectors, all of them, and never none."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing
from pathlib import Path

import llm
import pytest

import embedq.search.searching
import embedq.search.searching_many
import embedq_store
from embedq_core.errors import ModelMismatch
from embedq_core.items import Item
from embedq_plugins import EmbeddingModel
from embedq_store import Entry, Incoming, Reembedding, Row, Store, Target, Write, switching
from support.waiting import BOUND_SECONDS

ENTRIES = 40


class Told(EmbeddingModel):
    """All documents have one vector and all queries another, so that a score says which model made which of both."""

    def __init__(self, model_id: str, document: tuple[float, float], query: tuple[float, float]) -> None:
        self.model_id = model_id
        self.document, self.query = document, query
        self.meanwhile: Callable[[], None] = lambda: None

    def embed_batch(self, items: Iterable[str | bytes]) -> list[tuple[float, float]]:
        return [self.document for _ in items]

    def embed_query_batch(self, items: Iterable[str | bytes]) -> list[tuple[float, float]]:
        vectors = [self.query for _ in items]
        self.meanwhile()
        return vectors


class Models(dict[str, Told]):
    def __init__(self) -> None:
        super().__init__(old=Told("old", (1.0, 0.0), (1.0, 0.0)), new=Told("new", (0.0, 1.0), (0.6, 0.8)))

    def check(self, entries: list[Entry]) -> str:
        """Which model the entries are of."""
        assert len(entries) == ENTRIES
        (score,) = {round(entry.score or 0, 3) for entry in entries}
        return {1.0: "old", 0.8: "new"}[score]


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def collection(models: Models) -> type[embedq_store.Collection]:
    class Asynchronous(embedq_store.AsyncCollection):
        @classmethod
        def resolve_model(cls, name: str) -> Told:
            return models[name]

    class Synchronous(embedq_store.Collection):
        asynchronous = Asynchronous

    return Synchronous


async def fill(store: Store, name: str, model_id: str) -> None:
    vector = {"old": b"\0\0\x80?\0\0\0\0", "new": b"\0\0\0\0\0\0\x80?"}[model_id]
    entries = Incoming.of([Item(f"{number:02}", f"text {number}") for number in range(ENTRIES)])
    target = Target(name, model_id, Models()[model_id].configuration)
    await store.write(Write(target, [Row(*entry, vector) for entry in entries]))


@pytest.fixture
async def docs(store: Store) -> Store:
    await fill(store, "docs", "old")
    return store


async def prepared(store: Store) -> Reembedding:
    record = await store.reembeddings.begin("docs", "new")
    await fill(store, "docs@next", "new")
    return record


async def exchange(store: Store) -> None:
    """Switch, and drop the old vectors at once."""
    await store.reembeddings.switch(await prepared(store))
    await store.reembeddings.drop("docs")


def elsewhere(path: str, work: Callable[[Store], Awaitable[object]]) -> None:
    """Do `work` as another process would: with connections, a loop and a thread of its own."""

    async def run() -> None:
        async with await Store.open(path) as store:
            await work(store)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    thread.join()


async def test_a_reader_throughout_has_answers_of_one_model_and_never_an_empty_one(
    docs: Store, models: Models, collection: type[embedq_store.Collection]
) -> None:
    seen: list[str] = []
    wrong: list[BaseException] = []
    over = threading.Event()

    def read() -> None:
        try:
            with collection("docs", docs.path) as opened_before:
                while not over.is_set():
                    with collection("docs", docs.path, create=False) as fresh:
                        seen.append(models.check(fresh.similar("x", 99)))
                    seen.append(models.check(opened_before.similar("x", 99)))
                    first, second = map(models.check, opened_before.similar_many(["x", "y"], 99))
                    assert first == second
                    assert len(opened_before.similar_by_id("00", 99)) == ENTRIES - 1
                    assert opened_before.count() == ENTRIES
        except BaseException as error:
            wrong.append(error)

    async def watched(model_id: str) -> None:
        """Wait until the reader has been through everything twice."""
        async with asyncio.timeout(BOUND_SECONDS):
            known = len(seen)
            while not wrong and len(seen) < known + 4:  # noqa: ASYNC110 - the reader is in a thread
                await asyncio.sleep(0.001)
        assert wrong or seen[-1] == model_id

    reader = threading.Thread(target=read)
    reader.start()
    try:
        await watched("old")
        for _ in range(3):
            await docs.reembeddings.switch(await prepared(docs))
            await watched("new")
            await docs.reembeddings.rollback("docs")
            await watched("old")
        await exchange(docs)
        await watched("new")
    finally:
        over.set()
        reader.join()
    if wrong:
        raise wrong[0]


@pytest.mark.parametrize("batch", [False, True], ids=["one", "batch"])
def test_a_search_whose_vectors_are_dropped_under_it_is_made_again(
    batch: bool,
    models: Models,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    database = tmp_path / "docs.db"
    elsewhere(str(database), lambda store: fill(store, "docs", "old"))
    for module in (embedq.search.searching, embedq.search.searching_many):
        monkeypatch.setattr(module, "get_embedding_model", models.__getitem__)

    def once() -> None:
        models["old"].meanwhile = lambda: None
        elsewhere(str(database), exchange)

    models["old"].meanwhile = once
    if batch:
        queries = tmp_path / "queries.txt"
        queries.write_text("x\ny\n")
        asked = embedq.search.searching_many.BatchRequest("docs", queries, "lines", 99, "", ())
        with pytest.raises(SystemExit) as ended:
            embedq.search.searching_many.run_similar_batch(asked, database=database)
        assert not ended.value.code
        answers = [json.loads(line)["results"] for line in capsys.readouterr().out.splitlines()]
        assert len(answers) == 2
    else:
        request = embedq.search.searching.SearchRequest("docs", None, "x", None, binary=False, number=99, prefix="")
        embedq.search.searching.run_similar(request, plain=False, database=database)
        answers = [[json.loads(line) for line in capsys.readouterr().out.splitlines()]]
    assert [models.check([Entry(**entry) for entry in answer]) for answer in answers] == ["new"] * len(answers)


async def test_an_open_collection_writes_with_the_model_that_it_has_now(
    docs: Store, models: Models, collection: type[embedq_store.Collection]
) -> None:
    told = await asyncio.to_thread(collection, "docs", docs.path, model_id="old")
    untold = await asyncio.to_thread(collection, "docs", docs.path)
    record = await prepared(docs)
    before = models["old"].embed_batch

    def switched_meanwhile(items: Iterable[str | bytes]) -> list[tuple[float, float]]:
        elsewhere(docs.path, lambda store: store.reembeddings.switch(record))
        return before(items)

    models["old"].embed_batch = switched_meanwhile  # type: ignore[method-assign]
    await asyncio.to_thread(untold.embed, "late", "a late text")
    assert untold.model_id == "new"
    assert await docs.vector(untold.id, "late") == (0.0, 1.0)
    with pytest.raises(ModelMismatch, match="'docs' was embedded with new, not with old"):
        await asyncio.to_thread(told.similar, "x")
    with pytest.raises(ModelMismatch):
        await asyncio.to_thread(told.embed, "later", "a text")
    await docs.reembeddings.rollback("docs")
    assert len(await asyncio.to_thread(told.similar, "x", 99)) == ENTRIES
    told.close()
    untold.close()


DIE_WITHIN = """
import os, signal, sqlite3, sys
from embedq_store import reembedding_records as records, rolling_back, switching
path, work = sys.argv[1:]
db = sqlite3.connect(path, isolation_level=None)
rename = switching.rename
def once(*given):
    rename(*given)
    os.kill(os.getpid(), signal.SIGKILL)
switching.rename = rolling_back.rename = once
db.execute("BEGIN IMMEDIATE")
if work == "switch":
    switching.switch(db, records.all_records(db)[0], None)
else:
    rolling_back.roll_back(db, "docs", None)
"""


@pytest.mark.parametrize("work", ["switch", "rollback"])
async def test_a_process_that_is_killed_within_has_changed_nothing(docs: Store, work: str) -> None:
    record = await prepared(docs)
    if work == "rollback":
        await docs.reembeddings.switch(record)
    before = await docs.collections(), await docs.reembeddings.all()
    command = [sys.executable, "-c", DIE_WITHIN, docs.path, work]
    ended = await asyncio.to_thread(subprocess.run, command, env=os.environ, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (await docs.collections(), await docs.reembeddings.all()) == before
    done = await (docs.reembeddings.switch(record) if work == "switch" else docs.reembeddings.rollback("docs"))
    assert done.reembedding.state != before[1][0].state


async def test_llm_reads_what_was_switched_and_may_delete_what_is_kept(docs: Store) -> None:
    await docs.reembeddings.switch(await prepared(docs))
    with closing(sqlite3.connect(docs.path)) as db:
        import sqlite_utils

        found = llm.Collection("docs", sqlite_utils.Database(db), create=False)
        assert (found.model_id, found.count()) == ("new", ENTRIES)
        assert len(found.similar_by_vector([0.0, 1.0], 99)) == ENTRIES
        llm.Collection("docs@previous", sqlite_utils.Database(db), create=False).delete()  # type: ignore[no-untyped-call]
    record = await docs.reembeddings.get("docs")
    assert record is not None
    assert record.state == "dropped"
    assert switching.forward(record).shadow == (await docs.collection("docs")).id
