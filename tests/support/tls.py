"""A TLS endpoint in front of a Redis: the server that the tests use may have been built without TLS."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_BYTES = 65536


@asynccontextmanager
async def tls_endpoint(context: ssl.SSLContext, socket: str) -> AsyncIterator[int]:
    """The port, on localhost, of a TLS endpoint that hands everything on to the Unix socket."""
    busy: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        busy.add(task)
        beyond, towards = await asyncio.open_unix_connection(socket)
        await asyncio.gather(_copy(reader, towards), _copy(beyond, writer))
        busy.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if busy:
            await asyncio.wait(busy, timeout=5)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
