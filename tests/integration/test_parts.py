"""Documents in parts, in a real store: it holds the parts of the last version, and nothing is missing before."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedq_core.counts import Counts
from embedq_core.digests import content_hash
from embedq_core.items import Item
from embedq_core.parts import Document, documents_of, parts_of
from embedq_core.vectors import encode
from embedq_jobs import Chunk
from embedq_producer.chunks import cut
from embedq_store import ChunkMark, Row, Store, Target, Write
from embedq_worker.claims import Claims
from embedq_worker.pipeline import process
from embedq_worker.runner import ModelRunner, TransientFailure
from support.chunks import chunk
from support.command_line import CommandLine
from support.models import FaultyModel, raising, vector_of


class Breaking(FaultyModel):
    """Loses its connection for good after some calls, until it is mended; refuses poison."""

    def __init__(self) -> None:
        super().__init__(self._ask, "recording", batch_size=1)
        self.calls_left: int | None = None

    def _ask(self, batch: list[str | bytes]) -> None:
        if self.calls_left is not None:
            if self.calls_left == 0:
                raise ConnectionError("gone")
            self.calls_left -= 1
        raising(batch)


class Desk:
    """A worker without a queue."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.model = Breaking()
        self.runner = ModelRunner(self.model, sleep=lambda _: asyncio.sleep(0))

    async def one(self, each: Chunk, break_after: int | None = None) -> Counts:
        """Process a chunk; where the model is lost on the way, once more from the beginning."""
        self.model.calls_left = break_after
        try:
            return await process(each, self.runner, self.store, Claims())
        except TransientFailure:
            self.model.calls_left = None
            return await process(each, self.runner, self.store, Claims())

    async def run(self, number: int, items: Iterable[Item], max_items: int = 100) -> Counts:
        """Submit and do everything, with the order of chunks that is worst."""
        pieces = {piece.number: piece for piece in cut(items, max_items=max_items, max_bytes=10**6)}
        counts, done = Counts(), set[int]()
        while len(done) < len(pieces):
            now = max(each for each, piece in pieces.items() if each not in done and done >= set(piece.after))
            counts += await self.one(chunk(pieces[now].items, now, run=run_id(number)), now)
            done.add(now)
        return counts


@contextlib.asynccontextmanager
async def desk(path: Path | None = None) -> AsyncIterator[Desk]:
    async with await (Store.open() if path is None else Store.open(path)) as store:
        opened = Desk(store)
        try:
            yield opened
        finally:
            await opened.runner.stop(5)


def run_id(number: int) -> str:
    """The id of a run that begins in the future, the later the larger the number."""
    return f"2099{number % 12 + 1:02}01-000000-xxxxx"


def document(id_: str, *parts: str, **metadata: object) -> list[Item]:
    text = json.dumps(metadata) if metadata else None
    return parts_of(Item(id_, "whole", text), [(number, part) for number, part in enumerate(parts)])


async def held(store: Store) -> dict[str, str | None]:
    """Id → content of all that is stored; each vector is that of its content."""
    collection = await store.find_collection("pets")
    if collection is None:
        return {}
    found = collection.id
    ids = await store._access.rows("SELECT id, content FROM embeddings WHERE collection_id = ?", found)
    for id_, content in ids:
        assert await store.vector(found, id_) == tuple(vector_of(content))
    return {row[0]: row[1] for row in ids}


def as_held(*documents: Sequence[Item]) -> dict[str, str | bytes]:
    return {part.id: part.content for parts in documents for part in parts}


texts = st.lists(st.sampled_from(["cat", "dog", "cow", "hen", "poison"]), min_size=1, max_size=5)
runs = st.lists(st.lists(st.tuples(st.sampled_from("ab"), texts), min_size=1, max_size=4), min_size=1, max_size=4)


@given(runs, st.integers(1, 4), st.booleans())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_after_any_versions_exactly_the_parts_of_the_last_are_held(
    history: list[list[tuple[str, list[str]]]], max_items: int, whole_before: bool
) -> None:
    async def main() -> None:
        async with desk() as worker:
            if whole_before:
                await worker.run(0, [Item("a", "the whole of a"), Item("c", "another")])
            last: dict[str, list[Item]] = {}
            for number, versions in enumerate(history, 1):
                items = [part for id_, parts in versions for part in document(id_, *parts)]
                await worker.run(number, items, max_items)
                last |= {id_: document(id_, *parts) for id_, parts in versions}
            found = await held(worker.store)
            for id_, parts in last.items():
                good = as_held([part for part in parts if part.content != "poison"])
                assert good.items() <= found.items()
                if len(good) == len(parts):
                    assert {entry for entry in found if entry == id_ or entry.startswith(f"{id_}#")} == good.keys()
            assert ("c" in found) == whole_before

    asyncio.run(main())


