"""A real Redis for the tests, an environment of their own, and the real command line."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import settings as hypothesis_settings

from embedq_core.settings import Settings, load_settings
from embedq_jobs import Queue, open_queue
from embedq_jobs.embedded import EmbeddedRedis, find_server
from embedq_store import Store
from support.command_line import CommandLine
from support.waiting import BOUND_SECONDS, Eventually

# A loaded machine is no failure of a property.
hypothesis_settings.register_profile("embedq", deadline=None, print_blob=True)
hypothesis_settings.load_profile("embedq")


_MODELS = Path(__file__).parent / "models"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The tests with real weights need torch: they are run where they are named, as `make test-models` does."""
    named = any(Path(argument.partition("::")[0]).absolute().is_relative_to(_MODELS) for argument in config.args)
    return True if collection_path == _MODELS and not named else None


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's settings or data is read or written, and servers of the tests' own are reached directly."""
    for name in list(os.environ):
        if name.startswith(("EMBEDQ_", "LLM_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(home / name.lower()))
    monkeypatch.setenv("LLM_USER_PATH", str(home / "llm"))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a Redis that this test run has started, on a Unix socket, with an append-only file."""
    # pytest's own temporary folders have names too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="embedq-test-"))
    socket = folder / "redis.sock"
    command = [find_server(), "--port", "0", "--unixsocket", str(socket), "--dir", str(folder)]
    command += ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + BOUND_SECONDS
        with redis.Redis(unix_socket_path=str(socket)) as client:
            while True:
                try:
                    client.ping()
                    break
                except redis.exceptions.ConnectionError:
                    assert process.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
        yield f"unix://{socket}"
    finally:
        process.terminate()
        process.wait(BOUND_SECONDS)
        shutil.rmtree(folder)


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of the tests' Redis, empty."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    """Settings with an empty Redis and a database that isn't there yet."""
    return load_settings(database=tmp_path / "embeddings.db", redis_url=redis_url)


@pytest.fixture
async def queue(settings: Settings) -> AsyncIterator[Queue]:
    """An empty queue."""
    async with open_queue(settings) as opened:
        yield opened


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    """An empty store on a file."""
    async with await Store.open(settings.database) as opened:
        yield opened


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a condition holds, `BOUND_SECONDS` at most."""

    async def wait(condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(BOUND_SECONDS):
            while not await condition():  # noqa: ASYNC110 - the condition is in another process, or in Redis
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def embedq(tmp_path: Path) -> Iterator[CommandLine]:
    """The command line with the embedded Redis. Whatever server is left behind is ended."""
    directory = tmp_path / "work"
    directory.mkdir()
    yield CommandLine(directory)
    _end_servers(tmp_path)


def _end_servers(directory: Path) -> None:
    for folder in directory.rglob("*.embedq"):
        socket = EmbeddedRedis(folder).socket
        if socket.exists():
            with redis.Redis(unix_socket_path=str(socket)) as client, contextlib.suppress(redis.exceptions.RedisError):
                client.shutdown(nosave=True)
