"""What a Redis URL means, before anything is sent."""

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection

from embedq_core.errors import SettingsError
from embedq_jobs.connection import CONNECTIONS, connect, queue_directory
from embedq_jobs.errors import shown_url
from embedq_jobs.sentinel import SentinelAddress, parse_sentinel_url


def options(url: str) -> dict[str, Any]:
    return dict(connect(url).connection_pool.connection_kwargs)


def tls_connection(url: str) -> SSLConnection:
    connection = connect(url).connection_pool.make_connection()  # type: ignore[no-untyped-call]
    assert isinstance(connection, SSLConnection)
    return connection


def test_a_url_names_host_port_database_user_and_password() -> None:
    found = options("redis://ann:pw@example.org:6380/3")
    wanted = {"host": "example.org", "port": 6380, "db": 3, "username": "ann", "password": "pw"}
    assert found | wanted == found


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1))
def test_a_password_may_hold_anything_percent_encoded(password: str) -> None:
    assert options(f"redis://:{quote(password, safe='')}@localhost")["password"] == password


def test_a_unix_url_names_a_socket_whatever_is_in_its_path() -> None:
    pool = connect("unix:///run/my%20red%C3%ADs.sock").connection_pool
    assert issubclass(pool.connection_class, UnixDomainSocketConnection)
    assert pool.connection_kwargs["path"] == "/run/my redís.sock"


def test_tls_checks_the_name_of_the_host() -> None:
    connection = tls_connection("rediss://example.org")
    assert connection.check_hostname is True
    assert connection.cert_reqs is ssl.CERT_REQUIRED


@pytest.mark.parametrize("query", ["ssl_cert_reqs=none", "ssl_check_hostname=false"])
def test_who_asks_for_tls_without_checks_gets_it(query: str) -> None:
    connection = tls_connection(f"rediss://example.org?{query}")
    assert not connection.ssl_context.get().check_hostname


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1))
def test_passwords_for_sentinels_and_their_master_may_hold_anything_percent_encoded(password: str) -> None:
    encoded = quote(password, safe="")
    address = parse_sentinel_url(
        f"redis+sentinel://{encoded}:{encoded}@one:1,[::1]:2/{encoded}/3?sentinel_username=sam&sentinel_password={encoded}"
    )
    assert address == SentinelAddress(
        sentinels=(("one", 1), ("::1", 2)),
        service=password,
        db=3,
        username=password,
        password=password,
        sentinel_username="sam",
        sentinel_password=password,
    )


def test_the_repr_of_a_sentinel_address_holds_no_password() -> None:
    address = parse_sentinel_url("redis+sentinel://ann:hunter2@one/main?sentinel_password=hunter2")
    assert "hunter2" not in repr(address)


def test_a_pool_for_sentinel_is_as_hard_as_any_other() -> None:
    plain, sentinel = options("redis://localhost"), options("redis+sentinel://one,two/main")
    own = {"host", "retry"}  # a retry is not equal to another one like it
    assert {name: sentinel[name] for name in plain if name not in own} == {
        name: value for name, value in plain.items() if name not in own
    }
    assert connect("redis+sentinel://one,two/main").connection_pool.max_connections == CONNECTIONS


@pytest.mark.parametrize(("query", "checked"), [("", True), ("&ssl_cert_reqs=none", False)])
def test_sentinel_with_tls_checks_the_name_of_the_host(query: str, checked: bool) -> None:
    connection = tls_connection(f"redis+sentinel://one/main?tls=1{query}")
    assert connection.check_hostname is checked


def test_no_reply_is_waited_for_without_end_and_dead_connections_are_noticed() -> None:
    found = options("redis://localhost")
    assert 0 < found["socket_timeout"] <= 60
    assert 0 < found["socket_connect_timeout"] <= 60
    assert found["health_check_interval"] > 0
    assert found["socket_keepalive"] is True
    assert OSError in found["retry_on_error"]


def test_connections_are_few_whatever_is_asked_at_once() -> None:
    assert connect("redis://localhost").connection_pool.max_connections == CONNECTIONS < 1024


