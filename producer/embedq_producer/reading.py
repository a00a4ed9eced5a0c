"""Reading and cutting a corpus in a thread, one chunk ahead of what is sent."""

import asyncio
import select
import threading
import time
from collections.abc import Callable, Iterator
from signal import SIGWINCH
from types import TracebackType
from typing import Final, Protocol, Self

from embedq_core.items import Item
from embedq_producer.chunks import Cut, Cutter

# What a pipe has given goes on its way after so long, though the chunk isn't full.
LINGER_SECONDS: Final = 0.03
# Somebody who wants to stop, while a pipe gives nothing, is noticed after so long.
LOOK_SECONDS: Final = 0.1


class Corpus(Protocol):
    """Items to submit, such as those of a Reader."""

    @property
    def rejected(self) -> int:
        """Rows that could not be read so far."""

    def before_waiting(self, wait: Callable[[int], None]) -> None:
        """Have `wait` called with the file descriptor of a pipe whenever that is to be read, and may be empty."""

    def __iter__(self) -> Iterator[Item]:
        """The items in order. Called and iterated in a thread."""


class Reading:
    """The chunks of a corpus, to be iterated while the block runs. Raises what reading the corpus raises.

    One that is full waits for its turn while another is gathered. A corpus that comes through a pipe is cut on time
    as well: nothing waits for a chunk to fill while the pipe is empty, but for `LINGER_SECONDS`. When `stop` says so
    while it is empty, the chunks end.
    """

    def __init__(self, corpus: Corpus, *, max_items: int, max_bytes: int, stop: Callable[[], bool]) -> None:
        self._corpus = corpus
        self._cutter = Cutter(max_items=max_items, max_bytes=max_bytes)
        self._stop = stop
        self._abandoned = False
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Cut | Exception | None] = asyncio.Queue()
        self._room = threading.Semaphore()
        self._lingering = -1
        self._since = 0.0

    async def __aenter__(self) -> Self:
        self._thread = asyncio.create_task(asyncio.to_thread(self._read))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandoned = True
        self._room.release()
        await asyncio.gather(self._thread, return_exceptions=True)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Cut:
        piece = await self._pieces.get()
        self._room.release()
        if isinstance(piece, Exception):
            raise piece
        if piece is None:
            raise StopAsyncIteration
        return piece

    # --- in the thread

    def _read(self) -> None:
        end: Exception | None = None
        try:
            self._corpus.before_waiting(self._wait)
            for piece in self._cutter.cut(self._corpus):
                self._hand_over(piece)
        except _Abandoned:
            pass
        except Exception as error:
            # Raised where the chunks are taken.
            end = error
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, end)

    def _hand_over(self, piece: Cut) -> None:
        self._room.acquire()
        if self._abandoned:
            raise _Abandoned
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    def _wait(self, descriptor: int) -> None:
        """Until there is something to read, send off what has waited for long enough. Raises _Abandoned."""
        while not select.select([descriptor], [], [], self._patience(time.monotonic()))[0]:
            if self._abandoned or self._stop():
                raise _Abandoned
            if self._cutter.gathering and self._patience(time.monotonic()) <= 0:
                self._hand_over(self._cutter.take())

    def _patience(self, now: float) -> float:
        """Seconds until there is something to do."""
        if not self._cutter.gathering:
            return LOOK_SECONDS
        if self._lingering != self._cutter.number:
            self._lingering, self._since = self._cutter.number, now
        return min(max(self._since + LINGER_SECONDS - now, 0.0), LOOK_SECONDS)


def woken_by_ctrl_c() -> None:
    """Have the running loop woken by Ctrl-C, also where that comes a moment before it begins to wait for a thread.

    asyncio's own handler does not see to that; but once a loop has a handler of any signal, all of them wake it.
    """
    if threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(SIGWINCH, lambda: None)


def waiting_until(ended: Callable[[], bool]) -> Callable[[int], None]:
    """How to wait for a pipe (`Corpus.before_waiting`) in a thread that ends when `ended` says so, whatever comes."""

    def wait(descriptor: int) -> None:
        while not select.select([descriptor], [], [], LOOK_SECONDS)[0]:
            if ended():
                raise _Abandoned

    return wait


class _Abandoned(BaseException):
    """Nobody wants any more chunks: unwinds the readers, which explain exceptions of other kinds."""
