"""What follows when a call of the model fails: a table."""

import math
import socket
from urllib.error import HTTPError, URLError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_core.errors import (
    ContentRefused,
    MissingKey,
    MissingLibrary,
    ModelMisconfigured,
    ModelUnavailable,
    RateLimited,
    UnknownModel,
    UnsupportedContent,
    WrongVectorCount,
)
from embedq_worker.failures import (
    LONGEST_DELAY_SECONDS,
    MEND_SECONDS,
    PATIENCE,
    Bisect,
    Bury,
    GiveBack,
    TryAgain,
    after_failure,
    concerns_all,
    is_rate_limit,
    is_transient,
)


@pytest.mark.parametrize("kind", [ModelUnavailable, RateLimited])
@pytest.mark.parametrize(
    ("asked", "least", "most"), [(7, 7, 7), (1e12, 3600, 3600), (math.inf, 3600, 3600), (math.nan, 0, 1), (-5, 0, 1)]
)
def test_a_model_is_left_alone_for_as_long_as_it_asks_but_an_hour_at_most(
    kind: type[ModelUnavailable], asked: float, least: float, most: float
) -> None:
    decision = after_failure(kind("busy", asked), 10, 1, jitter=0.5)
    assert isinstance(decision, TryAgain)
    assert least <= decision.seconds <= most


class Response:
    def __init__(self, status_code: int, headers: object = None) -> None:
        self.status_code = status_code
        self.headers = headers


class HttpError(Exception):
    """As httpx and requests have it: the status is in the response."""

    def __init__(self, status_code: int, headers: object = None) -> None:
        super().__init__(f"HTTP {status_code}")
        self.response = Response(status_code, headers)


class ApiStatusError(Exception):
    """As the clients of paid services have it: the status is on the error."""

    def __init__(self, status_code: object) -> None:
        self.status_code = status_code


class RateLimitError(Exception):
    """Known by its name alone."""


class ReadTimeout(Exception):  # noqa: N818
    """Known by its name alone."""


class APIConnectionError(Exception):
    """Known by its name alone."""


