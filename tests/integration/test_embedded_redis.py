"""The private Redis beside a database: who starts it, who stops it, and that it is private."""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import redis

from embedq_core.errors import NoRedisServer, RedisFull
from embedq_core.settings import load_settings
from embedq_jobs import open_queue, queue_exists
from embedq_jobs.checks import server_warnings
from embedq_jobs.embedded import EmbeddedRedis, find_server, server_version
from embedq_jobs.names import lease_key
from support.chunks import chunk, items
from support.waiting import BOUND_SECONDS, Eventually

USER = """
import asyncio, contextlib, sys
from pathlib import Path
from embedq_jobs.embedded import EmbeddedRedis

async def main():
    async with EmbeddedRedis(Path(sys.argv[1])) as url:
        print(url, flush=True)
        await asyncio.to_thread(sys.stdin.readline)

with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
"""


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: pytest's own are too long for a socket, at times."""
    with tempfile.TemporaryDirectory(prefix="embedq-test-") as folder:
        yield Path(folder)


@pytest.fixture
def directory(short: Path) -> Path:
    """Where the server of a test lives."""
    return short / "a.db.embedq"


def client(url: str) -> redis.Redis:
    return redis.Redis(unix_socket_path=unquote(url.removeprefix("unix://")))


def server_pid(url: str) -> int:
    with client(url) as asking:
        return int(asking.info("server")["process_id"])


def alive(pid: int) -> bool:
    """Whether a process runs: one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class User:
    """Another process that uses the server of `directory`."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url

    def leave(self) -> None:
        self.process.communicate("\n", timeout=BOUND_SECONDS)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=BOUND_SECONDS)


@contextlib.contextmanager
def another_user(directory: Path) -> Iterator[User]:
    user = User(directory)
    try:
        yield user
    finally:
        if user.process.poll() is None:
            user.leave()


async def test_it_is_started_when_it_is_needed_and_stopped_when_it_is_not(directory: Path) -> None:
    async with EmbeddedRedis(directory) as url:
        pid = server_pid(url)
        assert alive(pid)
    assert not alive(pid)
    assert not EmbeddedRedis(directory).socket.exists()


async def test_what_was_queued_is_there_after_a_restart(tmp_path: Path) -> None:
    settings = load_settings(database=tmp_path / "a.db")
    assert not queue_exists(settings)
    async with open_queue(settings) as queue:
        assert await queue.put(chunk(items(3)))
    assert queue_exists(settings)
    async with open_queue(settings) as queue:
        assert [load.items for load in await queue.loads()] == [3]
        assert not await queue.put(chunk(items(3)))


async def test_it_keeps_all_and_evicts_nothing_and_listens_on_no_port(tmp_path: Path) -> None:
    async with open_queue(load_settings(database=tmp_path / "a.db")) as queue:
        assert await server_warnings(queue) == []
        assert await queue.redis.config_get("port") == {"port": "0"}
        assert await queue.redis.config_get("appendonly") == {"appendonly": "yes"}


async def test_two_users_share_it_and_the_last_one_stops_it(directory: Path) -> None:
    with another_user(directory) as other:
        pid = server_pid(other.url)
        async with EmbeddedRedis(directory) as url:
            assert server_pid(url) == pid
            await asyncio.to_thread(other.leave)
            assert server_pid(url) == pid, "one is still there"
    assert not alive(pid)


async def test_who_started_it_may_leave_before_the_others(directory: Path) -> None:
    async with EmbeddedRedis(directory) as url:
        pid = server_pid(url)
        with another_user(directory) as other:
            inner = EmbeddedRedis(directory)
            async with inner:
                pass
            assert server_pid(other.url) == pid
    assert not alive(pid)


async def test_many_who_come_at_once_start_one(directory: Path) -> None:
    users = [EmbeddedRedis(directory) for _ in range(8)]
    urls = await asyncio.gather(*(user.__aenter__() for user in users))
    pids = {server_pid(url) for url in urls}
    assert len(pids) == 1
    await asyncio.gather(*(user.__aexit__(None, None, None) for user in users))
    assert not alive(pids.pop())


async def test_a_server_that_its_killed_user_left_behind_is_taken_over_with_all_it_has(directory: Path) -> None:
    with another_user(directory) as other:
        pid = server_pid(other.url)
        with client(other.url) as asking:
            asking.set("left", "behind")
        other.kill()
    assert alive(pid)
    async with EmbeddedRedis(directory) as url:
        assert server_pid(url) == pid
        with client(url) as asking:
            assert asking.get("left") == b"behind"
    assert not alive(pid), "and it is stopped in the end"


async def test_a_server_that_was_killed_is_started_again_with_all_it_had(directory: Path) -> None:
    async with EmbeddedRedis(directory) as url:
        with client(url) as asking:
            asking.set("paid", "for")
        os.kill(server_pid(url), signal.SIGKILL)
        async with EmbeddedRedis(directory) as again:
            with client(again) as asking:
                assert asking.get("paid") == b"for"


