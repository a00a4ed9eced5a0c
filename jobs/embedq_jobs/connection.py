"""A hardened connection to Redis, and the queue that it leads to."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, urlsplit

import redis.exceptions
from arq.connections import ArqRedis
from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from embedq_core.errors import SettingsError
from embedq_core.settings import Settings
from embedq_jobs import sentinel
from embedq_jobs.codec import dump_job, load_job
from embedq_jobs.demotion import LEAVING_REPLICAS
from embedq_jobs.embedded import EmbeddedRedis, is_used
from embedq_jobs.errors import disk_is_full, shown_url, translated
from embedq_jobs.queue import EXPIRES_MS, Queue

_SCHEMES: Final = ("redis", "rediss", "unix", sentinel.SCHEME)
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")

CONNECT_SECONDS: Final = 5.0
# No command of ours takes long; a reply that is this late will not come.
REPLY_SECONDS: Final = 30.0
HEALTH_CHECK_SECONDS: Final = 15
# After a lost connection, how often a command is sent again.
ATTEMPTS: Final = 3
# Commands beyond these wait for each other. A worker has hundreds of jobs in hand that may all end at once.
CONNECTIONS: Final = 64


def connect(url: str) -> ArqRedis:
    """A pool of connections to `url`, as arq wants it. Nothing is sent yet.

    Passwords are percent-decoded, TLS host names are checked, a reply is not waited for without end, idle
    connections are checked before use, and a command is tried again when its connection was lost: all of ours
    may be sent twice. Raises SettingsError for a URL that can't be used.
    """
    beginning = _SCHEME.match(url)
    scheme = beginning[1].lower() if beginning else "nothing"
    if scheme not in _SCHEMES:
        raise SettingsError(
            f"EMBEDQ_REDIS_URL must start with redis://, rediss://, unix:// or redis+sentinel://, not {scheme!r}"
        )
    try:
        pool = _master_pool(url) if scheme == sentinel.SCHEME else _pool(url)
        _check_tls(pool)
    except SettingsError:
        raise
    except (ValueError, redis.exceptions.RedisError) as error:
        raise SettingsError(f"EMBEDQ_REDIS_URL can't be used: {error}") from error
    return ArqRedis(pool_or_conn=pool, job_serializer=dump_job, job_deserializer=load_job, expires_extra_ms=EXPIRES_MS)


def _options() -> dict[str, Any]:
    """What all pools have in common."""
    return {
        "socket_timeout": REPLY_SECONDS,
        "socket_connect_timeout": CONNECT_SECONDS,
        "health_check_interval": HEALTH_CHECK_SECONDS,
        "redis_connect_func": _greet,
        "retry": Retry(ExponentialBackoff(cap=1.0, base=0.05), ATTEMPTS),
        "retry_on_error": [redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError],
        "max_connections": CONNECTIONS,
        "timeout": REPLY_SECONDS,
        # A name for the library is a command more that an ACL would have to allow.
        "lib_name": None,
        "lib_version": None,
    }


def _pool(url: str) -> BlockingConnectionPool:
    parts, options = _split(url), _options()
    if parts.scheme != "unix":
        options["socket_keepalive"] = True
    # Without certificates there is nothing to check a name against.
    if parts.scheme == "rediss" and parse_qs(parts.query).get("ssl_cert_reqs") != ["none"]:
        options["ssl_check_hostname"] = True
    pool = BlockingConnectionPool.from_url(url, **options)
    pool.connection_class = LEAVING_REPLICAS[pool.connection_class]
    return pool


def _master_pool(url: str) -> sentinel.MasterPool:
    return sentinel.MasterPool(
        sentinel.parse_sentinel_url(url),
        _options() | {"socket_keepalive": True},
        {"socket_timeout": CONNECT_SECONDS, "socket_connect_timeout": CONNECT_SECONDS, "socket_keepalive": True},
    )


def _check_tls(pool: BlockingConnectionPool) -> None:
    """Read what TLS needs now: later it would look as if the server were away, for ever. Raises ValueError."""
    options = pool.connection_kwargs
    # redis-py takes no notice of a certificate without a key; the key may stand in the same file.
    if "ssl_certfile" in options:
        options.setdefault("ssl_keyfile", options["ssl_certfile"])
    elif "ssl_keyfile" in options:
        raise ValueError("ssl_keyfile needs ssl_certfile")
    for name in _TLS_FILES:
        if name in options and not os.access(options[name], os.R_OK):
            raise ValueError(f"{name} names a file that can't be read: {options[name]}")
    connection = pool.make_connection()  # type: ignore[no-untyped-call]
    if isinstance(connection, SSLConnection):
        try:
            connection.ssl_context.get()
        except OSError as error:
            raise ValueError(f"the certificates and keys that it names: {error}") from error


async def _greet(connection: AbstractConnection) -> None:
    """What redis-py does on a new connection, but without a health check in the middle of it.

    One that fails there (no password given, or a server that is still loading) connects again, which checks
    again, without end.
    """
    connection.next_health_check = asyncio.get_running_loop().time() + HEALTH_CHECK_SECONDS
    await connection.on_connect()


def _split(url: str) -> SplitResult:
    """The parts of `url`. Raises SettingsError, which repeats nothing of it: what is cut wrongly may be secret."""
    try:
        parts = urlsplit(url)
        cut_short = parts.scheme != "unix" and "@" in parts.path + parts.query + parts.fragment
        _ = parts.port
    except ValueError:
        cut_short = True
    if cut_short:
        raise SettingsError(
            "EMBEDQ_REDIS_URL is no URL of the form redis://user:password@host:port/number: in a user name or a "
            "password, write '/', '?', '#', '@', ':' and '%' as %2F, %3F, %23, %40, %3A and %25"
        )
    return parts


def queue_directory(database: Path) -> Path:
    """Where the private Redis of a database keeps its files: beside it."""
    return database.with_name(database.name + ".embedq")


def queue_exists(settings: Settings) -> bool:
    """Whether there is a queue to look at: looking should not make one."""
    return settings.redis_url is not None or is_used(queue_directory(settings.database))


@asynccontextmanager
async def open_queue(settings: Settings) -> AsyncIterator[Queue]:
    """The queue that the settings name, or the one in a private Redis beside the database.

    Raises RedisUnreachable, NoRedisServer, QueueError, SettingsError.
    """
    async with AsyncExitStack() as stack:
        if settings.redis_url is not None:
            url = str.__str__(settings.redis_url)
        else:
            private = EmbeddedRedis(queue_directory(settings.database), settings.queue)
            url = await stack.enter_async_context(private)
        pool, where = connect(url), shown_url(url)
        stack.push_async_callback(pool.aclose, close_connection_pool=True)
        with translated(where):
            try:
                await asyncio.wait_for(pool.ping(), CONNECT_SECONDS + REPLY_SECONDS)
            except redis.exceptions.ResponseError as error:
                # What it holds can be looked at all the same.
                if not disk_is_full(error):
                    raise
        yield Queue(pool, settings.queue, where)
