"""A real HTTP server that answers `/v1/embeddings` as OpenAI's does, or as badly as it is told to."""

import base64
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from embedq_core.vectors import encode
from support.models import vector_of
from support.waiting import BOUND_SECONDS


@dataclass(frozen=True, slots=True)
class Call:
    """A request that came in. `begun` is by the monotonic clock."""

    number: int
    begun: float
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def texts(self) -> list[str]:
        return list(self.body["input"])


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer: `body` as JSON, bytes as they are. With `whole` False the connection is closed in the middle."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True


def well(call: Call, dimension: int = 8, **more: Any) -> Answer:
    """The vectors of the texts, in the encoding that is asked for."""
    in_base64 = call.body.get("encoding_format") == "base64"
    rows = []
    for index, text in enumerate(call.texts):
        vector = vector_of(text, dimension)
        embedding = base64.b64encode(encode(vector)).decode() if in_base64 else vector
        rows.append({"object": "embedding", "index": index, "embedding": embedding})
    return Answer(body={"object": "list", "data": rows, "model": call.body["model"], **more})


def refusing(status: int, message: str = "", code: str | None = None, **headers: str) -> Answer:
    """An error as OpenAI's API has it; `retry_after` is the header Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"error": {"message": message, "code": code}}, named)


class EmbeddingServer:
    """A server on 127.0.0.1. `behave` says what to answer to a call: it is called in a thread for each connection."""

    def __init__(self, behave: Callable[[Call], Answer] = well, context: ssl.SSLContext | None = None) -> None:
        self.behave = behave
        self.calls: list[Call] = []
        self.released = threading.Event()
        """What behaviour that hangs waits for; it is set at the end."""
        self._context = context
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._port = 0
        self.start()

    def start(self) -> None:
        """Listen, on the same port as before."""
        server = ThreadingHTTPServer(("127.0.0.1", self._port), _handler(self))
        server.daemon_threads = True
        self._port = server.server_port
        if self._context is not None:
            server.socket = self._context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """Be gone, as a process that is killed: no more connections, and those that there are break."""
        self._server.shutdown()
        self._server.socket.close()
        self._thread.join(BOUND_SECONDS)
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def url(self) -> str:
        return f"http{'s' if self._context else ''}://127.0.0.1:{self._port}/v1"

    @property
    def texts(self) -> list[str]:
        """All texts that it was asked for, in all calls."""
        return [text for call in self.calls for text in call.texts]

    def took(self, path: str, headers: Mapping[str, str], body: bytes) -> Call:
        with self._lock:
            lower = {name.lower(): value for name, value in headers.items()}
            call = Call(len(self.calls), time.monotonic(), path, lower, msgspec.json.decode(body))
            self.calls.append(call)
        return call

    @contextmanager
    def connected(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._connections.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._connections.discard(connection)


def _handler(server: EmbeddingServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle(self) -> None:
            with server.connected(self.connection), contextlib.suppress(OSError):
                super().handle()

        def finish(self) -> None:
            with contextlib.suppress(OSError):
                super().finish()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = server.behave(server.took(self.path, dict(self.headers), body))
            content = answer.body if isinstance(answer.body, bytes) else msgspec.json.encode(answer.body)
            lines = [f"HTTP/1.1 {answer.status} x", f"Content-Length: {len(content) + (not answer.whole)}"]
            lines += [f"{name}: {value}" for name, value in answer.headers.items()]
            self.wfile.write("\r\n".join([*lines, "", ""]).encode() + content)
            self.close_connection = not answer.whole

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
            pass

    return Handler


@contextmanager
def embedding_server(
    behave: Callable[[Call], Answer] = well, context: ssl.SSLContext | None = None
) -> Iterator[EmbeddingServer]:
    """A server while the block runs."""
    server = EmbeddingServer(behave, context)
    try:
        yield server
    finally:
        server.released.set()
        server.kill()
