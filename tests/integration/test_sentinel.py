"""Redis Sentinel and replicas, with real ones: the master goes, another takes its place, the work goes on."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from embedq_core.errors import RedisUnreachable
from embedq_core.settings import load_settings
from embedq_jobs import open_queue
from embedq_store import Store
from embedq_worker.service import ServiceOptions, serve
from support.chunks import RUN, chunk, install, items, run, submit
from support.models import RecordingModel
from support.servers import MortalRedis, Watched, free_port, watched
from support.waiting import Eventually

PASSWORD = "s3cret/pw?#@:%"  # noqa: S105 - for servers that live for one test
ENCODED = quote(PASSWORD, safe="")


@pytest.fixture
def servers() -> Iterator[Watched]:
    with (
        tempfile.TemporaryDirectory(prefix="embedq-test-") as folder,
        watched(Path(folder), f"sentinel-{PASSWORD}", PASSWORD) as found,
    ):
        yield found


def url_of(servers: Watched, password: str = ENCODED, service: str = "main") -> str:
    # The first of the Sentinels is not there.
    hosts = f"127.0.0.1:{free_port()},127.0.0.1:{servers.sentinel}"
    return f"redis+sentinel://:{password}@{hosts}/{service}/2?sentinel_password=sentinel-{password}"


async def test_when_the_master_is_killed_producer_and_worker_go_on_with_the_next_one(
    servers: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr("embedq_worker.chunk_jobs.STORE_SECONDS", 0.05)
    monkeypatch.setattr("embedq_worker.lane.RECONNECT_SECONDS", (0.05,))
    model = RecordingModel(batch_size=10)
    install(monkeypatch, model)
    settings = load_settings(database=tmp_path / "embeddings.db", redis_url=url_of(servers))
    stop = asyncio.Event()
    async with open_queue(settings) as queue, await Store.open(settings.database) as store:
        await submit(queue, *(chunk(items(25, first=25 * number), number) for number in range(10)))
        serving = asyncio.create_task(serve(settings, ServiceOptions(lease_seconds=0.5), queue, store, stop))
        # Replication is asynchronous: what is to survive must have arrived.
        assert await queue.redis.wait(1, 5000) == 1
        servers.kill(servers.master)

        async def complete() -> bool:
            try:
                return (await queue.runs.summary(RUN)).complete
            except RedisUnreachable:
                return False

        await eventually(complete)
        assert not serving.done()
        after = RUN.replace("b", "c")
        await queue.runs.open(run(after))
        assert await queue.put(chunk(items(5, first=250), run=after))

        async def embedded() -> bool:
            return model.inputs == 255

        await eventually(embedded)
        stop.set()
        await serving
        assert (await queue.runs.summary(RUN)).counts.done == 250
    with redis.Redis(port=servers.replica, password=PASSWORD, db=2) as client:
        assert client.info("replication")["role"] == "master"
        assert client.exists(f"embedq:run:{RUN}")


async def test_what_the_sentinels_refuse_or_do_not_know_is_said_and_no_secret_is(
    servers: Watched, tmp_path: Path
) -> None:
    for url, said in (
        (url_of(servers, "hunter2"), "a sentinel refuses the user name or password"),
        (url_of(servers, service="other"), "no sentinel knows a master named 'other'"),
    ):
        settings = load_settings(database=tmp_path / "embeddings.db", redis_url=url)
        with pytest.raises(RedisUnreachable, match=said) as caught:
            async with open_queue(settings):
                pass
        assert f"127.0.0.1:{servers.sentinel}/" in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert "s3cret" not in str(caught.value)


async def test_a_connection_leaves_a_server_that_has_become_a_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """A name that leads to another server after a failover is followed; a worker is not idle without a word."""
    install(monkeypatch, RecordingModel())
    with tempfile.TemporaryDirectory(prefix="embedq-test-") as folder:
        server = MortalRedis(Path(folder))
        try:
            settings = load_settings(database=tmp_path / "embeddings.db", redis_url=server.url)
            stop = asyncio.Event()
            async with open_queue(settings) as queue, await Store.open(settings.database) as store:
                await queue.runs.open(run())
                await queue.put(chunk(items(5)))
                await queue.runs.close(RUN, 1, skipped=0, duplicates=0)
                await queue.redis.replicaof("127.0.0.1", "1")
                with pytest.raises(RedisUnreachable, match="it is a replica now"):
                    await queue.put(chunk(items(5), 1))
                serving = asyncio.create_task(serve(settings, ServiceOptions(), queue, store, stop))

                async def said() -> bool:
                    return "it is a replica now" in caplog.text and "waiting for it to come back" in caplog.text

                await eventually(said)
                await queue.redis.replicaof("NO", "ONE")

                async def complete() -> bool:
                    return (await queue.runs.summary(RUN)).complete

                await eventually(complete)
                stop.set()
                await serving
        finally:
            server.kill()
