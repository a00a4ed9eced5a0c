"""What became of items, counted."""

from collections.abc import Iterable

import msgspec


class Counts(msgspec.Struct, frozen=True, omit_defaults=True):
    """How many items ended which way, and what that cost.

    `embedded`, `reused`, `unchanged` and `failed` add up to all items that are done. `updated` says how many
    of the unchanged had their metadata or stored content brought up to date. `calls` counts calls of the
    model, `inputs` the values it was given: equal texts are given once. `removed` counts entries, not items:
    what was left over from earlier versions of documents in parts. `cancelled` items were taken out of the queue
    before anything was done with them.
    """

    embedded: int = 0
    reused: int = 0
    unchanged: int = 0
    failed: int = 0
    updated: int = 0
    calls: int = 0
    inputs: int = 0
    removed: int = 0
    cancelled: int = 0

    @property
    def done(self) -> int:
        """Items that are stored or dead."""
        return self.embedded + self.reused + self.unchanged + self.failed

    @property
    def ended(self) -> int:
        """Items to which nothing more will happen: stored, dead or cancelled."""
        return self.done + self.cancelled

    def nonzero(self) -> dict[str, int]:
        """Those that are not 0, by name."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value}

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__struct_fields__))

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, name) - getattr(other, name) for name in self.__struct_fields__))

    @classmethod
    def total(cls, parts: Iterable["Counts"]) -> "Counts":
        """The sum of `parts`."""
        columns = zip(*(msgspec.structs.astuple(part) for part in parts), strict=True)
        return cls(*(sum(column) for column in columns))
