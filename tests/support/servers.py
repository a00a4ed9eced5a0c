"""Redis servers of one test, that can be killed and come back."""

import contextlib
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import redis

from embedq_jobs.embedded import find_server
from support.waiting import BOUND_SECONDS


class MortalRedis:
    """A redis-server that can be killed and started again on the same socket and append-only file."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.url = f"unix://{quote(str(self.socket))}"
        self._options = options
        self.start()

    def start(self) -> None:
        command = [find_server(), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder)]
        # By default Redis puts writing off while the disk is busy: what it has acknowledged then dies with it.
        command += [
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--save",
            "",
            "--logfile",
            str(self.folder / "log"),
            *self._options,
        ]
        self.process = subprocess.Popen(command)
        with self.client() as client:
            wait_for(client.ping)

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(BOUND_SECONDS)


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds, and does not fail for want of a server."""
    deadline = time.monotonic() + BOUND_SECONDS
    while True:
        with contextlib.suppress(redis.exceptions.ConnectionError):
            if condition():
                return
        assert time.monotonic() < deadline
        time.sleep(0.01)


def free_port() -> int:
    """A port at which nobody listens. The system gives none of these to connections, so that nobody gets it by chance
    before it is used.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Watched:
    """A master, a replica, and a Sentinel that watches them as 'main'."""

    def __init__(self, folder: Path, sentinel_password: str, password: str) -> None:
        self.master, self.replica, self.sentinel = free_port(), free_port(), free_port()
        self._folder = folder
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        secrets = ["--requirepass", password, "--masterauth", password]
        self._serve(self.master, *secrets, "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")
        self._serve(self.replica, *secrets, "--replicaof", "127.0.0.1", str(self.master))
        with redis.Redis(port=self.replica, password=password) as client:
            wait_for(lambda: client.info("replication")["master_link_status"] == "up")
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {self.sentinel}\nbind 127.0.0.1\ndir {folder}\nlogfile {folder / 'sentinel.log'}\n"
            f'requirepass "{sentinel_password}"\n'
            f"sentinel monitor main 127.0.0.1 {self.master} 1\n"
            f'sentinel auth-pass main "{password}"\n'
            # A busy machine lets a server be silent for tenths of a second, which is not its death; and an attempt that
            # finds no replica to promote is repeated after twice the second of these.
            "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 1000\n"
        )
        self._start(self.sentinel, str(config), "--sentinel")
        with redis.Redis(port=self.sentinel, password=sentinel_password) as client:
            # It learns of replicas when it first asks the master, and then every ten seconds.
            wait_for(lambda: client.sentinel_slaves("main"))

    def _serve(self, port: int, *options: str) -> None:
        folder = self._folder / str(port)
        folder.mkdir()
        command = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes"]
        self._start(port, *command, "--save", "", "--logfile", str(folder / "log"), *options)

    def _start(self, port: int, *arguments: str) -> None:
        self._processes[port] = subprocess.Popen([find_server(), *arguments])

    def kill(self, port: int) -> None:
        self._processes[port].kill()
        self._processes[port].wait(BOUND_SECONDS)

    def end(self) -> None:
        for port in self._processes:
            self.kill(port)


@contextmanager
def watched(folder: Path, sentinel_password: str, password: str) -> Iterator[Watched]:
    """`Watched` while the block runs."""
    servers = Watched.__new__(Watched)
    try:
        servers.__init__(folder, sentinel_password, password)  # type: ignore[misc]
        yield servers
    finally:
        servers.end()