async def test_what_is_left_over_goes_when_the_new_version_is_whole_and_is_counted(tmp_path: Path) -> None:
    old, new = document("doc", "one", "two", "three"), document("doc", "one", "zwei")
    async with desk(tmp_path / "x.db") as worker:
        await worker.run(1, [Item("doc", "whole"), Item("doc#9", "a doc of its own"), Item("docs", "another")])
        assert (await worker.run(2, old)).nonzero() == {"embedded": 3, "calls": 3, "inputs": 3, "removed": 1}
        kept = {"doc#9": "a doc of its own", "docs": "another"}
        assert await held(worker.store) == as_held(old) | kept
        counts = await worker.run(3, new)
        assert (counts.unchanged, counts.embedded, counts.removed) == (1, 1, 1)
        assert await worker.store.chunk_mark(run_id(3), 0) == (counts, True)
        assert await held(worker.store) == as_held(new) | kept
        # Done again, it is only counted again.
        assert await worker.run(3, new) == counts


async def test_while_a_part_is_dead_all_that_was_there_stays_until_it_is_requeued(tmp_path: Path) -> None:
    old = document("doc", "one", "two", "three", "four")
    async with desk(tmp_path / "x.db") as worker:
        await worker.run(1, old)
        await worker.run(2, document("doc", "one", "poison"))
        assert await held(worker.store) == as_held(old)
        (letter,) = await worker.store.dead.letters()
        # The same part with what it needs, queued by itself as `dead requeue` does it.
        await worker.run(3, [Item(letter.id, "cured", letter.metadata)])
        assert await held(worker.store) == as_held(document("doc", "one", "cured"))
        assert await worker.store.dead.letters() == []


async def test_what_claims_to_be_one_of_more_parts_than_there_are_numbers_is_stored_as_it_is() -> None:
    metadata = json.dumps({"parent": "doc", "part": 0, "parts": 2**63, "start": 0})
    async with desk() as worker:
        assert (await worker.run(1, [Item("doc#0", "one", metadata)])).embedded == 1
        assert await held(worker.store) == {"doc#0": "one"}


async def test_dead_letters_of_parts_that_are_no_more_end_with_them(tmp_path: Path) -> None:
    async with desk(tmp_path / "x.db") as worker:
        await worker.run(
            1, [*document("doc", "one", "two", "poison"), *document("other", "poison"), Item("doc", "poison")]
        )
        assert {letter.id for letter in await worker.store.dead.letters()} == {"doc", "doc#2", "other#0"}
        # One that began before they died may hold an older version: they stay.
        await worker.one(chunk(document("doc", "one"), run="20200101-000000-xxxxx"))
        assert {letter.id for letter in await worker.store.dead.letters()} == {"doc", "doc#2", "other#0"}
        await worker.run(2, document("doc", "one"))
        assert {letter.id for letter in await worker.store.dead.letters()} == {"other#0"}


async def test_of_a_document_in_several_chunks_the_last_that_is_done_removes(store: Store) -> None:
    old, new = document("doc", *"abcdefgh"), document("doc", *"ABCDEF")
    target = Target("pets", "recording")

    async def write(items: list[Item], number: int) -> int:
        rows = [Row(item, content_hash(item.content), encode([1.0])) for item in items]
        mark = ChunkMark(run_id(1), number, Counts(), finished=True)
        return await store.write(Write(target, rows, mark=mark, documents={parts_document(items)}))

    assert await write(old, 0) == 0
    assert await write(new[4:], 1) == 0
    assert await write(new[:2], 2) == 0
    assert await write(new[2:4], 3) == 2
    assert await store.count((await store.collection("pets")).id) == 6


def parts_document(items: list[Item]) -> Document:
    (document_,) = documents_of(items)
    return document_


def test_from_the_command_line(embedq: CommandLine) -> None:
    paragraphs = [f"This is paragraph number {number} of the book." for number in range(5)]

    def ingest(text: str, *options: str) -> str:
        rows = json.dumps({"id": "book", "content": text, "metadata": {"lang": "en"}})
        return embedq("ingest", "books", "-", "-m", "recording", *options, input=rows).out

    ingest("The whole book.")
    assert "5 embedded, 1 removed" in ingest("\n\n".join(paragraphs), "--chunk", "50")
    assert "5 unchanged" in ingest("\n\n".join(paragraphs), "--chunk", "50chars")
    assert "3 unchanged (3 of them updated), 2 removed" in ingest("\n\n".join(paragraphs[:3]), "--chunk", "50").replace(
        ", 3 of them updated", " (3 of them updated)"
    )
    with contextlib.closing(sqlite3.connect(embedq.database)) as db:
        stored = db.execute("SELECT id, content, metadata FROM embeddings ORDER BY id").fetchall()
    assert [row[:2] for row in stored] == [(f"book#{number}", paragraphs[number]) for number in range(3)]
    metadata = {"lang": "en", "parent": "book", "part": 1, "parts": 3, "start": len(paragraphs[0]) + 2}
    assert json.loads(stored[1][2]) == metadata
    assert (
        "estimated"
        in embedq("submit", "books", "-", "--chunk", "9tokens", "--dry-run", input='{"id":1,"content":"x"}').err
    )
    refused = embedq("ingest", "books", "--files", ".", "*", "--binary", "--chunk", "9", exit_code=2)
    assert "--chunk is for text" in refused.err
