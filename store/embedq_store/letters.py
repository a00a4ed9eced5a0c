"""What a dead letter is, and which are meant."""

import json
from dataclasses import dataclass, field
from typing import Final, NamedTuple

COLUMNS: Final = "run, chunk, collection, id, content, content_blob, metadata, model, error, message, attempts, died"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An item that could not be embedded, with everything needed to try it again.

    `error` is the class of the error, `died` the time in seconds since the epoch. A letter without a collection holds
    the bytes of a chunk that could not be read, or None for one that was lost. `key` stays the same as long as the
    letter lives, whatever else of it changes; a letter that has not been written has none.
    """

    run: str
    chunk: int
    collection: str
    id: str
    content: str | bytes | None
    metadata: str | None
    model: str
    error: str
    message: str
    attempts: int
    died: float
    key: int | None = field(default=None, compare=False)


class DeadHeading(NamedTuple):
    """A dead letter without what may be large: its content, of `size` bytes, and its metadata."""

    key: int
    run: str
    collection: str
    id: str
    size: int
    model: str
    error: str
    message: str
    attempts: int
    died: float


class DeadLetterSummary(NamedTuple):
    """How many dead letters of a collection share an error class."""

    collection: str
    error: str
    letters: int


class DeadGroup(NamedTuple):
    """How many dead letters share collection and model; `last_key` is the largest of their keys."""

    collection: str
    model: str
    letters: int
    last_key: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters are meant: those for which everything holds that is said here."""

    ids: tuple[str, ...] = ()
    keys: tuple[int, ...] = ()
    collection: str | None = None
    run: str | None = None
    error: str | None = None
    model: str | None = None

    @property
    def everything(self) -> bool:
        """Whether it leaves none out."""
        return self == Selection()

    def condition(self) -> tuple[str, dict[str, object]]:
        """The condition in SQL, and the values in it."""
        terms, values = ["1"], dict[str, object]()
        if self.ids:
            terms.append("id IN (SELECT value FROM json_each(:ids))")
            values["ids"] = json.dumps(self.ids)
        if self.keys:
            terms.append("key IN (SELECT value FROM json_each(:keys))")
            values["keys"] = json.dumps(self.keys)
        for name in ("collection", "run", "error", "model"):
            value = getattr(self, name)
            if value is not None:
                terms.append(f"{name} = :{name}")
                values[name] = value
        return " AND ".join(terms), values
