"""How often a model may be called: limits, the arithmetic of keeping them, and who keeps them.

Calls are spread evenly and not let through in bursts, so that in no minute, wherever it begins, more calls start than
the limit. (Of tokens, no more than the limit and what one call holds.) A call is *booked*: it is told how long to wait,
and the next one is given the time after it. When a server asks for patience, all bookings are off: whoever wakes up
asks again. This is the generic cell rate algorithm (ITU-T I.371) without a tolerance.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol, runtime_checkable

# A server that asks for more is asked again after this time.
LONGEST_HOLD_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model allows in a minute; None for no limit."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def seconds(self, tokens: float) -> float:
        """How long a call with so many tokens keeps the next one waiting."""
        requests = 60 / self.requests_per_minute if self.requests_per_minute else 0.0
        return max(requests, 60 * tokens / self.tokens_per_minute if self.tokens_per_minute else 0.0)


class Limiter(Protocol):
    """Keeps a model's limits. Its methods are called in the threads that call the model."""

    def wait(self, tokens: int) -> None:
        """Return when a call with about so many tokens may begin. Raises ModelUnavailable when nobody waits for
        it any more.
        """

    def correct(self, estimated: int, actual: int) -> None:
        """Say that a call that was let through as one of `estimated` tokens had `actual`."""

    def hold(self, seconds: float) -> None:
        """Let nobody begin for so long: the server has asked for it."""


@runtime_checkable
class Limited(Protocol):
    """A model that keeps to limits. Whoever shares it between processes gives it another limiter."""

    limits: Limits
    limiter: Limiter


class Booking(NamedTuple):
    """How long to wait, in seconds, and the generation of the booking: ask again with it after the wait."""

    wait: float
    generation: int


@dataclass(frozen=True, slots=True)
class Pace:
    """Where a limiter stands. Times are seconds of any one clock."""

    free: float = 0.0
    """When the next call may begin."""
    held: float = 0.0
    """Until when nobody may."""
    generation: int = 0
    """How often all bookings were called off."""

    def book(self, seconds: float, generation: int | None, now: float) -> tuple["Pace", Booking]:
        """Let a call begin that keeps the next one waiting for `seconds`; `generation` is that of its booking.

        A booking of the present generation is good. Any other, or none, is made anew.
        """
        if generation == self.generation:
            return self, Booking(0.0, generation)
        begin = max(now, self.free, self.held)
        return Pace(begin + seconds, self.held, self.generation), Booking(begin - now, self.generation)

    def shifted(self, seconds: float) -> "Pace":
        """After a call turned out to weigh more, or less, than was thought."""
        return Pace(self.free + seconds, self.held, self.generation)

    def hold(self, seconds: float, now: float) -> "Pace":
        """After a server has asked to be left alone for `seconds`."""
        held = max(self.held, now + min(max(seconds, 0.0), LONGEST_HOLD_SECONDS))
        return Pace(held, held, self.generation + 1)


def retry_after(value: object, now: datetime | None = None) -> float | None:
    """The seconds that a Retry-After header asks for: a number, or a date of HTTP; an hour at most.
    None for anything else.
    """
    if value is None:
        return None
    text = str(value).strip()
    try:
        seconds = float(text)
    except ValueError:
        # Only a server that is in trouble needs this.
        from email.utils import parsedate_to_datetime

        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (aware - (now or datetime.now(UTC))).total_seconds()
    return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_HOLD_SECONDS)