async def test_a_server_that_dies_under_its_users_is_started_again_with_all_it_had(
    directory: Path, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    async with EmbeddedRedis(directory) as url, EmbeddedRedis(directory):
        with client(url) as asking:
            asking.set("paid", "for")
        os.kill(server_pid(url), signal.SIGKILL)

        async def is_back() -> bool:
            try:
                with client(url) as asking:
                    return bool(asking.get("paid") == b"for")
            except redis.exceptions.ConnectionError:
                return False

        await eventually(is_back)
        pid = server_pid(url)
    assert caplog.text.count("started again") == 1
    assert not alive(pid), "and it is stopped in the end"


async def test_who_leaves_while_it_is_started_again_waits_for_that_and_leaves_no_server_behind(
    directory: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    begun, gate, revive = threading.Event(), threading.Event(), EmbeddedRedis._revive

    def slowly(user: EmbeddedRedis) -> None:
        begun.set()
        assert gate.wait(BOUND_SECONDS)
        revive(user)

    monkeypatch.setattr(EmbeddedRedis, "_revive", slowly)
    monkeypatch.setattr("embedq_core.cancelling._AGAIN_SECONDS", 0.001)
    user = EmbeddedRedis(directory)
    os.kill(server_pid(await user.__aenter__()), signal.SIGKILL)
    assert await asyncio.to_thread(begun.wait, BOUND_SECONDS)
    (watching,) = (task for task in asyncio.all_tasks() if task.get_name() == "embedq-private-redis")
    leaving = asyncio.create_task(user.__aexit__(None, None, None))

    async def was_told_again() -> bool:
        return leaving.done() or watching.cancelling() > 2

    await eventually(was_told_again)
    left_before = leaving.done()
    gate.set()
    await leaving
    assert not left_before
    assert not user.socket.exists()


async def test_ctrl_c_in_the_terminal_does_not_reach_it(directory: Path) -> None:
    with another_user(directory) as other:
        pid = server_pid(other.url)
        assert os.getpgid(pid) != os.getpgid(other.process.pid)
        os.killpg(other.process.pid, signal.SIGINT)
        await asyncio.to_thread(other.leave)
    assert not alive(pid), "its user has stopped it on the way out"


@pytest.mark.parametrize("times", [1, 3])
async def test_who_gives_up_while_it_starts_leaves_no_server_behind(directory: Path, times: int) -> None:
    user = EmbeddedRedis(directory)
    entering = asyncio.create_task(user.__aenter__())
    for _ in range(times):
        await asyncio.sleep(0)
        entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert not user.socket.exists()
    with (directory / "server.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_no_second_server_is_started_over_one_that_hangs(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EmbeddedRedis(directory) as url:
        pid = server_pid(url)
        os.kill(pid, signal.SIGSTOP)
        # Not before: a server may take longer to start.
        with monkeypatch.context() as impatient:
            impatient.setattr("embedq_jobs.embedded.START_SECONDS", 0.2)
            with pytest.raises(NoRedisServer, match="runs and does not answer"):
                await EmbeddedRedis(directory).__aenter__()
        os.kill(pid, signal.SIGCONT)
        assert server_pid(url) == pid


# --- private


def make_open(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o755)


def modes_below(directory: Path) -> dict[str, int]:
    """The permissions of a folder and of everything in it."""
    return {
        str(path.relative_to(directory)): stat.S_IMODE(path.stat().st_mode)
        for path in (directory, *directory.rglob("*"))
    }


async def test_nobody_else_can_read_anything_of_it(directory: Path) -> None:
    async with EmbeddedRedis(directory) as url:
        with client(url) as asking:
            asking.set("a", "secret")
        modes = modes_below(directory)
    assert modes.pop(".") == 0o700
    assert modes.pop("appendonlydir", 0o700) == 0o700
    assert len(modes) >= 4
    assert set(modes.values()) == {0o600}, modes


async def test_a_folder_that_others_could_enter_is_closed_to_them(directory: Path) -> None:
    make_open(directory)
    async with EmbeddedRedis(directory):
        assert modes_below(directory)["."] == 0o700


@pytest.mark.parametrize("name", ["with space", "ünïcødé-☃", "per%20cent", "quote'\"s", "hash#?&"])
async def test_a_folder_may_have_any_name(short: Path, name: str) -> None:
    async with open_queue(load_settings(database=short / name / "a.db")) as queue:
        assert await queue.put(chunk(items(1)))
        assert name in queue.where


async def test_a_name_too_long_for_a_socket_gets_one_elsewhere_as_private(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 30) / ("name" * 30)
    user = EmbeddedRedis(directory)
    async with user as url:
        assert user.socket.parent != directory
        assert len(os.fsencode(user.socket)) < 104
        assert modes_below(user.socket.parent) == {".": 0o700, "redis.sock": 0o600}
        assert (directory / "redis.log").exists()
        async with EmbeddedRedis(directory) as again:
            assert server_pid(again) == server_pid(url)
    assert not user.socket.parent.exists()


async def test_two_long_names_get_two_sockets(tmp_path: Path) -> None:
    one, other = (EmbeddedRedis(tmp_path / ("long" * 50) / name) for name in ("one", "other"))
    assert one.socket != other.socket


async def test_a_link_that_somebody_has_put_in_the_place_of_a_socket_is_not_followed(tmp_path: Path) -> None:
    user, elsewhere = EmbeddedRedis(tmp_path / ("long" * 50)), tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    user.socket.parent.symlink_to(elsewhere)
    try:
        with pytest.raises(NoRedisServer, match="Not a directory"):
            await user.__aenter__()
        assert not list(elsewhere.iterdir())
    finally:
        user.socket.parent.unlink()


async def test_a_folder_that_can_t_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NoRedisServer, match=f"{tmp_path}/file/a.db.embedq: can't be used for the queue"):
        await EmbeddedRedis(tmp_path / "file" / "a.db.embedq").__aenter__()


async def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.db.embedq").write_text("in the way")
    with pytest.raises(NoRedisServer, match=r"a\.db\.embedq: can't be used for the queue"):
        await EmbeddedRedis(tmp_path / "a.db.embedq").__aenter__()


# --- which server


def test_without_any_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NoRedisServer) as caught:
        find_server()
    for word in ("redis-server", "valkey-server", "apt install", "EMBEDQ_REDIS_URL"):
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_a_server_in_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    server = tmp_path / name
    server.write_text("#!/bin/sh\necho 'Server v=8.1.0 sha=0'\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == str(server)
    assert server_version(str(server)) == 8


async def test_a_server_that_does_not_start_is_quoted(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "redis-server"
    server.write_text("#!/bin/sh\necho 'Fatal: out of luck'\nexit 1\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(NoRedisServer, match="did not start: Fatal: out of luck") as caught:
        await EmbeddedRedis(directory).__aenter__()
    assert str(directory / "redis.log") in str(caught.value)


async def test_a_queue_that_a_newer_server_wrote_is_not_overlooked_by_an_older_one(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "redis-server"
    server.write_text("#!/bin/sh\necho 'Redis server v=6.2.7 sha=0'\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (directory / "appendonlydir").mkdir(parents=True)
    with pytest.raises(NoRedisServer, match="install a newer redis-server"):
        await EmbeddedRedis(directory).__aenter__()


def test_the_server_that_was_found_says_its_version() -> None:
    assert server_version(find_server()) >= 6
    assert shutil.which(find_server()) or Path(find_server()).exists()


@pytest.mark.parametrize("prefix", ["embedq", "b[a]*:claims:"])
async def test_what_the_dead_had_in_hand_is_free_when_the_next_one_comes(short: Path, prefix: str) -> None:
    settings = load_settings(database=short / "a.db", queue=prefix)
    async with open_queue(settings) as queue:
        names = queue.names
        temporary = {lease_key("a:1"), names.turn("pets"), names.claims("a worker")}
        lasting = {names.load("claims:model"), names.limit("turn:model"), names.run("a:claims:b"), names.claimants}
        for key in temporary | lasting:
            await queue.redis.set(key, b"1")
        async with open_queue(settings) as other:
            assert await other.redis.exists(*temporary, *lasting) == len(temporary | lasting)
    async with open_queue(settings) as queue:
        assert {key.decode() for key in await queue.redis.keys()} == lasting


async def test_a_server_that_takes_nothing_since_the_disk_is_full_answers_still_and_is_joined(
    directory: Path, eventually: Eventually
) -> None:
    """What is queued can be looked at, and who writes hears of the disk and not of a server that does not start."""
    user = User(directory)
    with client(user.url) as asking:
        user.process.kill()
        user.process.communicate(timeout=BOUND_SECONDS)
        asking.set(lease_key("somebody's"), b"1")
        pid = server_pid(user.url)
        # A snapshot that can't be written has it refuse writes, as an append-only file does on a full disk.
        (directory / "dump.rdb").mkdir()
        asking.config_set("save", "3600 1")
        asking.bgsave()

        async def refuses() -> bool:
            return bool(asking.info("persistence")["rdb_last_bgsave_status"] == "err")

        await eventually(refuses)
        with pytest.raises(redis.exceptions.ResponseError, match="MISCONF"):
            asking.ping()
        async with open_queue(load_settings(database=directory.with_suffix(""))) as queue:
            assert asking.info("server")["process_id"] == pid
            assert asking.get(lease_key("somebody's")) == b"1"
            assert await queue.loads() == []
            with pytest.raises(RedisFull, match="can't write to its disk and takes nothing: free some space"):
                await queue.put(chunk(items(1)))
            asking.config_set("save", "")
            assert await queue.put(chunk(items(1)))
