"""TLS to Redis: who is there is checked on both sides, with certificates that were made for the test."""

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from embedq_core.errors import RedisUnreachable
from embedq_core.settings import load_settings
from embedq_jobs import open_queue
from support.chunks import RUN, chunk, items, run
from support.servers import watched
from support.tls import tls_endpoint
from support.waiting import BOUND_SECONDS


@pytest.fixture(autouse=True)
def _one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused again: the tests need not wait for that."""
    monkeypatch.setattr("embedq_jobs.connection.ATTEMPTS", 0)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authority's certificate, a client's, one from another authority, and one with its key beside it."""
    folder = tmp_path_factory.mktemp("certificates")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    client = authority.issue_cert("client.example")
    client.private_key_pem.write_to_path(folder / "key.pem")
    client.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    client.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    trustme.CA().issue_cert("client.example").private_key_and_cert_chain_pem.write_to_path(folder / "stranger.pem")
    return folder


@asynccontextmanager
async def endpoint(
    redis_url: str, authority: trustme.CA, *, name: str = "localhost", ask_clients: bool = False
) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if ask_clients:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    async with tls_endpoint(context, urlsplit(redis_url).path) as port:
        yield port


async def put(url: str, tmp_path: Path) -> None:
    async with open_queue(load_settings(database=tmp_path / "embeddings.db", redis_url=url)) as queue:
        await queue.runs.open(run())
        assert await queue.put(chunk(items(3)))
        assert (await queue.runs.summary(RUN)).items == 3


async def test_a_server_with_the_right_name_from_the_right_authority_is_used(
    redis_url: str, authority: trustme.CA, files: Path, tmp_path: Path
) -> None:
    async with endpoint(redis_url, authority) as port:
        await put(f"rediss://localhost:{port}?ssl_ca_certs={files / 'ca.pem'}", tmp_path)


@pytest.mark.parametrize(
    ("name", "ca", "said"),
    [
        ("redis.example", "ca.pem", "hostname mismatch"),
        ("localhost", "other-ca.pem", "unable to get local issuer certificate|self-signed certificate"),
    ],
    ids=["wrong host name", "unknown authority"],
)
async def test_a_server_that_may_be_another_is_refused_and_told_nothing(
    redis_url: str, authority: trustme.CA, files: Path, tmp_path: Path, name: str, ca: str, said: str
) -> None:
    async with endpoint(redis_url, authority, name=name) as port:
        with pytest.raises(RedisUnreachable, match=said) as caught:
            await put(f"rediss://:hunter2@localhost:{port}?ssl_ca_certs={files / ca}", tmp_path)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("given", ["ssl_certfile={0}/cert.pem&ssl_keyfile={0}/key.pem", "ssl_certfile={0}/both.pem"])
async def test_a_server_that_asks_for_a_certificate_is_shown_ours(
    redis_url: str, authority: trustme.CA, files: Path, tmp_path: Path, given: str
) -> None:
    async with endpoint(redis_url, authority, ask_clients=True) as port:
        await put(f"rediss://localhost:{port}?ssl_ca_certs={files}/ca.pem&{given.format(files)}", tmp_path)


@pytest.mark.parametrize("given", ["", "&ssl_certfile={0}/stranger.pem"], ids=["none", "a stranger's"])
async def test_without_the_right_certificate_such_a_server_refuses_us_and_it_is_said(
    redis_url: str, authority: trustme.CA, files: Path, tmp_path: Path, given: str
) -> None:
    async with endpoint(redis_url, authority, ask_clients=True) as port:
        with pytest.raises(RedisUnreachable) as caught:
            async with asyncio.timeout(BOUND_SECONDS):
                await put(f"rediss://localhost:{port}?ssl_ca_certs={files}/ca.pem{given.format(files)}", tmp_path)
    assert f"Redis at localhost:{port} can't be reached" in str(caught.value)


async def test_sentinels_and_the_master_that_they_name_are_spoken_to_with_tls(
    authority: trustme.CA, files: Path, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with tempfile.TemporaryDirectory(prefix="embedq-test-") as folder, watched(Path(folder), "pw", "pw") as servers:
        async with tls_endpoint(context, servers.master) as master:
            named = tuple(f"${len(str(port))}\r\n{port}".encode() for port in (servers.master, master))
            async with tls_endpoint(context, servers.sentinel, (named[0], named[1])) as sentinel:
                url = f"redis+sentinel://:pw@127.0.0.1:{sentinel}/main?sentinel_password=pw&tls=1"
                await put(f"{url}&ssl_ca_certs={files}/ca.pem", tmp_path)
                with pytest.raises(RedisUnreachable, match="certificate"):
                    await put(f"{url}&ssl_ca_certs={files}/other-ca.pem", tmp_path)
