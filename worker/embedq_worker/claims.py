"""Texts that are being embedded now, so that two chunks in one process don't both pay for one text."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol, TypeAlias

ContentKey: TypeAlias = tuple[bool, bytes]
Claim: TypeAlias = Callable[[Iterable[ContentKey]], dict[ContentKey, asyncio.Event]]
Stored: TypeAlias = Callable[[Collection[ContentKey]], Awaitable[Iterable[ContentKey]]]
ClaimElsewhere: TypeAlias = Callable[[Collection[ContentKey], Stored], Awaitable[dict[ContentKey, asyncio.Event]]]

ENDED: Final = asyncio.Event()
"""For what another has stored and given up: there is nothing to wait for."""
ENDED.set()


class Elsewhere(Protocol):
    """Claims beside those of other processes."""

    def claiming(self, collection: str) -> AbstractContextManager[ClaimElsewhere]:
        """Give a function that claims contents as `Claims.claiming` does: begin, look up, claim once.

        It is given those that were claimed in this process, and asks which of them the store has by now, where another
        may have stored some since they were looked up.
        """


class Nobody:
    """There are no other processes."""

    @contextmanager
    def claiming(self, collection: str) -> Iterator[ClaimElsewhere]:  # noqa: ARG002 - as the others
        """As `Elsewhere.claiming`: nothing is claimed by others."""

        async def claim(keys: Collection[ContentKey], stored: Stored) -> dict[ContentKey, asyncio.Event]:  # noqa: ARG001
            return {}

        yield claim


class Claims:
    """Who is having what embedded, by collection and content: in this process, and `elsewhere`."""

    def __init__(self, elsewhere: Elsewhere | None = None) -> None:
        self.elsewhere = elsewhere or Nobody()
        self._claims: dict[tuple[str, ContentKey], asyncio.Event] = {}
        # For each block that has not claimed yet: what others gave up since it began.
        self._looking: list[set[tuple[str, ContentKey]]] = []

    @contextmanager
    def claiming(self, collection: str) -> Iterator[Claim]:
        """Give a function that claims contents, and returns those that others have, with the events to wait for.

        Begin the block, look the contents up, then claim once: what another has stored and given up in between
        is not claimed, since the look-up may have missed it; its event is set already, so that it is looked up
        again at once. Claims end with the block, when the rows are committed or the attempt has failed: whoever
        waited then looks again. Nobody waits inside the block, so there is no circle to wait in.
        """
        mine: list[tuple[str, ContentKey]] = []
        ended = asyncio.Event()
        given_up: set[tuple[str, ContentKey]] = set()
        self._looking.append(given_up)

        def claim(keys: Iterable[ContentKey]) -> dict[ContentKey, asyncio.Event]:
            others: dict[ContentKey, asyncio.Event] = {}
            for key in keys:
                full = (collection, key)
                holder = ENDED if full in given_up else self._claims.setdefault(full, ended)
                if holder is ended:
                    mine.append(full)
                else:
                    others[key] = holder
            self._stop_looking(given_up)
            return others

        try:
            yield claim
        finally:
            self._stop_looking(given_up)
            for full in mine:
                del self._claims[full]
            for looker in self._looking:
                looker.update(mine)
            ended.set()

    def _stop_looking(self, given_up: set[tuple[str, ContentKey]]) -> None:
        self._looking = [other for other in self._looking if other is not given_up]
