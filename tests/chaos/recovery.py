"""How long the chunks of killed workers wait for their next holder. Looks and times come in, nothing is asked."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

# Clocks and looks are no finer than this.
_SLACK_SECONDS: Final = 0.3


@dataclass(slots=True)
class _Orphan:
    killed: float
    until: float


class Recovery:
    """Watches the leases of jobs that were in hand when a worker was killed.

    Who held which lease is not known: so all are watched, until each is renewed or given back, which only the
    living do, or runs out. Of those that ran out, the time from the kill to the next holder, or to the end of
    the job, is the recovery. Where another worker was killed a little later it is counted from the first: too
    long rather than too short.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.taken_over = 0
        self._orphans: dict[str, _Orphan] = {}

    @property
    def waiting(self) -> float | None:
        """When the first of those was killed that still wait for a holder; None where none does."""
        return min((orphan.killed for orphan in self._orphans.values()), default=None)

    def killed(self, now: float, leases: Mapping[str, float]) -> None:
        """A worker was killed; `leases` are the jobs in hand right after, and how long each lease still is."""
        for job, left in leases.items():
            self._orphans.setdefault(job, _Orphan(now, now + left))

    def look(self, now: float, leases: Mapping[str, float], queued: Collection[str]) -> None:
        """What there is to see at a later moment: jobs in hand, and all that are not done."""
        for job, orphan in list(self._orphans.items()):
            ran_out = now >= orphan.until - _SLACK_SECONDS
            has_holder = job in leases and now + leases[job] > orphan.until + _SLACK_SECONDS
            given_back = job not in leases and not ran_out
            if job in queued and not has_holder and not given_back:
                continue
            del self._orphans[job]
            if ran_out:
                self.taken_over += 1
                self.longest = max(self.longest, now - orphan.killed)