TRANSIENT = [
    ConnectionRefusedError("no"),
    ConnectionResetError(),
    BrokenPipeError(),
    TimeoutError(),
    socket.gaierror(-3, "no name server"),
    URLError(ConnectionRefusedError("no")),
    URLError(socket.gaierror(-2, "unknown name")),
    HttpError(429),
    HttpError(503),
    HttpError(529),
    ApiStatusError(408),
    ApiStatusError(500),
    HTTPError("http://x", 502, "bad gateway", None, None),  # type: ignore[arg-type]  # no headers
    RateLimitError(),
    ReadTimeout(),
    APIConnectionError(),
    ModelUnavailable("gone"),
]
PERMANENT = [
    ValueError("too long"),
    RuntimeError("out of memory"),
    MemoryError(),
    HttpError(400),
    HttpError(401),
    HttpError(413),
    ApiStatusError(404),
    ApiStatusError("429"),
    ApiStatusError(True),
    URLError("unknown url type"),
    FileNotFoundError("weights"),
    WrongVectorCount("two for one"),
    UnsupportedContent("bytes"),
    ContentRefused("too long"),
    SystemExit(1),
    StopIteration(),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_trouble_on_the_way_to_the_model_keeps_the_batch_whole(error: BaseException) -> None:
    assert is_transient(error)
    assert isinstance(after_failure(error, 32, 1), TryAgain)
    assert isinstance(after_failure(error, 1, 1), TryAgain)


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_patience_ends_and_the_chunks_go_back(error: BaseException) -> None:
    decisions = [type(after_failure(error, 32, attempt)) for attempt in range(1, PATIENCE + 2)]
    assert decisions == [TryAgain] * (PATIENCE - 1) + [GiveBack] * 2


@pytest.mark.parametrize("error", PERMANENT, ids=repr)
def test_any_other_error_may_be_the_fault_of_one_item(error: BaseException) -> None:
    assert not is_transient(error)
    assert after_failure(error, 2, 1) == Bisect()


@pytest.mark.parametrize("error", PERMANENT, ids=repr)
def test_a_single_item_that_fails_is_buried(error: BaseException) -> None:
    assert after_failure(error, 1, 1) == Bury()


@pytest.mark.parametrize("error", [ImportError("torch"), ModuleNotFoundError("torch"), NotImplementedError()], ids=repr)
def test_an_error_that_is_no_item_s_fault_is_not_looked_for_among_them(error: Exception) -> None:
    assert concerns_all(error)
    assert after_failure(error, 1000, 1) == Bury()


def test_an_unknown_model_concerns_all() -> None:
    assert after_failure(UnknownModel("x"), 10, 1) == Bury()


def test_a_server_that_is_called_too_often_is_no_reason_to_lose_patience() -> None:
    decisions = {after_failure(RateLimited("slow", 7.0), 32, attempt, jitter=0.0) for attempt in (1, 4, 100)}
    assert decisions == {TryAgain(7.0)}
    assert after_failure(RateLimited("slow"), 32, 100, jitter=0.0) == TryAgain(LONGEST_DELAY_SECONDS / 2)
    assert after_failure(RateLimited("slow", 0.0), 32, 100, jitter=0.0) == TryAgain(0.25)


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("error", [ModelMisconfigured, MissingKey, MissingLibrary])
def test_a_model_that_somebody_has_to_mend_buries_nothing_and_is_not_tried_again_in_place(
    size: int, error: type[ModelMisconfigured]
) -> None:
    assert after_failure(error("a wrong key"), size, 1) == GiveBack(MEND_SECONDS)


def test_a_model_may_say_itself_when_to_come_again() -> None:
    assert after_failure(ModelUnavailable("busy", 9.0), 1, 1, jitter=0.0) == TryAgain(9.0)


@pytest.mark.parametrize(
    ("headers", "at_least"),
    [
        ({"retry-after": "7"}, 7),
        ({"Retry-After": "120"}, 120),
        ({"retry-after": 3.5}, 3.5),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}, 3600),
        ({"retry-after": "-5"}, 0),
        ({}, 0),
        (None, 0),
        ("no mapping", 0),
    ],
)
def test_the_delay_that_a_server_asks_for_is_honoured(headers: object, at_least: float) -> None:
    decision = after_failure(HttpError(429, headers), 8, 1, jitter=0.0)
    assert decision == TryAgain(max(at_least, 0.25))


def test_delays_double_up_to_a_limit() -> None:
    delays = [
        decision.seconds
        for decision in (after_failure(TimeoutError(), 1, n, jitter=0.999999) for n in range(1, 12))
        if isinstance(decision, TryAgain | GiveBack)
    ]
    assert [round(delay, 3) for delay in delays[:5]] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert max(delays) <= LONGEST_DELAY_SECONDS


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 1000))
def test_jitter_spreads_a_delay_over_its_upper_half(jitter: float, attempt: int) -> None:
    whole = min(0.5 * 2 ** (attempt - 1), LONGEST_DELAY_SECONDS)
    decision = after_failure(ConnectionError(), 5, attempt, jitter=jitter)
    assert isinstance(decision, TryAgain | GiveBack)
    assert whole / 2 <= decision.seconds <= whole


@pytest.mark.parametrize(
    ("error", "too_many"),
    [
        (RateLimited("slowly"), True),
        (HttpError(429), True),
        (ApiStatusError(429), True),
        (RateLimitError(), True),
        (ModelUnavailable("away"), False),
        (HttpError(503), False),
        (ValueError("429"), False),
    ],
)
def test_a_refusal_of_too_many_calls_is_known_however_it_comes(error: Exception, *, too_many: bool) -> None:
    assert is_rate_limit(error) is too_many
