"""Models behind HTTP, against a real server that can be as bad as servers are."""

import json
import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from embedq_core.errors import (
    ContentRefused,
    EmbedqError,
    ModelMisconfigured,
    ModelUnavailable,
    RateLimited,
    SettingsError,
    WrongVectorCount,
)
from embedq_core.model import embed_all, embed_checked, embed_queries
from embedq_plugins import Registry
from embedq_plugins.http.model import HttpModel
from embedq_plugins.kinds import configured_in
from support.embedding_server import Answer, Call, EmbeddingServer, embedding_server, refusing, well
from support.models import vector_of
from support.waiting import BOUND_SECONDS

KEY = "sk-very-secret-0123456789"


class Held:
    """A limiter that lets everybody through and remembers what it was told."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.corrections: list[tuple[int, int]] = []
        self.held: list[float] = []

    def wait(self, tokens: int) -> None:
        self.tokens.append(tokens)

    def correct(self, estimated: int, actual: int) -> None:
        self.corrections.append((estimated, actual))

    def hold(self, seconds: float) -> None:
        self.held.append(seconds)


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with embedding_server() as running:
        yield running


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., HttpModel]]:
    """Make models as the settings file describes them."""
    models: list[HttpModel] = []

    def make(*servers: EmbeddingServer, kind: str = "http", **options: Any) -> HttpModel:
        urls = [server.url for server in servers]
        table = {"kind": kind, "model": "m", **({"base_url": urls} if urls else {}), **options}
        file = tmp_path / "settings.toml"
        # The values of TOML that stand here are those of JSON, but for tables.
        lines = (f"{name} = {_toml(value)}" for name, value in table.items())
        file.write_text("[models.mine]\n" + "\n".join(lines))
        from embedq_plugins import http

        registry = Registry({"http": http}, configured=lambda: configured_in(file))
        assert registry.plugin_problems() == []
        model = registry.get_embedding_model("mine")
        assert isinstance(model, HttpModel)
        model.limiter = Held()
        models.append(model)
        return model

    yield make
    for model in models:
        model.close()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + "}"
    return json.dumps(value)


def held(model: HttpModel) -> Held:
    assert isinstance(model.limiter, Held)
    return model.limiter


def vectors(*texts: str) -> list[list[float]]:
    return [vector_of(text) for text in texts]


# --- the request and the answer


@pytest.mark.parametrize("encoding", ["auto", "base64", "float"])
def test_vectors_come_as_they_are_in_either_encoding(
    server: EmbeddingServer, made: Callable[..., HttpModel], encoding: str
) -> None:
    model = made(server, encoding=encoding)
    assert embed_all(model, ["a", "b"]).matrix.tolist() == vectors("a", "b")
    (call,) = server.calls
    assert call.path == "/v1/embeddings"
    asked = "float" if encoding == "float" else "base64"
    assert call.body == {"model": "m", "input": ["a", "b"], "encoding_format": asked}
    assert "authorization" not in call.headers


def test_a_server_that_knows_no_base64_is_asked_for_it_once(made: Callable[..., HttpModel]) -> None:
    def behave(call: Call) -> Answer:
        return refusing(400, "unknown field encoding_format") if "encoding_format" in call.body else well(call)

    with embedding_server(behave) as server:
        model = made(server)
        assert embed_all(model, ["a", "b", "c"], 1).matrix.tolist() == vectors("a", "b", "c")
        assert ["encoding_format" in call.body for call in server.calls] == [True, False, False, False]


def test_a_server_that_answers_floats_to_whatever_it_is_asked_is_understood(made: Callable[..., HttpModel]) -> None:
    with embedding_server(lambda call: Answer(body={"data": [{"embedding": [1, 2.5]}] * len(call.texts)})) as server:
        assert embed_all(made(server), ["a", "b"]).matrix.tolist() == [[1, 2.5], [1, 2.5]]


def test_the_order_is_that_of_the_numbers(made: Callable[..., HttpModel]) -> None:
    def behave(call: Call) -> Answer:
        answer = well(call)
        answer.body["data"].reverse()
        return answer

    with embedding_server(behave) as server:
        assert embed_all(made(server), ["a", "b", "c"]).matrix.tolist() == vectors("a", "b", "c")


def test_documents_and_queries_have_their_prefixes_and_fields(
    server: EmbeddingServer, made: Callable[..., HttpModel]
) -> None:
    options = {"document_body": {"input_type": "passage"}, "query_body": {"input_type": "query"}}
    model = made(server, document_prefix="d: ", query_prefix="q: ", dimensions=8, **options)
    embed_all(model, ["a"])
    embed_queries(model, ["a"])
    sent = [(call.body["input"], call.body["input_type"], call.body["dimensions"]) for call in server.calls]
    assert sent == [(["d: a"], "passage", 8), (["q: a"], "query", 8)]
    assert model.dimension == 8
    assert model.configuration == {
        "document_prefix": "d: ",
        "query_prefix": "q: ",
        "model": "m",
        "dimensions": 8,
        "document_body": '{"input_type":"passage"}',
        "query_body": '{"input_type":"query"}',
    }


@pytest.mark.parametrize(
    ("header", "value"), [("Authorization", f"Bearer {KEY}"), ("api-key", KEY)], ids=["bearer", "bare"]
)
def test_the_key_comes_from_the_environment_or_a_file_that_may_change(
    server: EmbeddingServer,
    made: Callable[..., HttpModel],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    header: str,
    value: str,
) -> None:
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    made(server, key_env="MY_KEY", key_header=header, headers={"X-Team": "search"}).embed("a")
    file = tmp_path / "key"
    file.write_text(KEY)
    model = made(server, key_file=str(file), key_header=header)
    model.embed("a")
    file.write_text("another\n")
    model.embed("a")
    found = [call.headers[header.lower()] for call in server.calls]
    assert found == [value, value, value.replace(KEY, "another")]
    assert server.calls[0].headers["x-team"] == "search"


def test_a_request_holds_no_more_than_so_many_texts_and_tokens(
    server: EmbeddingServer, made: Callable[..., HttpModel]
) -> None:
    model = made(server, batch_size=4, batch_tokens=100)
    texts = ["x" * 100, "y" * 200, "z" * 200, "a", "b", "c", "d", "e", "w" * 4000, "f"]
    assert embed_checked(model, texts).matrix.tolist() == vectors(*texts)
    assert [len(call.texts) for call in server.calls] == [2, 4, 2, 1, 1]
    assert held(model).tokens[0] == 26 + 51


def test_long_texts_are_sent_alone_or_cut(server: EmbeddingServer, made: Callable[..., HttpModel]) -> None:
    texts = ["a", "b", "x" * 100, "c"]
    embed_checked(made(server, max_input_tokens=10), texts)
    assert [call.texts for call in server.calls] == [["a", "b"], ["x" * 100], ["c"]]
    model = made(server, max_input_tokens=10, truncate=True, characters_per_token=2)
    embed_checked(model, texts)
    assert server.calls[-1].texts == ["a", "b", "x" * 20, "c"]
    assert model.configuration["characters"] == 20


def test_the_estimate_of_tokens_is_corrected_by_what_the_server_counted(made: Callable[..., HttpModel]) -> None:
    with embedding_server(lambda call: well(call, usage={"prompt_tokens": 1000})) as server:
        model = made(server)
        embed_checked(model, ["x" * 40, "y" * 40])
        assert held(model).tokens == [22]
        assert held(model).corrections == [(22, 1000)]


# --- what goes wrong


def failing(made: Callable[..., HttpModel], answer: Answer, *texts: str, **options: Any) -> EmbedqError:
    """What comes of `texts` where all of them are answered so."""
    with embedding_server(lambda _: answer) as server:
        with pytest.raises(EmbedqError) as caught:
            embed_checked(made(server, **options), texts or ("a", "b"))
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 600
        return caught.value


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, ModelMisconfigured),
        (402, ModelMisconfigured),
        (403, ModelMisconfigured),
        (404, ModelMisconfigured),
        (301, ModelMisconfigured),
        (429, RateLimited),
        (408, ModelUnavailable),
        (500, ModelUnavailable),
        (503, ModelUnavailable),
        (400, ContentRefused),
        (413, ContentRefused),
        (422, ContentRefused),
    ],
)
def test_each_status_is_an_error_of_a_class_and_no_key_is_in_its_message(
    made: Callable[..., HttpModel], monkeypatch: pytest.MonkeyPatch, status: int, kind: type[Exception]
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    options = {"key_env": "MY_KEY", "headers": {"X-Other": "other-secret"}}
    error = failing(made, refusing(status, f"no: {KEY}\nother-secret"), "a", "b", **options)
    assert type(error) is kind
    assert KEY not in repr(error) + str(error.__cause__) + str(error.__context__)
    assert "other-secret" not in str(error)
    if status == 401:
        assert str(error).endswith("/v1 answers HTTP 401: it refuses the key in MY_KEY: check it")


@pytest.mark.parametrize(
    "answer",
    [
        refusing(404, 'model "m" not found, try pulling it first'),
        refusing(400, "The model `m` does not exist"),
        refusing(400, "no", "model_not_found"),
    ],
)
def test_a_model_that_the_endpoint_does_not_know_is_named(made: Callable[..., HttpModel], answer: Answer) -> None:
    error = failing(made, answer)
    assert isinstance(error, ModelMisconfigured)
    assert "check" in str(error)
    assert "the name of the model, 'm'" in str(error)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": "out of\nmemory"}, "out of memory"),
        ({"message": "out of memory"}, "out of memory"),
        ({"detail": [{"msg": "out of memory"}]}, "[{'msg': 'out of memory'}]"),
        (["out of memory"], '["out of memory"]'),
        (b"<h1>out of memory</h1>", "<h1>out of memory</h1>"),
        (b"", ""),
    ],
)
def test_what_a_server_says_is_repeated_on_one_line(made: Callable[..., HttpModel], body: Any, said: str) -> None:
    assert str(failing(made, Answer(500, body))).endswith(f"/v1 answers HTTP 500{': ' + said if said else ''}")


def test_an_answer_that_can_t_be_unpacked_is_unavailable(made: Callable[..., HttpModel]) -> None:
    error = failing(made, Answer(body=b"no gzip", headers={"Content-Encoding": "gzip"}))
    assert type(error) is ModelUnavailable
    assert "DecodingError" in str(error)


def test_an_account_that_is_empty_is_not_a_matter_of_patience(made: Callable[..., HttpModel]) -> None:
    assert isinstance(failing(made, refusing(429, "Sorry", "insufficient_quota")), ModelMisconfigured)


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("Fri, 01 Jan 2100 00:00:00 GMT", 3600), ("x", None)])
def test_retry_after_is_honoured_by_all_who_share_the_limiter(
    made: Callable[..., HttpModel], header: str, seconds: float | None
) -> None:
    with embedding_server(lambda _: refusing(429, "slow down", retry_after=header)) as server:
        model = made(server)
        with pytest.raises(RateLimited, match="HTTP 429: slow down") as caught:
            model.embed("a")
        assert caught.value.seconds == seconds
        assert held(model).held == [1.0 if seconds is None else seconds]


GARBAGE = [
    Answer(body=b"<html>nothing here</html>"),
    Answer(body=b"\xff\xfe"),
    Answer(body={"data": "none"}),
    Answer(body={"data": [{"embedding": "!!"}, {"embedding": "!!"}]}),
    Answer(body={"data": [{"embedding": "AAA="}, {"embedding": "AAA="}]}),
    Answer(body={"data": [{"embedding": [1], "index": "x"}, {"embedding": [1]}]}),
    Answer(body={"data": [{"embedding": []}, {"embedding": []}]}),
]


@pytest.mark.parametrize("answer", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_to_every_text_is_nobody_s_fault_but_the_set_up_s(
    made: Callable[..., HttpModel], answer: Answer
) -> None:
    error = failing(made, answer)
    assert isinstance(error, ModelMisconfigured)
    assert "so it is with any text" in str(error)


@pytest.mark.parametrize("bad", [GARBAGE[0], refusing(403, "blocked"), refusing(400, "too long")], ids=range(3))
def test_a_reply_that_only_some_text_gets_is_that_text_s_fault(made: Callable[..., HttpModel], bad: Answer) -> None:
    with embedding_server(lambda call: bad if "bad" in call.texts else well(call)) as server:
        model = made(server, encoding="base64")
        for texts in (["a", "bad"], ["bad"]):
            with pytest.raises(ContentRefused):
                embed_checked(model, texts)
        assert server.texts.count("embedq") == (1 if bad.status == 400 else 2), "a plain text is the judge"


def test_a_text_without_an_encoding_is_refused_before_it_is_sent(
    server: EmbeddingServer, made: Callable[..., HttpModel]
) -> None:
    with pytest.raises(ContentRefused, match="lone surrogate"):
        embed_checked(made(server), ["a", "\ud800"])
    assert server.texts == []


def test_a_text_that_was_too_long_is_told_how_long_it_was(made: Callable[..., HttpModel]) -> None:
    def behave(call: Call) -> Answer:
        return refusing(400, "context length exceeded") if len(call.texts[0]) > 99 else well(call)

    with embedding_server(behave) as server, pytest.raises(ContentRefused) as caught:
        embed_checked(made(server, max_input_tokens=20), ["x" * 400])
    said = "HTTP 400: context length exceeded (about 101 tokens; the model takes 20: set truncate = true"
    assert said in str(caught.value)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_or_too_many_vectors_are_never_attributed(made: Callable[..., HttpModel], count: int) -> None:
    data = [{"embedding": [1.0], "index": index} for index in range(count)]
    assert isinstance(failing(made, Answer(body={"data": data})), WrongVectorCount)
    twice = Answer(body={"data": [{"embedding": [1.0], "index": 1}] * 2})
    assert isinstance(failing(made, twice), WrongVectorCount)


def test_nan_and_null_cost_their_own_row_only(made: Callable[..., HttpModel]) -> None:
    body = b'{"data": [{"embedding": [1, 2]}, {"embedding": [NaN, 1]}, {"embedding": [null, 1]}, {"embedding": null}]}'
    with embedding_server(lambda _: Answer(body=body)) as server:
        rows = embed_checked(made(server), ["a", "b", "c", "d"])
    assert sorted(rows.faults) == [1, 2, 3]
    assert rows.matrix[0].tolist() == [1, 2]


@pytest.mark.parametrize("configured", [8, None])
def test_another_dimension_than_before_or_than_was_asked_for_is_said(
    made: Callable[..., HttpModel], configured: int | None
) -> None:
    widths = iter([8, 9])
    options = {} if configured is None else {"dimensions": configured}
    with embedding_server(lambda call: well(call, next(widths))) as server:
        model = made(server, **options)
        model.embed("a")
        with pytest.raises(ModelMisconfigured, match="returns vectors of 9 dimensions, not of 8 as"):
            model.embed("b")


def test_a_server_that_hangs_is_not_waited_for_for_ever_nor_one_that_never_ends(
    made: Callable[..., HttpModel],
) -> None:
    with embedding_server() as server:

        def hang(_: Call) -> Answer:
            server.released.wait(BOUND_SECONDS)
            return Answer()

        server.behave = hang
        with pytest.raises(ModelUnavailable, match="no whole answer in time"):
            made(server, timeout_seconds=0.05).embed("a")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        trickling = threading.Thread(target=_trickle, args=(listening,))
        trickling.start()
        with pytest.raises(ModelUnavailable, match="no whole answer in time"):
            made(base_url=url, timeout_seconds=0.1).embed("a")
        trickling.join(BOUND_SECONDS)


def _trickle(listening: socket.socket) -> None:
    """Send a byte at a time, until nobody listens."""
    connection, _ = listening.accept()
    with connection:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        try:
            for _ in range(1000):
                connection.sendall(b" ")
                time.sleep(0.005)  # slower than the limit, each byte faster
        except OSError:
            return


def test_an_endpoint_that_is_down_or_goes_away_is_unavailable(made: Callable[..., HttpModel]) -> None:
    with embedding_server(lambda _: Answer(body=b"{", whole=False)) as server:
        model = made(server)
        with pytest.raises(ModelUnavailable, match="the connection was lost"):
            model.embed("a")
    with pytest.raises(ModelUnavailable, match=r"http://127.0.0.1:\d+/v1 can't be reached: .*refused"):
        model.embed("a")


def test_a_certificate_is_checked_and_its_authority_can_be_named(
    made: Callable[..., HttpModel], tmp_path: Path
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    with embedding_server(context=context) as server:
        with pytest.raises(ModelMisconfigured, match=r"certificate is not trusted .*: name its authority in ca_file"):
            made(server).embed("a")
        assert made(server, ca_file=str(file)).embed("a") == vector_of("a")
        (tmp_path / "none.pem").write_text("none")
        for name, problem in (("none.pem", "no certificate"), ("missing.pem", "No such file")):
            with pytest.raises(ModelMisconfigured, match=problem):
                made(server, ca_file=str(tmp_path / name)).embed("a")


def test_a_key_that_is_missing_or_none_is_said_before_anything_is_sent(
    server: EmbeddingServer, made: Callable[..., HttpModel], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ModelMisconfigured, match="set the environment variable OPENAI_API_KEY"):
        made(server, kind="openai").embed("a")
    monkeypatch.setenv("MY_KEY", "clé secrète")
    with pytest.raises(ModelMisconfigured, match="the key in MY_KEY is no key") as caught:
        made(server, key_env="MY_KEY").embed("a")
    assert "secr" not in str(caught.value)
    with pytest.raises(ModelMisconfigured, match=r"the key in .*missing can't be read: No such file"):
        made(server, key_file=str(tmp_path / "missing")).embed("a")
    (tmp_path / "bad").write_bytes(b"\xff")
    with pytest.raises(ModelMisconfigured, match="is no key"):
        made(server, key_file=str(tmp_path / "bad")).embed("a")
    assert server.calls == []


def test_without_httpx_it_says_what_to_install(
    server: EmbeddingServer, made: Callable[..., HttpModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, "embedq_plugins.http.client", raising=False)
    with pytest.raises(ModelMisconfigured, match=r"pip install 'embedq\[http\]'"):
        made(server).embed("a")


def test_no_key_is_in_the_log_even_of_the_library(
    server: EmbeddingServer,
    made: Callable[..., HttpModel],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    model = made(server, key_env="MY_KEY")
    with caplog.at_level(logging.DEBUG):
        model.embed("a")
    assert KEY not in caplog.text
    assert KEY not in repr(model)


# --- several endpoints


def test_several_endpoints_share_the_load_and_one_that_fails_is_left_out(made: Callable[..., HttpModel]) -> None:
    with embedding_server() as one, embedding_server() as other:
        model = made(one, other)
        embed_all(model, [str(number) for number in range(10)], 1)
        assert (len(one.calls), len(other.calls)) == (5, 5)
        one.behave = lambda _: refusing(503)
        embed_all(model, [str(number) for number in range(10)], 1)
        assert (len(one.calls), len(other.calls)) == (6, 15)
        assert len(held(model).tokens) == 21, "each request is one, wherever it goes"
        one.kill()
        other.kill()
        with pytest.raises(ModelUnavailable, match="can't be reached"):
            model.embed("a")
        one.start()
        one.behave = well
        assert model.embed("a") == vector_of("a"), "where all are out, one is tried nevertheless"


def test_an_endpoint_that_is_busy_is_left_alone_while_the_others_are_not(made: Callable[..., HttpModel]) -> None:
    with embedding_server(lambda _: refusing(429, retry_after="60")) as busy, embedding_server() as idle:
        model = made(busy, idle)
        embed_all(model, ["a", "b", "c", "d"], 1)
        assert (len(busy.calls), len(idle.calls)) == (1, 4)
        assert held(model).held == []


def test_one_endpoint_with_another_model_is_not_mixed_in(made: Callable[..., HttpModel]) -> None:
    with embedding_server() as right, embedding_server(lambda call: well(call, 9)) as wrong:
        model = made(right, wrong)
        assert embed_all(model, ["a", "b", "c"], 1).matrix.tolist() == vectors("a", "b", "c")
        assert len(wrong.calls) == 1


# --- names and settings


def test_openai_s_models_are_made_by_name_and_others_need_an_address() -> None:
    from embedq_plugins import http

    registry = Registry({"http": http})
    model = registry.get_embedding_model("openai:text-embedding-3-small")
    assert (model.dimension, model.batch_size, model.batch_tokens) == (1536, 256, 100_000)
    with pytest.raises(SettingsError, match="http:x has no address: describe it in the settings file"):
        registry.get_embedding_model("http:x")
    table = {"model": "x", "batch_size": 4}
    with pytest.raises(SettingsError, match=r'^has no address: set base_url = "http'):
        http.HttpKind().make("bge", table)
    with pytest.raises(SettingsError, match="there is no option 'base_urls'"):
        http.HttpKind().make("bge", table | {"base_urls": "http://localhost/v1"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": KEY}, "a key does not belong into the settings file"),
        ({"api_key": KEY}, "a key does not belong into the settings file"),
        ({"headers": {"authorization": KEY}}, "headers must not hold authorization"),
        ({"headers": {"X-A": "é"}}, "headers must be printable ASCII"),
        ({"base_url": f"https://user:{KEY}@host/v1"}, "must not hold a user name or password"),
        ({"base_url": "localhost:8080"}, "base_url must be an address such as"),
        ({"base_url": "http://host:99999/v1"}, "base_url must be an address such as"),
        ({"base_url": []}, "base_url must not be empty"),
        ({"truncate": True}, "truncate needs max_input_tokens"),
        ({"batch_size": 0}, "Expected `int` >= 1"),
        ({"requests_per_minute": 0}, "Expected `float` > 0"),
        ({"encoding": "hex"}, "Invalid enum value 'hex'"),
    ],
)
def test_options_that_make_no_sense_are_refused_without_a_key_in_the_message(
    options: dict[str, Any], message: str
) -> None:
    from embedq_plugins.http import HttpKind

    with pytest.raises(SettingsError) as caught:
        HttpKind().make("m", {"model": "m", "base_url": "http://host/v1", **options})
    assert message in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("base_url", "address"),
    [
        ("http://h/v1", "http://h/v1/embeddings"),
        ("http://h/v1/", "http://h/v1/embeddings"),
        ("http://h/v1/embeddings", "http://h/v1/embeddings"),
        ("http://h/d?api-version=1", "http://h/d/embeddings?api-version=1"),
    ],
)
def test_addresses_are_those_of_the_api_or_of_the_endpoint(base_url: str, address: str) -> None:
    from embedq_plugins.http.options import HttpOptions, shown_address

    assert HttpOptions(model="m", base_url=base_url).addresses == [address]
    assert shown_address(address) == base_url.rstrip("/").removesuffix("/embeddings").partition("?")[0]
