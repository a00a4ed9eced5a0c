from datetime import UTC, datetime

import pytest

from embedq_core.limits import Limits, retry_after

NOW = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        (Limits(), 0),
        (Limits(requests_per_minute=120), 0.5),
        (Limits(tokens_per_minute=6000), 10),
        (Limits(120, 6000), 10),
        (Limits(3, 6000), 20),
    ],
)
def test_the_scarcer_of_requests_and_tokens_sets_the_pace(limits: Limits, seconds: float) -> None:
    assert limits.seconds(1000) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 2.5 ", 2.5),
        (3, 3),
        ("-5", 0),
        ("inf", 3600),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30),
        ("Wed, 21 Oct 2026 07:28:30 -0000", 30),
        ("Wed, 21 Oct 2026 07:00:00 GMT", 0),
        ("soon", None),
        ("nan", None),
        ("", None),
        (None, None),
    ],
)
def test_a_server_says_how_long_to_wait_in_seconds_or_as_a_date(value: object, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds
