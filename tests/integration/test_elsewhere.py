"""One text in several worker processes: each sees what the others have claimed, in a real Redis."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import cast

import pytest

import embedq_worker.admission
from embedq_core.cancelling import cancel
from embedq_core.counts import Counts
from embedq_core.digests import content_hash
from embedq_core.errors import RedisUnreachable
from embedq_core.items import Item
from embedq_core.settings import Settings
from embedq_jobs import Queue
from embedq_jobs.claims import Block, Published, SharedClaims
from embedq_store import Store
from embedq_worker.claims import ContentKey, Stored
from embedq_worker.elsewhere import SharedElsewhere, database_identity
from embedq_worker.service import ServiceOptions
from support.chunks import chunk, install, items, submit
from support.models import RecordingModel
from support.slow_worker import start_slow_worker
from support.waiting import BOUND_SECONDS, Eventually
from support.working import GatedModel, burst, expected, nothing_is_left, stored, until_complete, worker

CAT, DOG = (False, b"c" * 16), (False, b"d" * 16)
CAT_AS_BYTES = (True, b"c" * 16)

# Of leases that are not to run out while a test runs.
LONG = 3600.0


@asynccontextmanager
async def process(
    queue: Queue, name: str, database: str = "db", seconds: float = LONG
) -> AsyncIterator[SharedElsewhere]:
    """The claims of a worker process, which end with it."""
    async with kept(SharedElsewhere(queue.claims(name, seconds), database)) as elsewhere:
        yield elsewhere


@asynccontextmanager
async def kept(elsewhere: SharedElsewhere) -> AsyncIterator[SharedElsewhere]:
    keeping = asyncio.create_task(elsewhere.keep_forever())
    try:
        yield elsewhere
    finally:
        await cancel([keeping])
        await elsewhere.leave()


def having(*stored: ContentKey) -> Stored:
    """A store that has these contents."""

    async def of_them(keys: Collection[ContentKey]) -> list[ContentKey]:
        return [key for key in keys if key in stored]

    return of_them


nothing = having()


async def not_asked(keys: Collection[ContentKey]) -> list[ContentKey]:
    raise AssertionError(f"nobody else has ended anything since {keys} were looked up")


async def claimed(elsewhere: SharedElsewhere, *keys: ContentKey, collection: str = "pets") -> set[ContentKey]:
    """Those of `keys` that a process gets if it asks for them now. It gives them up at once."""
    with elsewhere.claiming(collection) as claim:
        return set(keys) - set(await claim(keys, nothing))


async def until_free(queue: Queue, name: str) -> None:
    """Wait until a process has no claims, whether it has freed them or they were over."""
    async with asyncio.timeout(BOUND_SECONDS):
        while await queue.redis.exists(queue.names.claims(name)):  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.01)


async def claimants(queue: Queue) -> dict[bytes, bytes]:
    return await cast("Awaitable[dict[bytes, bytes]]", queue.redis.hgetall(queue.names.claimants))


# --- claims


async def test_what_one_process_has_claimed_others_leave_to_it_and_can_wait_for_its_end(queue: Queue) -> None:
    async with process(queue, "one") as one, process(queue, "other") as other:
        with one.claiming("pets") as mine:
            assert await mine([CAT], nothing) == {}
            with other.claiming("pets") as theirs:
                waits = await theirs([CAT, DOG], nothing)
            assert list(waits) == [CAT]
            assert not waits[CAT].is_set()
        async with asyncio.timeout(BOUND_SECONDS):
            await waits[CAT].wait()
        assert await claimed(other, CAT) == {CAT}


async def test_bytes_other_collections_and_other_databases_are_something_else(queue: Queue) -> None:
    async with process(queue, "one") as one, process(queue, "other") as other, process(queue, "far", "db 2") as far:
        with one.claiming("pets") as mine:
            await mine([CAT], nothing)
            assert await claimed(other, CAT, CAT_AS_BYTES) == {CAT_AS_BYTES}
            assert await claimed(other, CAT, collection="beasts") == {CAT}
            assert await claimed(far, CAT) == {CAT}


async def test_what_another_has_stored_and_given_up_since_it_was_looked_up_is_looked_up_again(queue: Queue) -> None:
    async with process(queue, "one") as one, process(queue, "other") as other:
        await claimed(one, DOG)
        with one.claiming("pets") as mine:
            # Between this look-up and the claim, the other stores the text and ends.
            await claimed(other, CAT)
            await until_free(queue, "other")
            theirs = await mine([CAT, DOG], having(CAT))
        assert list(theirs) == [CAT]
        assert theirs[CAT].is_set(), "there is nothing to wait for"


async def test_what_another_has_stored_in_its_last_moment_is_looked_up_again(queue: Queue) -> None:
    leaving = SharedElsewhere(queue.claims("leaving", LONG), "db")  # it ends before it has freed anything
    async with process(queue, "one") as one:
        await claimed(one, DOG)
        with leaving.claiming("pets") as theirs:
            await theirs([CAT], nothing)
            with one.claiming("pets") as mine:
                await mine([DOG], nothing)
        with one.claiming("pets") as mine:
            await leaving.leave()
            assert list(await mine([CAT, DOG], having(CAT))) == [CAT]


async def test_what_ends_while_it_is_asked_for_is_looked_up_again(queue: Queue) -> None:
    class Late(SharedClaims):
        """Reads what others have when they have it no more."""

        async def contents(self, blocks: Sequence[Block]) -> list[bytes | None]:
            await others.aclose()
            return await super().contents(blocks)

    others = AsyncExitStack()
    async with kept(SharedElsewhere(Late(queue.redis, queue.names, queue.where, "one", LONG), "db")) as one, others:
        await claimed(one, DOG)
        other = await others.enter_async_context(process(queue, "other"))
        await others.enter_context(other.claiming("pets"))([CAT], nothing)
        with one.claiming("pets") as mine:
            theirs = await mine([CAT, DOG], having(CAT))
    assert list(theirs) == [CAT]
    assert theirs[CAT].is_set()


async def test_a_process_that_is_alone_looks_nothing_up_twice_and_leaves_nothing(queue: Queue) -> None:
    async with process(queue, "one") as one:
        await claimed(one, CAT)
        for _ in range(3):
            with one.claiming("pets") as mine:
                assert await mine([CAT, DOG], not_asked) == {}
            with one.claiming("pets") as mine:
                assert await mine([], not_asked) == {}, "nothing to embed, nothing to ask"
    assert await queue.redis.keys("*:claims:*") == []
    assert list(await claimants(queue)) == [b"ended"]


async def test_claims_of_a_process_that_died_are_over_with_its_lease_and_looked_up_again(queue: Queue) -> None:
    dead = SharedElsewhere(queue.claims("dead", 1), "db")  # nobody keeps what it claims
    async with process(queue, "one") as one:
        with one.claiming("pets") as mine, dead.claiming("pets") as theirs:
            await theirs([CAT, DOG], nothing)
            waits = await mine([CAT], nothing)
        async with asyncio.timeout(BOUND_SECONDS):
            await waits[CAT].wait()
        with one.claiming("pets") as mine:
            assert list(await mine([CAT, DOG], having(DOG))) == [DOG], "it may have stored something before it died"
        with one.claiming("pets") as mine:
            assert await mine([CAT, DOG], not_asked) == {}
        assert sorted(await claimants(queue)) == [b"ended", b"one"]


async def test_claims_are_renewed(queue: Queue, eventually: Eventually) -> None:
    async with process(queue, "one", seconds=0.9) as one:
        with one.claiming("pets") as mine:
            await mine([CAT], nothing)
            # As if they were good for long: when they are renewed, it is for the length of a lease.
            assert await queue.redis.pexpire(queue.names.claims("one"), 1_000_000)

            async def renewed() -> bool:
                return int(await queue.redis.pttl(queue.names.claims("one"))) <= 900

            await eventually(renewed)


async def test_what_redis_got_to_only_after_it_was_freed_is_freed_with_the_next_renewal(
    queue: Queue, eventually: Eventually
) -> None:
    async with process(queue, "one", seconds=0.9) as one:
        await queue.claims("one", LONG).publish({"given up": b""})
        with one.claiming("pets") as mine:
            await mine([CAT], nothing)

            async def only_what_is_held() -> bool:
                return await cast("Awaitable[int]", queue.redis.hlen(queue.names.claims("one"))) <= 1

            await eventually(only_what_is_held)


async def test_a_process_stays_on_the_list_for_as_long_as_it_claims(queue: Queue) -> None:
    shared = queue.claims("one", LONG)
    await shared.publish({"block": b""})
    await queue.redis.delete(queue.names.claimants)  # as when nobody has claimed anything for a day
    await shared.renew(["block"])
    assert (await queue.claims("other", LONG).publish({"block": b""})).others == [Block("one", "block")]
    await shared.renew([])
    await queue.redis.delete(queue.names.claimants)
    await shared.renew([])
    assert await claimants(queue) == {}


async def test_nothing_that_is_kept_is_kept_for_ever(queue: Queue) -> None:
    shared = queue.claims("one", LONG)
    for ends in (shared.free(["block"]), shared.leave()):
        await queue.redis.delete(queue.names.claimants)
        await ends
        assert list(await claimants(queue)) != []
        assert await queue.redis.ttl(queue.names.claimants) > 0


async def test_blocks_that_come_together_are_one_request(queue: Queue) -> None:
    class Counting(SharedClaims):
        requests = 0

        async def publish(self, blocks: Mapping[str, bytes]) -> Published:
            self.requests += 1
            return await super().publish(blocks)

    shared = Counting(queue.redis, queue.names, queue.where, "one", LONG)
    async with kept(SharedElsewhere(shared, "db")) as one:
        texts = [(False, bytes([number]) * 16) for number in range(100)]
        assert await asyncio.gather(*(claimed(one, text) for text in texts)) == [{text} for text in texts]
        assert shared.requests == 1
        await until_free(queue, "one")


async def test_one_that_is_cancelled_while_it_claims_leaves_nothing_and_harms_nobody(queue: Queue) -> None:
    async with process(queue, "one") as one:
        asking = [asyncio.create_task(claimed(one, text)) for text in (CAT, DOG, CAT_AS_BYTES)]
        await asyncio.sleep(0)
        asking[0].cancel()
        await asyncio.sleep(0)
        asking[1].cancel()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(answer) for answer in answers[:2]] == [asyncio.CancelledError] * 2
        assert answers[2] == {CAT_AS_BYTES}
        await until_free(queue, "one")


async def test_what_could_not_be_freed_at_once_is_freed_later(queue: Queue) -> None:
    class Deaf(SharedClaims):
        refusals = 2
        last: Sequence[str] = ()

        async def free(self, ended: Iterable[str]) -> None:
            if self.refusals:
                self.refusals -= 1
                raise RedisUnreachable("Redis has gone out")
            self.last = list(ended)
            await super().free(self.last)

    deaf = Deaf(queue.redis, queue.names, queue.where, "one", LONG)
    async with kept(SharedElsewhere(deaf, "db")) as one:
        await claimed(one, CAT)
        await until_free(queue, "one")
        first = deaf.last
        await claimed(one, DOG)
        await until_free(queue, "one")
    assert not deaf.refusals
    assert len(first) == len(deaf.last) == 1
    assert first != deaf.last, "what is freed is done with"


async def test_without_redis_nobody_waits_and_all_is_ones_own(queue: Queue) -> None:
    class Away(SharedClaims):
        away = False

        async def publish(self, blocks: Mapping[str, bytes]) -> Published:
            if self.away:
                raise RedisUnreachable("Redis has gone out")
            return await super().publish(blocks)

        async def gone(self, blocks: Sequence[Block]) -> list[Block]:
            if self.away:
                raise RedisUnreachable("Redis has gone out")
            return await super().gone(blocks)

    shared = Away(queue.redis, queue.names, queue.where, "one", LONG)
    async with process(queue, "other") as other, kept(SharedElsewhere(shared, "db")) as one:
        with other.claiming("pets") as theirs:
            await theirs([CAT], nothing)
            with one.claiming("pets") as mine:
                waits = await mine([CAT], nothing)
            shared.away = True
            async with asyncio.timeout(BOUND_SECONDS):
                await waits[CAT].wait()
            assert await claimed(one, CAT) == {CAT}


async def test_a_redis_that_refuses_is_named_once_and_work_goes_on(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    await queue.redis.set(queue.names.claimants, "of another type")
    async with process(queue, "one") as one:
        for _ in range(2):
            assert await claimed(one, CAT) == {CAT}
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1
    assert "WRONGTYPE" in said[0]
    assert "going on without asking what other workers are having embedded" in said[0]


async def test_a_database_is_the_same_under_whatever_path_and_one_in_memory_is_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    (tmp_path / "link").symlink_to(tmp_path / "one")
    (tmp_path / "other").touch()
    assert database_identity(str(tmp_path / "one")) == database_identity(str(tmp_path / "link"))
    assert database_identity(str(tmp_path / "one")) != database_identity(str(tmp_path / "other"))
    assert database_identity(":memory:") != database_identity(":memory:")


@pytest.mark.parametrize("seed", range(5))
async def test_whoever_comes_when_each_text_is_paid_for_once_and_everybody_gets_it(queue: Queue, seed: int) -> None:
    dice = random.Random(seed)
    texts = [(False, bytes([number]) * 16) for number in range(6)]
    store: set[ContentKey] = set()
    paid: Counter[ContentKey] = Counter()

    async def some_time() -> None:
        for _ in range(dice.randrange(4)):
            await queue.redis.ping()

    async def of_the_store(keys: Collection[ContentKey]) -> list[ContentKey]:
        await some_time()
        return [key for key in keys if key in store]

    async def one_chunk(elsewhere: SharedElsewhere, wanted: list[ContentKey]) -> None:
        """As the pipeline does; but that within a process no chunk sees another, so each has a process of its own."""
        while wanted:
            with elsewhere.claiming("pets") as claim:
                known = set(store)
                await some_time()
                wanted = [key for key in wanted if key not in known]
                theirs = await claim(wanted, of_the_store)
                await some_time()
                if dice.random() < 0.8:  # else the attempt fails
                    mine = [key for key in wanted if key not in theirs]
                    paid.update(mine)
                    store.update(mine)
                    wanted = list(theirs)
            for event in theirs.values():
                await event.wait()

    async def a_process(number: int) -> None:
        async with process(queue, f"process {number}") as elsewhere:
            for _ in range(2):
                await one_chunk(elsewhere, dice.sample(texts, 4))

    async with asyncio.timeout(BOUND_SECONDS):
        await asyncio.gather(*map(a_process, range(6)))
    assert store
    assert set(paid.values()) == {1}


# --- workers


def twins(count: int) -> list[Item]:
    """Items with ids of their own, and the texts of `items(count)`."""
    return [Item(f"twin of {item.id}", item.content) for item in items(count)]


@pytest.fixture
def _one_chunk_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has a chunk of ten items in hand leaves the next one to another."""
    monkeypatch.setattr(embedq_worker.admission, "LEAST_ITEMS", 10)


