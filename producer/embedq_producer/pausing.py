"""Saying, to those who wait for a run, that it is paused and what lifts the pause."""

import time
from collections.abc import Callable
from typing import Final

from embedq_core.text import shown
from embedq_jobs import Pause, Queue, Scope, holding

LOOK_SECONDS: Final = 1.0


def scope_words(scope: Scope) -> str:
    """'everything', 'model m', 'collection c'."""
    return f"{scope.kind} {scope.name}" if scope.name else "everything"


def described(pause: Pause) -> str:
    """What is paused, why, and what lifts it."""
    why = f" ({pause.reason})" if pause.reason else ""
    return f"{scope_words(pause.scope)} is paused{why}: '{remedy(pause)}' lets it go on"


def remedy(pause: Pause) -> str:
    """The command that lifts the pause."""
    from shlex import quote

    scope = pause.scope
    return f"embedq resume --{scope.kind} {quote(shown(scope.name))}" if scope.name else "embedq resume"


def pause_object(pause: Pause) -> dict[str, object]:
    """A pause for JSON: `name` is null where everything is paused, `since` in seconds since the epoch."""
    return {
        "scope": pause.scope.kind,
        "name": pause.scope.name or None,
        "since": pause.since,
        "reason": pause.reason,
    }


class PauseWatch:
    """Whether a run is paused: asked at most once a second, and said once for each pause."""

    def __init__(
        self,
        queue: Queue,
        model_id: str,
        collection: str,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._model_id = model_id
        self._collection = collection
        self._say = say
        self._clock = clock
        self._looked: float | None = None
        self._pause: Pause | None = None

    async def note(self) -> str:
        """What to show beside the figures: 'paused', or nothing. Raises RedisUnreachable."""
        now = self._clock()
        if self._looked is None or now - self._looked >= LOOK_SECONDS:
            self._looked = now
            pause = holding(await self._queue.pauses(), self._model_id, self._collection)
            if pause is not None and pause != self._pause:
                self._say(described(pause))
            elif pause is None and self._pause is not None:
                self._say("resumed: going on")
            self._pause = pause
        return "paused" if self._pause is not None else ""
