"""What a collection may be called, and the names that embedq keeps for itself.

While a collection is embedded anew or copied, what is not finished stands beside it under the same name with one of
`RESERVED` behind it. So nobody else may make a name that ends so.
"""

from string import digits
from typing import Final

from embedq_core.errors import UsageError
from embedq_core.items import unstorable
from embedq_core.text import shown

NEXT: Final = "@next"
PREVIOUS: Final = "@previous"
COPYING: Final = "@copying"
RESERVED: Final = (NEXT, PREVIOUS, COPYING)

# Behind a name while its rows are being removed; the collection's key follows.
REMOVING: Final = "@removing-"


def base_name(collection: str) -> str | None:
    """The collection beside which one of this name stands; None where the name is no such name."""
    for suffix in (NEXT, PREVIOUS):
        if collection.endswith(suffix) and len(collection) > len(suffix):
            return collection.removesuffix(suffix)
    return None


def removing_name(collection: str, key: int) -> str:
    """What a collection with this key is called until its last row is removed; '' for `collection` gives the end."""
    return f"{collection}{REMOVING}{key}"


def is_being_removed(collection: str) -> bool:
    """Whether one of this name is there only until its last row is removed."""
    return collection.rstrip(digits).endswith(REMOVING)


def check_collection_name(name: str) -> None:
    """Raise UsageError where no collection may be made under `name`."""
    if not name.strip():
        raise UsageError("the collection needs a name")
    if problem := unstorable(name):
        raise UsageError(f"the name of the collection {problem}: choose another")
    kept = REMOVING if is_being_removed(name) else next(filter(name.endswith, RESERVED), None)
    if kept is not None:
        raise UsageError(f"{shown(name)!r} can't be the name of a collection: embedq keeps {kept!r} for itself")
