"""Redis's errors in our words."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import unquote, urlsplit

import redis.exceptions

from embedq_core.errors import QueueError, RedisFull, RedisUnreachable
from embedq_jobs.sentinel import SCHEME, parse_sentinel_url

_DISK_IS_FULL: Final = "MISCONF"
_REFUSED: Final = "Redis at {where} refuses the user name or password: check EMBEDQ_REDIS_URL"


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise errors of the Redis at `where` (as `shown_url` gives it) as ours, saying what to do."""
    try:
        yield
    except redis.exceptions.AuthenticationError as error:
        raise QueueError(_REFUSED.format(where=where)) from error
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        # Over a Unix socket redis-py makes a lost connection of a refused password.
        if "invalid username-password pair" in str(error):
            raise QueueError(_REFUSED.format(where=where)) from error
        raise RedisUnreachable(
            f"Redis at {where} can't be reached ({_reason(error)}): start it, or check EMBEDQ_REDIS_URL"
        ) from error
    except redis.exceptions.RedisError as error:
        # From a script the same error comes as another class.
        if isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM command not allowed" in str(error):
            message = f"Redis at {where} is out of memory: raise its maxmemory, or let workers catch up"
            raise RedisFull(message) from error
        if disk_is_full(error):
            raise RedisFull(
                f"Redis at {where} can't write to its disk and takes nothing: free some space, or see its log "
                f"({_from_there_on(error)})"
            ) from error
        raise QueueError(f"Redis at {where} answered: {error}") from error


def disk_is_full(error: redis.exceptions.RedisError) -> bool:
    """Whether a Redis refuses what would change something, since it can't write to its disk."""
    return _DISK_IS_FULL in str(error)


def _from_there_on(error: redis.exceptions.RedisError) -> str:
    """What Redis says of it, without the command that redis-py puts before."""
    return str(error)[str(error).index(_DISK_IS_FULL) :]


def _reason(error: Exception) -> str:
    # redis-py repeats host and port, or the socket, which stand in the message already.
    text = re.sub(r"^Error -?\d+ connecting to .*?\. ", "", " ".join(str(error).split()))
    return text.rstrip(".").split(": ")[-1].lower() if text else type(error).__name__


def shown_url(url: str) -> str:
    """`url` without user name, password and query: fit for messages and logs. Raises ValueError for no URL."""
    parts = urlsplit(url)
    if parts.scheme == SCHEME:
        return parse_sentinel_url(url).shown()
    if parts.scheme == "unix":
        return unquote(parts.path)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.hostname or 'localhost'}{port}"
