"""Reaching Redis: with a password, not at all, and one that is set up to lose things."""

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from embedq_core.counts import Counts
from embedq_core.errors import QueueError, RedisUnreachable, SettingsError
from embedq_core.settings import Settings, load_settings
from embedq_jobs import Queue, job_id, open_queue
from embedq_jobs.checks import server_warnings
from embedq_jobs.embedded import find_server
from embedq_jobs.names import payload_key
from support.chunks import RUN, chunk, items, run
from support.servers import free_port
from support.waiting import BOUND_SECONDS, Eventually

SECRET = "s3cret/pass word?#@:%☃"  # noqa: S105 - for a server that lives for one test


class Server:
    """A redis-server of one test."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.socket = folder / "redis.sock"
        self.port = free_port()
        command = [find_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket)]
        command += ["--dir", str(folder), "--save", "", "--logfile", str(folder / "log"), *options]
        self.process = subprocess.Popen(command)

    def url(self, user: str = "", query: str = "") -> str:
        return f"redis://{user}127.0.0.1:{self.port}{query}"

    def wait(self) -> None:
        deadline = time.monotonic() + BOUND_SECONDS
        with redis.Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                except redis.exceptions.AuthenticationError:
                    return
                except redis.exceptions.ConnectionError:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                else:
                    return


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a redis-server with more options; it ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(*options: str, password: str | None = None) -> Server:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="embedq-test-")))
            server = Server(folder, *options, *(["--requirepass", password] if password else []))
            stack.callback(server.process.wait, 10)
            stack.callback(server.process.kill)
            server.wait()
            return server

        yield start


def settings_for(url: str, tmp_path: Path) -> Settings:
    return load_settings(database=tmp_path / "embeddings.db", redis_url=url)


async def ping(settings: Settings) -> None:
    async with open_queue(settings) as queue:
        assert await queue.put(chunk(items(1)))


def said(error: BaseException) -> str:
    """Everything that a traceback of `error` would show."""
    messages = []
    chain: BaseException | None = error
    while chain is not None:
        messages.append(f"{chain!r} {chain}")
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return "\n".join(messages)


async def test_a_password_of_any_characters_opens_a_redis_that_asks_for_one(serve: Serve, tmp_path: Path) -> None:
    server = serve(password=SECRET)
    await ping(settings_for(server.url(f":{quote(SECRET, safe='')}@"), tmp_path))


async def test_a_user_of_any_name_is_known_by_it(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    with redis.Redis(port=server.port) as client:
        client.acl_setuser("ann:@x", enabled=True, passwords=[f"+{SECRET}"], keys=["*"], commands=["+@all"])
    await ping(settings_for(server.url(f"{quote('ann:@x', safe='')}:{quote(SECRET, safe='')}@"), tmp_path))


@pytest.mark.parametrize("user", ["", ":wr0ng@", "nobody:wr0ng@"])
async def test_a_wrong_password_is_said_and_not_shown(serve: Serve, tmp_path: Path, user: str) -> None:
    server = serve(password=SECRET)
    with pytest.raises(QueueError) as caught:
        await ping(settings_for(server.url(user), tmp_path))
    assert "refuses the user name or password: check EMBEDQ_REDIS_URL" in str(caught.value)
    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert "wr0ng" not in said(caught.value)
    assert "s3cret" not in said(caught.value)


async def test_a_wrong_password_is_said_over_a_socket_too(serve: Serve, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="embedq-test-") as folder:
        serve("--unixsocket", f"{folder}/r.sock", password=SECRET)
        with pytest.raises(QueueError, match="refuses the user name or password") as caught:
            await ping(settings_for(f"unix://nobody:wr0ng@{folder}/r.sock", tmp_path))
    assert "wr0ng" not in said(caught.value)


async def test_a_redis_that_isn_t_there_is_said_with_its_place_and_no_password(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(RedisUnreachable) as caught:
        await ping(settings_for(f"redis://ann:hunter2@127.0.0.1:{port}/0", tmp_path))
    assert f"Redis at 127.0.0.1:{port} can't be reached" in str(caught.value)
    assert "EMBEDQ_REDIS_URL" in str(caught.value)
    assert "hunter2" not in said(caught.value)


async def test_a_socket_that_isn_t_there_is_said_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "no redis here.sock"
    with pytest.raises(RedisUnreachable) as caught:
        await ping(settings_for(f"unix://{quote(str(path))}", tmp_path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("url", ["http://ann:hunter2@example.org", "redis://:hunter2/@example.org"])
async def test_a_url_that_can_t_be_used_is_a_setting_that_can_t(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        await ping(settings_for(url, tmp_path))
    assert "hunter2" not in said(caught.value)


async def test_a_user_who_may_not_write_is_told_so(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    with redis.Redis(port=server.port) as client:
        client.acl_setuser("reader", enabled=True, nopass=True, keys=["*"], commands=["+ping", "+info"])
    with pytest.raises(QueueError, match="permissions"):
        await ping(settings_for(server.url("reader:x@"), tmp_path))


async def test_a_lost_connection_is_made_anew_and_nothing_fails(queue: Queue, redis_url: str) -> None:
    await queue.runs.open(run())
    for number in range(5):
        with redis.Redis.from_url(redis_url) as client:
            assert client.client_kill_filter(_type="normal", skipme=True) >= 1
        assert await queue.put(chunk(items(1), number))
        assert (await queue.runs.summary(RUN)).chunks == number + 1


# --- servers that may lose things


async def warnings(settings: Settings) -> list[str]:
    async with open_queue(settings) as queue:
        return await server_warnings(queue)


async def test_a_redis_that_keeps_everything_is_fine(settings: Settings) -> None:
    assert await warnings(settings) == []


async def test_a_redis_that_forgets_is_warned_of_with_the_mend(serve: Serve, tmp_path: Path) -> None:
    server = serve("--maxmemory-policy", "allkeys-lru", "--appendonly", "no")
    eviction, persistence = await warnings(settings_for(server.url(":@"), tmp_path))
    assert "maxmemory-policy allkeys-lru" in eviction
    assert "noeviction" in eviction
    assert "appendonly yes" in persistence
    assert all(f"127.0.0.1:{server.port}" in warning for warning in (eviction, persistence))


async def test_a_user_who_may_not_ask_is_not_warned(serve: Serve, tmp_path: Path) -> None:
    server = serve("--maxmemory-policy", "allkeys-lru")
    with redis.Redis(port=server.port) as client:
        client.acl_setuser("ann", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-info"])
    assert await warnings(settings_for(server.url("ann:x@"), tmp_path)) == []


async def test_when_memory_is_full_a_submission_is_refused_and_a_chunk_that_ends_still_makes_room(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve("--maxmemory-policy", "noeviction", "--appendonly", "yes")
    async with open_queue(settings_for(server.url(), tmp_path)) as queue:
        await queue.runs.open(run())
        await queue.put(chunk(items(100), 0))
        await queue.redis.config_set("maxmemory", 1)
        with pytest.raises(QueueError, match="out of memory: raise its maxmemory"):
            await queue.put(chunk(items(100), 1))
        await queue.runs.record(RUN, 0, "recording", Counts(embedded=100))
        assert await queue.bytes_queued("recording") == 0
        await queue.redis.delete(payload_key(job_id(RUN, 0)))
        await queue.redis.config_set("maxmemory", 0)
        assert await queue.put(chunk(items(100), 1))
        assert (await queue.runs.summary(RUN)).counts == Counts(embedded=100)


async def test_a_redis_that_hangs_is_given_up_and_not_waited_for_without_end(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr("embedq_jobs.connection.REPLY_SECONDS", 0.2)
    server = serve()
    async with open_queue(settings_for(server.url(), tmp_path)) as queue:
        os.kill(server.process.pid, signal.SIGSTOP)
        async with asyncio.timeout(BOUND_SECONDS):
            with pytest.raises(RedisUnreachable, match="timeout"):
                await queue.put(chunk(items(1)))
        os.kill(server.process.pid, signal.SIGCONT)

        async def sent() -> bool:
            with contextlib.suppress(RedisUnreachable):
                await queue.put(chunk(items(1)))
                return True
            return False

        await eventually(sent)
        assert [load.jobs for load in await queue.loads()] == [1], "sent more than once, it is there once"
