"""A clock that tests move, for what goes by the time of day.

    clock = MovedClock("2026-03-28 02:59", "Europe/Berlin")
    async with worker(settings, ServiceOptions(schedules=True, clock=clock)):
        clock.move_to("2026-03-28 03:00:05")

A worker looks at its clock ten times a second, and at its schedules in each new minute of it. A schedule that is added
through the store is due when the test says: `support.clocks.due`. The command line goes by the real clock: what
`embedq schedule add` makes is due soon after now, so a clock for it begins there: `MovedClock.at(time.time())`.
A time that is found up to two minutes late counts as seen when it came, a later one as missed.
"""

from datetime import datetime
from zoneinfo import ZoneInfo


class MovedClock:
    """Stands still, at seconds since the epoch, but for when it is moved."""

    def __init__(self, moment: str, timezone: str = "UTC") -> None:
        self.timezone = timezone
        self.now = due(moment, timezone)

    @classmethod
    def at(cls, seconds: float) -> "MovedClock":
        """One that shows this time."""
        clock = cls("2026-01-01")
        clock.now = seconds
        return clock

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        """On, or with a negative number back."""
        self.now += seconds

    def move_to(self, moment: str) -> None:
        """To a moment by the clocks of its time zone."""
        self.now = due(moment, self.timezone)


def due(moment: str, timezone: str = "UTC") -> float:
    """A moment by the clocks of a time zone, '2026-03-28 03:00', in seconds since the epoch."""
    return datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(timezone)).timestamp()