def test_options_in_the_url_win() -> None:
    assert options("redis://localhost?socket_timeout=2.5")["socket_timeout"] == 2.5


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://ann:hunter2@example.org", "'http'"),
        ("hunter2", "'nothing'"),
        ("", "'nothing'"),
        ("redis://:hunter2/x@example.org", "%2F"),
        ("redis://:12/hunter2@example.org", "%2F"),
        ("redis://:hunter2#x@example.org:6379", "%23"),
        ("redis://:12#hunter2@example.org:6379", "%23"),
        ("redis://:12?hunter2@example.org:6379", "%3F"),
        ("redis://ann:hunter2@example.org:port", "of the form"),
        ("redis://ann:hunter2@[::1", "of the form"),
        ("redis://ann:hunter2@example.org/0?socket_timeout=soon", "socket_timeout"),
        (":hunter2@redis://example.org", "'nothing'"),
        ("redis+sentinel://ann:hunter2@one:26379,two:26379", "of the form"),
        ("redis+sentinel://ann:hunter2@one:26379,two:26379/", "of the form"),
        ("redis+sentinel://ann:hunter2@one:26379,:26379/main", "of the form"),
        ("redis+sentinel://ann:hunter2@one:26379,/main", "of the form"),
        ("redis+sentinel://ann:hunter2@one:x,two/main", "of the form"),
        ("redis+sentinel://ann:hunter2@/main", "of the form"),
        ("redis+sentinel://ann:hunter2@one/main/x", "of the form"),
        ("redis+sentinel://ann:hunter2@one/main/-1", "of the form"),
        ("redis+sentinel://ann:hunter2/@one/main", "%2F"),
        ("redis+sentinel://one/main?sentinel_password=hunter2#x", "%23"),
        ("redis+sentinel://one/main?sentinel_password=hunter2&ssl_ca_certs", "of the form"),
        ("redis+sentinel://one/main?sentinel_password=hunter2&tsl=1", "sentinel_username, sentinel_password, tls"),
        ("redis+sentinel://one/main?sentinel_password=hunter2&tls=perhaps", "tls must be 1 or 0"),
        ("redis+sentinel://:hunter2@one/main?ssl_ca_certs=ca.pem", "need tls=1"),
        ("redis+sentinel://:hunter2@one/main?tls=1&ssl_ca_certs=/no/ca.pem", "/no/ca.pem"),
        ("redis+sentinel://:hunter2@one/main?tls=1&ssl_cert_reqs=perhaps", "perhaps"),
        (
            "rediss://:hunter2@example.org?ssl_ca_certs=/no/ca.pem",
            "ssl_ca_certs names a file that can't be read: /no/ca",
        ),
        ("rediss://:hunter2@example.org?ssl_certfile=/no/me.pem", "ssl_certfile names a file that can't be read"),
        ("rediss://:hunter2@example.org?ssl_keyfile=/dev/null", "ssl_keyfile needs ssl_certfile"),
        ("rediss://:hunter2@example.org?ssl_certfile=/dev/null", "the certificates and keys that it names"),
    ],
)
def test_a_url_that_can_t_be_used_is_refused_and_nothing_secret_is_repeated(url: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        connect(url)
    assert str(caught.value).startswith("EMBEDQ_REDIS_URL ")
    assert said in str(caught.value)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert "hunter2" not in str(chain)
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://ann:pw@example.org:6380/3?x=pw", "example.org:6380"),
        ("redis://example.org", "example.org"),
        ("redis://", "localhost"),
        ("rediss://:pw@[::1]:7000", "::1:7000"),
        ("unix://ann:pw@/run/my%20redis.sock?db=1", "/run/my redis.sock"),
        ("redis+sentinel://ann:pw@one:1,two,[::1]:3/main/4?sentinel_password=pw", "one:1,two:26379,::1:3/main"),
    ],
)
def test_what_is_shown_of_a_url_is_where_it_leads_and_nothing_secret(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_the_queue_of_a_database_lies_beside_it_under_its_name() -> None:
    assert queue_directory(Path("/data/my vectors.db")) == Path("/data/my vectors.db.embedq")