async def until_the_second_leaves_it_to_the_first(queue: Queue, model: GatedModel, eventually: Eventually) -> None:
    async def so_it_is() -> bool:
        return model.begun > 1 or int((await claimants(queue)).get(b"ended", 0)) > 0

    await eventually(so_it_is)
    assert model.begun == 1, "the second has paid for the text as well"


@pytest.mark.usefixtures("_one_chunk_each")
async def test_one_text_in_two_workers_is_paid_for_once(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    model = GatedModel()
    install(monkeypatch, model)
    await submit(queue, chunk(items(10)), chunk(twins(10), 1))
    async with worker(settings, ServiceOptions()), worker(settings, ServiceOptions()):
        await until_the_second_leaves_it_to_the_first(queue, model, eventually)
        model.gate.set()
        await until_complete(queue, eventually)
    assert model.inputs == 10
    assert (await queue.runs.summary(chunk([]).run)).counts == Counts(embedded=10, reused=10, calls=1, inputs=10)
    assert await stored(store) == expected([*items(10), *twins(10)])
    await nothing_is_left(queue)


@pytest.mark.usefixtures("_one_chunk_each")
async def test_whoever_waits_for_another_worker_stops_without_it(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    model = GatedModel()
    install(monkeypatch, model)
    patient = ServiceOptions(grace_seconds=LONG)
    await submit(queue, chunk(items(10)), chunk(twins(10), 1))
    async with worker(settings, patient) as one_stop, worker(settings, patient) as other_stop:
        await until_the_second_leaves_it_to_the_first(queue, model, eventually)
        # One of the two waits for the other, and is gone at once; the call of the other goes on.
        one_stop.set()
        other_stop.set()

        async def one_is_handed_back() -> bool:
            return (await queue.loads())[0].in_progress == 1

        await eventually(one_is_handed_back)
        model.gate.set()
    assert model.inputs == 10
    assert (await queue.loads())[0].jobs == 1


@pytest.mark.usefixtures("_one_chunk_each")
async def test_whoever_waits_for_another_worker_does_what_else_there_is(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    model = RecordingModel()
    install(monkeypatch, model)
    await submit(queue, chunk(items(10)), chunk(items(10, 10), 1))

    async def the_rest_is_done() -> bool:
        return model.inputs >= 10

    async with process(queue, "other", database_identity(store.path)) as other, worker(settings):
        with other.claiming("pets") as claim:
            await claim([(False, digest) for digest in digests(items(10))], nothing)
            await eventually(the_rest_is_done)
        await until_complete(queue, eventually)
    assert model.inputs == 20
    assert await stored(store) == expected(items(20))


async def test_texts_of_a_worker_that_was_killed_are_embedded_when_its_claims_are_over(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = RecordingModel()
    install(monkeypatch, model)
    dead = SharedElsewhere(queue.claims("dead", 1), database_identity(store.path))
    await submit(queue, chunk(items(10)))
    with dead.claiming("pets") as claim:
        await claim([(False, digest) for digest in digests(items(10))], nothing)
        await burst(settings, queue, store)
    assert model.inputs == 10
    assert await stored(store) == expected(items(10))


def digests(some: Iterable[Item]) -> list[bytes]:
    return [content_hash(item.content) for item in some]


async def test_of_two_processes_neither_pays_for_what_the_other_has_in_hand(
    settings: Settings, queue: Queue, store: Store, tmp_path: Path, eventually: Eventually
) -> None:
    log, count = tmp_path / "log", 40
    # Whoever picks jobs up takes the next one: neighbours go to different workers.
    pairs = zip(items(count), twins(count), strict=True)
    await submit(queue, *(chunk([item], number) for number, item in enumerate(chain.from_iterable(pairs))))
    processes = [start_slow_worker(settings, log, 0.02, BOUND_SECONDS) for _ in range(2)]
    try:
        await until_complete(queue, eventually)
    finally:
        for each in processes:
            each.terminate()
        for each in processes:
            each.join(BOUND_SECONDS)
    assert sorted(log.read_text().splitlines()) == sorted(str(item.content) for item in items(count))
    assert await stored(store) == expected([*items(count), *twins(count)])
