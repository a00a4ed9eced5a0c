"""Turns: of all processes that share a queue, one at a time does what must not be done twice at once."""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from arq.connections import ArqRedis

from embedq_core.cancelling import cancel, to_its_end
from embedq_core.errors import QueueError
from embedq_jobs.errors import translated

# As long as the leases of chunks.
TURN_SECONDS: Final = 15.0
# Each is a sign of life, too: who waits for one sees it within a second.
RENEWALS: Final = 15
# For a Redis to hear that one is over. Nothing ends before, and a worker that is told to stop has vectors to commit.
GIVE_BACK_SECONDS: Final = 2.0

# A turn's value is the token of who has it, and how often it was renewed.
_OURS: Final = "string.sub(redis.call('GET', KEYS[1]) or '', 1, #ARGV[1]) == ARGV[1]"
_RENEW: Final = f"""if not ({_OURS}) then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[3], 'PX', ARGV[2])
return 1"""
_END: Final = f"return ({_OURS}) and redis.call('DEL', KEYS[1]) or 0"


class Turn:
    """A turn that was got. It may be `lost`: Redis was away, or the process asleep, for too long."""

    def __init__(self) -> None:
        self.lost = False


@asynccontextmanager
async def turn(redis: ArqRedis, key: str, where: str, seconds: float) -> AsyncIterator[Turn | None]:
    """The turn that `key` stands for, while the block runs; None where another process has it. Raises QueueError.

    It outlives a process that is killed by `seconds`, and is renewed some times in these.

    It excludes nobody with certainty, as no lock with a time to live does: what is done must bear being done twice.
    """
    token, milliseconds, held = f"{secrets.token_hex(8)}:", int(seconds * 1000), Turn()
    renewing: asyncio.Task[None] | None = None
    try:
        with translated(where):
            got = await redis.set(key, f"{token}0", nx=True, px=milliseconds)
        if got:
            renewing = asyncio.create_task(_renew_forever(redis, key, where, token, milliseconds, held))
        yield held if got else None
    finally:
        # Also where this was cancelled before the answer came: nobody else would get it while it lives.
        await to_its_end(_give_back(redis, key, where, token, renewing))


async def sign_of_life(redis: ArqRedis, key: str, where: str) -> bytes | None:
    """What changes each time that whoever has the turn renews it, some times in its life, and when another gets it;
    None where nobody has it. That of a process that was killed stays as it is until it is over. Raises QueueError.
    """
    with translated(where):
        sign: bytes | None = await redis.get(key)
        return sign


async def _give_back(redis: ArqRedis, key: str, where: str, token: str, renewing: asyncio.Task[None] | None) -> None:
    if renewing is not None:
        await cancel([renewing])
    with contextlib.suppress(QueueError), translated(where):
        async with asyncio.timeout(GIVE_BACK_SECONDS):
            await redis.register_script(_END)(keys=[key], args=[token])


async def _renew_forever(redis: ArqRedis, key: str, where: str, token: str, milliseconds: int, held: Turn) -> None:
    renew = redis.register_script(_RENEW)
    for number in itertools.count(1):
        if held.lost:
            return
        await asyncio.sleep(milliseconds / 1000 / RENEWALS)
        try:
            with translated(where):
                held.lost = not await renew(keys=[key], args=[token, milliseconds, number])
        except QueueError:
            # Whether it is still ours can't be known: as good as lost, and somebody will begin anew.
            held.lost = True
