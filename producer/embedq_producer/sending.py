"""Sending the chunks of a run to a Redis that may go away meanwhile, and may come back with less than it had."""

import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from embedq_core.errors import ChunkLost, RedisFull, RedisUnreachable, RunCancelled
from embedq_core.text import plural
from embedq_jobs import Chunk, Patience, Queue, Run
from embedq_producer.chunks import Cut

# A Redis that is killed may have accepted for so long what it had not yet written to its append-only file …
RECENT_SECONDS: Final = 5.0
# … of which so much is kept here, to send it again.
RECENT_BYTES: Final = 32 * 1024 * 1024

_T = TypeVar("_T")


class Sender:
    """Sends one run. Whatever it sends may be sent twice, and counts once."""

    def __init__(self, run: Run, queue: Queue, patience: Patience, *, mends: bool = False) -> None:
        self._run = run
        self._mends = mends
        self._queue = queue
        self._patience = patience
        self._recent: deque[tuple[float, int, Chunk]] = deque()
        self._recent_bytes = 0
        self._outages_seen = 0
        self._gave_up = False

    async def open(self) -> None:
        """Enter the run in the ledger, and its collection's model."""
        await self._insist(self._open)

    async def _open(self) -> None:
        await self._queue.runs.open(self._run)
        await self._queue.set_collection_model(self._run.collection, self._run.model_id)

    async def send(self, piece: Cut, *, store: bool) -> int:
        """Queue a chunk, and give the bytes in the queue of the run's model. When this returns, Redis has it.

        Raises RunCancelled.
        """
        run = self._run
        chunk = Chunk(
            run=run.id,
            number=piece.number,
            collection=run.collection,
            model_id=run.model_id,
            store=store,
            after=piece.after,
            items=piece.items,
            mends=self._mends,
        )
        placed = await self._insist(lambda: self._queue.place(chunk))
        if placed.cancelled:
            raise self._cancelled()
        self._remember(chunk, placed.bytes)
        return placed.bytes_queued

    async def bytes_queued(self) -> int:
        """Bytes in the queue of the run's model."""
        return await self._insist(lambda: self._queue.bytes_queued(self._run.model_id))

    async def beat(self) -> None:
        """Say that the run goes on. Raises RunCancelled where it does not."""
        if not await self._insist(lambda: self._queue.runs.beat(self._run.id)):
            raise self._cancelled()

    def _cancelled(self) -> RunCancelled:
        return RunCancelled(f"the run {self._run.id} was cancelled: no more of it is queued")

    async def check(self, chunks: int) -> None:
        """Make sure that Redis has all `chunks`: a restart that was quick enough has not been noticed.

        Raises ChunkLost for what is too old to be sent again.
        """
        if await self._insist(lambda: self._queue.runs.queued(self._run.id)) >= chunks:
            return
        await self._insist(self._send_again)
        missing = chunks - await self._insist(lambda: self._queue.runs.queued(self._run.id))
        if missing > 0:
            raise ChunkLost(
                f"Redis at {self._queue.where} has lost {plural(missing, 'chunk')} of run {self._run.id}: "
                "submit the source again"
            )

    async def close(self, chunks: int, *, skipped: int, duplicates: int, interrupted: bool) -> None:
        """Say that nothing more will come. One that has waited in vain for Redis tries it once."""

        async def closing() -> None:
            await self._queue.runs.close(
                self._run.id, chunks, skipped=skipped, duplicates=duplicates, interrupted=interrupted
            )

        if self._gave_up:
            with contextlib.suppress(RedisUnreachable, RedisFull):
                await closing()
        else:
            await self._insist(closing)

    async def _insist(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        try:
            answer = await self._patience.insist(ask)
            if self._patience.outages > self._outages_seen:
                self._outages_seen = self._patience.outages
                await self._patience.insist(self._send_again)
        except (RedisUnreachable, RedisFull):
            self._gave_up = True
            raise
        return answer

    async def _send_again(self) -> None:
        """What Redis has accepted lately; it takes only what it has not."""
        await self._open()
        for _, _, chunk in list(self._recent):
            await self._queue.put(chunk)

    def _remember(self, chunk: Chunk, size: int) -> None:
        now = time.monotonic()
        self._recent.append((now, size, chunk))
        self._recent_bytes += size
        while self._recent_bytes > RECENT_BYTES or now - self._recent[0][0] > RECENT_SECONDS:
            _, size, _ = self._recent.popleft()
            self._recent_bytes -= size
            if not self._recent:
                return
