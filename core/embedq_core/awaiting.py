"""Models whose `embed_batch` is asynchronous: what it gives is waited for in one event loop, in a thread of its own.

One loop for all calls and all threads, so that what a model keeps between calls, a pool of connections say, stays
usable. It is made when it is first needed.
"""

import os
import threading
from collections.abc import AsyncIterable, Awaitable
from typing import Any


def settled(returned: Any, most: int) -> Any:  # noqa: ANN401 - whatever a plugin returns
    """What `embed_batch` gave, once it is there: awaited, or for an asynchronous iterator its rows, `most` at most.

    Anything else is given back as it is. Raises what the model raises.
    """
    if isinstance(returned, Awaitable):
        return settled(_run(_awaited(returned)), most)
    if isinstance(returned, AsyncIterable):
        return _run(_taken(returned, most))
    return returned


async def _awaited(returned: Awaitable[Any]) -> Any:  # noqa: ANN401
    return await returned


async def _taken(returned: AsyncIterable[Any], most: int) -> list[Any]:
    rows: list[Any] = []
    iterator = aiter(returned)
    try:
        async for row in iterator:
            rows.append(row)
            if len(rows) >= most:
                break
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
    return rows


class _Loop:
    """An event loop that runs in a thread as long as the process does."""

    def __init__(self) -> None:
        # Most models are not asynchronous: commands start without this.
        import asyncio

        self.process = os.getpid()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="embedq-asynchronous-models", daemon=True).start()


_lock = threading.Lock()
_current: _Loop | None = None


def _run(work: Any) -> Any:  # noqa: ANN401 - a coroutine of ours
    global _current  # noqa: PLW0603 - one for the process
    with _lock:
        # A thread does not outlive a fork.
        if _current is None or _current.process != os.getpid():
            _current = _Loop()
        loop = _current.loop
    import asyncio

    outcome = asyncio.run_coroutine_threadsafe(_outcome(work), loop).result()
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


async def _outcome(work: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """What comes of it. SystemExit or KeyboardInterrupt, raised in a task, would end the loop for all."""
    try:
        return await work, None
    except BaseException as error:
        return None, error
