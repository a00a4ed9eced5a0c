"""What redis-py says, in our words: one line, in which nothing stands twice."""

import pytest
import redis.exceptions

from embedq_core.errors import QueueError, RedisFull, RedisUnreachable
from embedq_jobs.errors import translated


def said(error: Exception, kind: type[QueueError]) -> str:
    with pytest.raises(QueueError) as caught, translated("here"):
        raise error
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Error 111 connecting to /run/my.redis/r.sock. Connection refused.", "connection refused"),
        (
            "Error 1 connecting to here:1. [SSL: X] failed: Hostname mismatch. (_ssl.c:1).",
            "hostname mismatch. (_ssl.c:1)",
        ),
        ("Error 2 connecting to /run/r.sock. No such file or directory.", "no such file or directory"),
        ("Error -2 connecting to redis.example.org:1. Name or service not known.", "name or service not known"),
        (
            "Error 111 connecting to here:1. Connect call failed ('127.0.0.1', 1).",
            "connect call failed ('127.0.0.1', 1)",
        ),
        ("Error while reading from here:1 : (104, 'Connection reset by peer')", "(104, 'connection reset by peer')"),
        ("", "ConnectionError"),
    ],
)
def test_a_redis_that_can_not_be_reached_is_named_once(text: str, reason: str) -> None:
    told = said(redis.exceptions.ConnectionError(text), RedisUnreachable)
    assert told == f"Redis at here can't be reached ({reason}): start it, or check EMBEDQ_REDIS_URL"


@pytest.mark.parametrize("before", ["", "Command # 1 (HSET a:very:long key) of pipeline caused error: "])
def test_one_whose_disk_is_full_has_no_room_and_says_why(before: str) -> None:
    why = "MISCONF Errors writing to the AOF file: No space left on device"
    told = said(redis.exceptions.ResponseError(f"{before}{why}"), RedisFull)
    assert told == f"Redis at here can't write to its disk and takes nothing: free some space, or see its log ({why})"
