"""A TLS endpoint in front of a Redis: the server that the tests use may have been built without TLS."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_BYTES = 65536


@asynccontextmanager
async def tls_endpoint(
    context: ssl.SSLContext, target: str | int, instead: tuple[bytes, bytes] = (b"", b"")
) -> AsyncIterator[int]:
    """The port, on 127.0.0.1, of a TLS endpoint that hands everything on to a Unix socket or a port.

    In replies, the second of `instead` stands for the first: for a Sentinel that knows only a port without TLS.
    """
    busy: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        busy.add(task)
        beyond, towards = await (
            asyncio.open_unix_connection(target)
            if isinstance(target, str)
            else asyncio.open_connection("127.0.0.1", target)
        )
        await asyncio.gather(_copy(reader, towards), _copy(beyond, writer, instead))
        busy.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if busy:
            await asyncio.wait(busy, timeout=5)


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, instead: tuple[bytes, bytes] = (b"", b"")
) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_BYTES):
            writer.write(data.replace(*instead) if instead[0] else data)
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
