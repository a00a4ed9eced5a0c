"""Redis Sentinel: a pool of connections to whichever server is the master now."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import redis.exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool

from embedq_core.errors import SettingsError
from embedq_jobs.demotion import TcpConnection, TlsConnection

SCHEME: Final = "redis+sentinel"
FORM: Final = "redis+sentinel://user:password@host:26379,host:26379/SERVICE/NUMBER"
DEFAULT_PORT: Final = 26379

_TLS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_OPTIONS: Final = ("sentinel_username", "sentinel_password", "tls", *_TLS)
_YES: Final = ("1", "true", "yes")
_NO: Final = ("0", "false", "no")


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """What a URL of the form `FORM` says. Its repr shows no password."""

    sentinels: tuple[tuple[str, int], ...]
    service: str
    db: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_options: Mapping[str, Any] = field(default_factory=dict)

    def shown(self) -> str:
        """Where it leads, without secrets: hosts and service."""
        return f"{','.join(f'{host}:{port}' for host, port in self.sentinels)}/{self.service}"


def parse_sentinel_url(url: str) -> SentinelAddress:
    """Read a URL of the form `FORM`. Raises SettingsError, which repeats nothing of it."""
    try:
        parts = urlsplit(url)
        credentials, _, hosts = parts.netloc.rpartition("@")
        sentinels = tuple(map(_host, hosts.split(",")))
        service, _, number = parts.path.removeprefix("/").partition("/")
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        db = int(number) if number else 0
    except ValueError:
        raise _malformed() from None
    if not service or db < 0 or "@" in parts.path + parts.query + parts.fragment or parts.fragment:
        raise _malformed()
    if not options.keys() <= set(_OPTIONS):
        raise SettingsError(f"EMBEDQ_REDIS_URL can't be used: after '?' a {SCHEME} URL takes {', '.join(_OPTIONS)}")
    tls = _flag("tls", options.get("tls", "0"))
    tls_options: dict[str, Any] = {name: options[name] for name in _TLS if name in options}
    if tls_options and not tls:
        raise SettingsError("EMBEDQ_REDIS_URL can't be used: the ssl_… options need tls=1")
    if "ssl_check_hostname" in tls_options:
        tls_options["ssl_check_hostname"] = _flag("ssl_check_hostname", tls_options["ssl_check_hostname"])
    user, _, password = credentials.partition(":")
    return SentinelAddress(
        sentinels=sentinels,
        service=unquote(service),
        db=db,
        username=unquote(user) or None,
        password=unquote(password) or None,
        sentinel_username=options.get("sentinel_username") or None,
        sentinel_password=options.get("sentinel_password") or None,
        tls=tls,
        tls_options=tls_options,
    )


def _host(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.netloc != text:
        raise ValueError
    return parts.hostname, parts.port or DEFAULT_PORT


def _flag(name: str, value: str) -> bool:
    if value.lower() not in (*_YES, *_NO):
        raise SettingsError(f"EMBEDQ_REDIS_URL can't be used: {name} must be 1 or 0")
    return value.lower() in _YES


def _malformed() -> SettingsError:
    return SettingsError(
        f"EMBEDQ_REDIS_URL is no URL of the form {FORM}: in a user name or a password, write '/', '?', '#', '@', "
        "':' and '%' as %2F, %3F, %23, %40, %3A and %25"
    )


class Masters:
    """Asks the Sentinels where the master of a service is."""

    def __init__(self, sentinels: Sequence[Redis], service: str) -> None:
        self._sentinels = list(sentinels)
        self._service = service

    async def address(self) -> tuple[str, int]:
        """Host and port of the master. Raises redis-py's ConnectionError where no Sentinel knows."""
        silence, problems = "", list[str]()
        for sentinel in list(self._sentinels):
            try:
                asking: Awaitable[Any] = sentinel.execute_command(  # type: ignore[no-untyped-call]
                    "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service
                )
                reply = await asking
            except redis.exceptions.AuthenticationError:
                problems.append("a Sentinel refuses the user name or password")
            except (redis.exceptions.RedisError, OSError) as error:
                silence = f"no Sentinel answers, the last one with {str(error).rstrip('.')!r}"
            else:
                if reply is not None:
                    # The next one to ask first is one that knows.
                    self._sentinels.remove(sentinel)
                    self._sentinels.insert(0, sentinel)
                    host, port = reply
                    return host.decode(), int(port)
                problems.append(f"no Sentinel knows a master named {self._service!r}")
        # What one has answered says more than the silence of the others.
        raise redis.exceptions.ConnectionError(problems[0] if problems else silence)

    async def close(self) -> None:
        """Close the connections to the Sentinels."""
        for sentinel in self._sentinels:
            await sentinel.aclose()


class _MasterTcpConnection(TcpConnection):
    def __init__(self, *, masters: Masters, **options: Any) -> None:  # noqa: ANN401 - as redis-py has it
        super().__init__(**options)
        self._masters = masters

    async def _connect(self) -> None:
        # Here, and not once for the pool: each new attempt asks anew.
        self.host, self.port = await self._masters.address()
        await super()._connect()  # type: ignore[no-untyped-call]


class _MasterTlsConnection(_MasterTcpConnection, TlsConnection):
    pass


class MasterPool(BlockingConnectionPool):
    """Connections to the master of `address`; `options` as for any pool, `sentinel_options` for the Sentinels."""

    def __init__(
        self, address: SentinelAddress, options: Mapping[str, Any], sentinel_options: Mapping[str, Any]
    ) -> None:
        tls = {"ssl_check_hostname": address.tls_options.get("ssl_cert_reqs") != "none", **address.tls_options}
        self._masters = Masters(
            [
                Redis(
                    host=host,
                    port=port,
                    username=address.sentinel_username,
                    password=address.sentinel_password,
                    ssl=address.tls,
                    **(tls if address.tls else {}),
                    **sentinel_options,
                )
                for host, port in address.sentinels
            ],
            address.service,
        )
        super().__init__(
            connection_class=_MasterTlsConnection if address.tls else _MasterTcpConnection,
            masters=self._masters,
            username=address.username,
            password=address.password,
            db=address.db,
            **(tls if address.tls else {}),
            **options,
        )

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close all connections, those to the Sentinels as well."""
        await super().disconnect(inuse_connections)
        await self._masters.close()
