"""How fast items were done of late: what was counted in spans of ten seconds, and the speeds that follow from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Items done are counted in spans of this length, kept for a while.
RATE_SECONDS: Final = 10
RATE_KEEP_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class Rates:
    """Items done in each of the latest spans of `RATE_SECONDS`, the oldest first; the running one is left out."""

    items: Sequence[int]

    def per_second(self, over_seconds: int) -> float:
        """Items done a second over the last `over_seconds`; 0 where there were none.

        Quiet time before the first of them says nothing about the speed, and does not count.
        """
        counted = list(self.items[-max(over_seconds // RATE_SECONDS, 1) :])
        first = next((place for place, count in enumerate(counted) if count), len(counted))
        spans = len(counted) - first
        return sum(counted) / (spans * RATE_SECONDS) if spans else 0.0
