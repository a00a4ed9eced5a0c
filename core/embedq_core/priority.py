"""How urgent a run is."""

from enum import StrEnum


class Priority(StrEnum):
    """Which runs go first. High ones go ahead of what is queued already, which still gets its share."""

    HIGH = "high"
    NORMAL = "normal"
