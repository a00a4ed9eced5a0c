"""How many bytes of a collection's vectors a search may map at a time."""

from collections.abc import Callable
from typing import Final, TypeAlias

DEFAULT_SEARCH_BYTES: Final = 4 * 1024**3

SearchBytes: TypeAlias = int | Callable[[], int]
"""A number, or what tells it when the first search asks."""
