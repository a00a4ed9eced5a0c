"""What to do when a call of the model fails: a decision, returned and not performed."""

import random
import socket
from dataclasses import dataclass
from typing import Final, TypeAlias

from embedq_core.errors import ModelMisconfigured, ModelUnavailable, RateLimited, UnknownModel
from embedq_core.limits import retry_after

# Attempts at a batch in place, before its chunks go back to the queue for a while.
PATIENCE: Final = 5
FIRST_DELAY_SECONDS: Final = 0.5
LONGEST_DELAY_SECONDS: Final = 30.0

# A model that somebody has to mend is looked at again after this time.
MEND_SECONDS: Final = 30.0

# Status codes of HTTP that ask for patience: too early, too many requests, timeouts, trouble on the server.
_PATIENT_STATUS: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The same batch, whole, after a delay: nothing is wrong with its items."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Patience is at its end: the chunks go back to the queue and come again after a delay."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Bisect:
    """Some item may be at fault: try the halves apart."""


@dataclass(frozen=True, slots=True)
class Bury:
    """It is this item, or all items alike: dead letters."""


Decision: TypeAlias = TryAgain | GiveBack | Bisect | Bury


def after_failure(error: BaseException, size: int, attempt: int, *, jitter: float | None = None) -> Decision:
    """Decide what follows when a batch of `size` items failed with `error` at its `attempt`-th try (from 1).

    `jitter` in [0, 1) spreads delays, so that workers don't come back all at once. A server that is called too often
    is no reason to lose patience; a model that somebody has to mend is not tried again in place.
    """
    if isinstance(error, ModelMisconfigured):
        return GiveBack(MEND_SECONDS)
    if is_transient(error):
        delay = _delay(error, attempt, random.random() if jitter is None else jitter)  # noqa: S311 - no secret
        return TryAgain(delay) if attempt < PATIENCE or isinstance(error, RateLimited) else GiveBack(delay)
    if size > 1 and not concerns_all(error):
        return Bisect()
    return Bury()


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later: a lost connection, a timeout, or a status that says so."""
    if isinstance(error, ModelUnavailable | ConnectionError | TimeoutError | socket.gaierror):
        return True
    status = _status(error)
    if status is not None:
        return status in _PATIENT_STATUS
    # urllib wraps what went wrong.
    reason = getattr(error, "reason", None)
    if isinstance(reason, OSError):
        return is_transient(reason)
    # Clients of HTTP services have classes of their own, which can't be imported here.
    name = type(error).__name__
    return name.endswith(("Timeout", "TimeoutError", "ConnectError", "ConnectionError", "RateLimitError"))


def is_rate_limit(error: BaseException) -> bool:
    """Whether a call was refused since there were too many."""
    return isinstance(error, RateLimited) or _status(error) == 429 or type(error).__name__.endswith("RateLimitError")


def concerns_all(error: BaseException) -> bool:
    """Whether the error can't be the fault of an item: the model is unknown or can't be loaded."""
    return isinstance(error, ImportError | UnknownModel | ModelUnavailable | NotImplementedError)


def _status(error: BaseException) -> int | None:
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    return None


def _delay(error: BaseException, attempt: int, jitter: float) -> float:
    asked = _retry_after(error)
    if isinstance(error, RateLimited) and error.seconds is not None:
        # It is not in trouble, and knows best: later attempts need not wait longer.
        attempt = 1
    backoff = min(FIRST_DELAY_SECONDS * 2 ** (attempt - 1), LONGEST_DELAY_SECONDS)
    return float(max(asked, backoff * (0.5 + jitter / 2)))


def _retry_after(error: BaseException) -> float:
    """Seconds that the server asked to wait, if it did."""
    if isinstance(error, ModelUnavailable):
        # Plugins may say what they like, infinity too.
        return retry_after(error.seconds) or 0.0
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return retry_after(headers.get("retry-after") or headers.get("Retry-After")) or 0.0
    except (TypeError, AttributeError):
        return 0.0
