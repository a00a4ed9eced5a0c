"""What other worker processes are having embedded, so that two of them don't both pay for one text.

It saves calls and decides nothing: what is stored is right whoever embeds what. So wherever Redis can't tell, a worker
goes on with the claims of its own process alone.
"""

import asyncio
import contextlib
import hashlib
import itertools
import logging
import os
import secrets
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from embedq_core.cancelling import cancel
from embedq_core.errors import QueueError, RedisUnreachable
from embedq_jobs.claims import Block, Published, SharedClaims
from embedq_worker.claims import ENDED, ClaimElsewhere, ContentKey, Stored

# How late it may be noticed that another process has ended what is waited for.
LOOK_SECONDS: Final = 0.1
RENEWALS: Final = 3

# Between attempts to reach a Redis that is away.
AGAIN_SECONDS: Final = 0.5

# A Redis that takes longer is away, for this purpose.
PATIENCE_SECONDS: Final = 5.0

_log = logging.getLogger("embedq.worker")

# A content in a block: one byte that says whether it is bytes, and its hash.
_CONTENT_BYTES: Final = 17


class SharedElsewhere:
    """The claims of all processes that work on one database, beside the own ones. `keep_forever` must run."""

    def __init__(self, shared: SharedClaims, database: str) -> None:
        self._shared = shared
        self._database = database
        self._numbers = itertools.count(1)
        self._held: set[str] = set()
        self._to_free: list[str] = []
        self._to_publish: dict[str, bytes] = {}
        self._next_request: asyncio.Task[Published] | None = None
        self._requests: set[asyncio.Task[Published]] = set()
        self._requesting = asyncio.Lock()
        self._read_before: dict[Block, frozenset[bytes]] = {}
        self._waited: dict[Block, asyncio.Event] = {}
        self._ended: int | None = None
        self._something_to_do = asyncio.Event()
        self._warned = False

    @contextmanager
    def claiming(self, collection: str) -> Iterator[ClaimElsewhere]:
        """As `embedq_worker.claims.Elsewhere.claiming`.

        Of two processes that claim one content, the one whose block comes second sees the first, and leaves it to
        that. Where a block of others has ended since before the look-up, what it has stored may have been missed: so
        what is claimed is looked up once more. Alone, a process never does that.
        """
        ended, scope = self._ended, self._scope(collection)
        blocks: list[str] = []

        async def claim(keys: Collection[ContentKey], stored: Stored) -> dict[ContentKey, asyncio.Event]:
            if not keys:
                return {}
            mine = {bytes([key[0]]) + key[1]: key for key in keys}
            name = f"{scope}:{next(self._numbers)}"
            # Before the attempt: where its answer is lost, the block may be there.
            blocks.append(name)
            self._held.add(name)
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    published = await self._publish(name, b"".join(mine))
                    others = [block for block in published.others if block.name.startswith(f"{scope}:")]
                    read = await self._read(published.others, others)
            except (QueueError, TimeoutError) as error:
                self._say(error)
                return {}
            self._ended = published.ended
            theirs = {
                mine[each]: self._end_of(block)
                for block, contents in read.items()
                for each in (contents or frozenset()) & mine.keys()
            }
            if published.ended != ended or None in read.values():
                theirs |= dict.fromkeys(await stored([key for key in keys if key not in theirs]), ENDED)
            return theirs

        try:
            yield claim
        finally:
            for name in blocks:
                self._held.discard(name)
                # One that has not been sent yet is not to be.
                if self._to_publish.pop(name, None) is None:
                    self._to_free.append(name)
                    self._something_to_do.set()

    async def keep_forever(self) -> None:
        """Free what has ended, renew what has not, and look whether what is waited for has ended."""
        pause = self._shared.seconds / RENEWALS
        renew_at = time.monotonic() + pause
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._something_to_do.wait(), LOOK_SECONDS if self._waited else pause)
            self._something_to_do.clear()
            waited, freed, again = list(self._waited), list(self._to_free), False
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    if freed:
                        await self._shared.free(freed)
                        del self._to_free[: len(freed)]
                    if time.monotonic() >= renew_at:
                        # Not beside a request that puts blocks in place: they would not be among these.
                        async with self._requesting:
                            await self._shared.renew(self._held)
                        renew_at = time.monotonic() + pause
                    gone = await self._shared.gone(waited) if waited else []
            except Exception as error:  # whatever it was, nobody may wait for ever
                self._say(error)
                # Whoever waits looks again, and goes on alone if Redis is still away then.
                gone, again = waited, True
            for block in gone:
                self._waited.pop(block).set()
            if again:
                self._something_to_do.set()
                await asyncio.sleep(AGAIN_SECONDS)

    async def leave(self) -> None:
        """Free all that is left, if Redis is there to hear it. To be called when `keep_forever` has ended."""
        await cancel(self._requests)
        with contextlib.suppress(QueueError, TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._shared.leave()

    async def _publish(self, name: str, contents: bytes) -> Published:
        """Put a block in place, in one request with all that come while the one before is under way."""
        self._to_publish[name] = contents
        if self._next_request is None:
            self._next_request = task = asyncio.create_task(self._publish_all(), name="embedq-publish")
            self._requests.add(task)
            task.add_done_callback(self._requested)
        # Whoever is cancelled takes no other along.
        return await asyncio.shield(self._next_request)

    async def _publish_all(self) -> Published:
        async with self._requesting:
            self._next_request = None
            blocks, self._to_publish = self._to_publish, {}
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._shared.publish(blocks)

    def _requested(self, task: "asyncio.Task[Published]") -> None:
        self._requests.discard(task)
        if not task.cancelled():
            # Looked at here: all who wanted to know may have been cancelled.
            task.exception()

    async def _read(self, there: Collection[Block], wanted: Sequence[Block]) -> dict[Block, frozenset[bytes] | None]:
        """What is in the blocks that are `wanted`; None for those that have ended since: nobody knows what of.

        What was read of blocks that are not `there` any more is forgotten.
        """
        read: dict[Block, frozenset[bytes] | None] = {each: self._read_before.get(each) for each in wanted}
        unknown = [block for block, contents in read.items() if contents is None]
        if unknown:
            found = await self._shared.contents(unknown)
            for block, contents in zip(unknown, found, strict=True):
                read[block] = None if contents is None else _cut(contents)
        known = self._read_before | {block: contents for block, contents in read.items() if contents is not None}
        self._read_before = {block: known[block] for block in there if block in known}
        return read

    def _end_of(self, block: Block) -> asyncio.Event:
        self._something_to_do.set()
        return self._waited.setdefault(block, asyncio.Event())

    def _scope(self, collection: str) -> str:
        """What tells the blocks of this collection, in this database, from all others."""
        return hashlib.blake2b(f"{self._database}\n{collection}".encode(), digest_size=8).hexdigest()

    def _say(self, error: Exception) -> None:
        """That Redis is away the lanes say; that it refuses this, nobody else does."""
        if not isinstance(error, RedisUnreachable | TimeoutError) and not self._warned:
            self._warned = True
            _log.warning("%s; going on without asking what other workers are having embedded", error)


def _cut(contents: bytes) -> frozenset[bytes]:
    return frozenset(contents[start : start + _CONTENT_BYTES] for start in range(0, len(contents), _CONTENT_BYTES))


def database_identity(path: str) -> str:
    """What tells a database from others on this machine, under whatever path; one in memory is nobody else's."""
    try:
        status = os.stat(path)  # noqa: PTH116 - `path` is text, and may say that there is no file
    except OSError:
        return secrets.token_hex(8)
    return f"{status.st_dev}:{status.st_ino}"
