"""How urgent a run is."""

from enum import StrEnum
from typing import Final

# Of whatever is bounded, the queue or what a worker has in hand, this part is left to each priority when the other has
# taken all.
SHARE: Final = 1 / 4


class Priority(StrEnum):
    """Which runs go first. High ones go ahead of what is queued already, which still gets its share."""

    HIGH = "high"
    NORMAL = "normal"
