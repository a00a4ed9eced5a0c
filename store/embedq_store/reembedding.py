"""What is said of a collection that is embedded anew beside itself: names, states, figures.

The new vectors go to a *shadow*, an ordinary collection called `NAME@next`. The switch exchanges names: what was `NAME`
is `NAME@previous` from then on, and the shadow is `NAME`. Keys of collections stay with their rows throughout.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from embedq_core.collection_names import NEXT, PREVIOUS

State: TypeAlias = Literal["embedding", "stopped", "switched", "rolled back", "dropped", "cancelled"]
"""`embedding` and `stopped` (somebody has to look; `message` says why) are open: there is one such of a collection at
most. `switched`: the old vectors are kept as `NAME@previous`. `rolled back`: the new ones are kept as `NAME@next`.
`dropped`: what was kept is gone. `cancelled`: there was no switch, and the shadow is gone.
"""


def next_name(collection: str) -> str:
    """The name of the shadow that takes the new vectors of a collection."""
    return collection + NEXT


def previous_name(collection: str) -> str:
    """The name under which the vectors of a collection are kept after a switch."""
    return collection + PREVIOUS


@dataclass(frozen=True, slots=True)
class Reembedding:
    """One re-embedding of a collection, on record from its beginning; times in seconds since the epoch.

    `source` and `shadow` are the keys of the collections that hold the vectors of `old_model` and of `new_model`.
    `golden` is the text of the queries to be tried before the switch, `recall` what they must reach at least, `run`
    the run that queued last.
    """

    key: int
    collection: str
    source: int
    shadow: int
    old_model: str
    new_model: str
    golden: str | None
    recall: float | None
    drop_old: bool
    run: str | None
    state: State
    message: str | None
    started: float
    switched: float | None

    @property
    def open(self) -> bool:
        """Whether it is going on, or waits for somebody to look at it."""
        return self.state in ("embedding", "stopped")

    @property
    def keeps_others(self) -> bool:
        """Whether the other vectors are kept: the old ones after a switch, the new ones after a rollback."""
        return self.state in ("switched", "rolled back")

    @property
    def next_name(self) -> str:
        """The name of the collection that takes, or after a rollback keeps, the new vectors."""
        return next_name(self.collection)

    @property
    def previous_name(self) -> str:
        """The name of the collection that keeps the old vectors after the switch."""
        return previous_name(self.collection)


@dataclass(frozen=True, slots=True)
class Coverage:
    """How far the new vectors go: `entries` is the sum of the four below it, `extra` counts ids that are in the shadow
    and no longer in the collection.
    """

    entries: int = 0
    covered: int = 0
    """The shadow has the same content under the id."""
    dead: int = 0
    """The new model could not embed the content: the shadow has a dead letter of it."""
    missing: int = 0
    """Still to be embedded."""
    without_content: int = 0
    """Still to be embedded, and there is no content to do it with."""
    extra: int = 0

    @property
    def complete(self) -> bool:
        """Whether the new vectors can take the place of the old."""
        return not (self.missing or self.without_content)

    def __add__(self, other: "Coverage") -> "Coverage":
        return Coverage(
            self.entries + other.entries,
            self.covered + other.covered,
            self.dead + other.dead,
            self.missing + other.missing,
            self.without_content + other.without_content,
            self.extra + other.extra,
        )


@dataclass(frozen=True, slots=True)
class Switched:
    """What a switch came to: entries of the collection now, those that its model could not embed, and the seconds for
    which nobody else could write.
    """

    reembedding: Reembedding
    entries: int
    dead: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What a rollback came to. `newcomers` came, or changed, after the switch, and are yet to be embedded with the old
    model; of these, `without_content` can't be. `removed` were deleted since the switch, and are here too. `letters`
    are dead letters of the new model whose items the old vectors lack: they stay with the collection. `seconds`: as
    of a switch.
    """

    reembedding: Reembedding
    newcomers: int
    without_content: int
    removed: int
    letters: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Moved:
    """What to do with a chunk that was cut for a collection as it was before a switch, a rollback or a cancellation.

    Its items belong to `collection`, whose model is `model_id`; where these are None they are accounted for already:
    the chunk came from a re-embedding that has ended.
    """

    collection: str | None
    model_id: str | None


Kind: TypeAlias = Literal["next", "previous", "removing"]


@dataclass(frozen=True, slots=True)
class Role:
    """What a collection is that stands beside another: the new vectors of `collection`, being made or kept from before
    a rollback; its old ones, kept since `since`; or rows that are being removed.
    """

    collection: str
    kind: Kind
    state: State
    since: float
