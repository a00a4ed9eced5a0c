"""Texts that are being embedded now, so that two chunks in one process don't both pay for one text."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ContentKey = tuple[bool, bytes]


class Claims:
    """Who is having what embedded, by collection and content."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, ContentKey], asyncio.Event] = {}

    @contextmanager
    def claiming(self, collection: str) -> Iterator[Callable[[ContentKey], asyncio.Event | None]]:
        """Give a function that claims a content, or returns the event to wait for if another has claimed it.

        Claims end with the block, when the rows are committed or the attempt has failed: whoever waited then
        looks again. Nobody waits inside the block, so there is no circle to wait in.
        """
        mine: list[tuple[str, ContentKey]] = []
        ended = asyncio.Event()

        def claim(key: ContentKey) -> asyncio.Event | None:
            other = self._claims.setdefault((collection, key), ended)
            if other is ended:
                mine.append((collection, key))
                return None
            return other

        try:
            yield claim
        finally:
            for key in mine:
                del self._claims[key]
            ended.set()
