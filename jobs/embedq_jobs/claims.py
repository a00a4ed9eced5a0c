"""Claims in Redis: which contents each worker process is having embedded, so that no other pays for them, too.

A worker claims in *blocks*, one for what it has embedded of one chunk: a field of a hash of its own, which lives as
long as a lease and is renewed as leases are. So one that dies frees all that it had; and a block costs one command,
however many contents it has. Who puts a block in place learns, in the same step, of all that were there before.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, cast

from arq.connections import ArqRedis

from embedq_jobs.errors import translated
from embedq_jobs.names import Names

# What is kept for all workers outlives the longest pause between two chunks that matters.
_KEEP_MS: Final = 24 * 3600 * 1000

# Beside the workers: how many blocks have ended, of whomever. Some ends count twice, which costs another look.
_ENDED: Final = "ended"

# Put blocks in place; name those of others, and say how many of others have ended so far. A worker without a block is
# taken off the list. It may have died after it stored something, so that counts as an end.
# The keys of other workers are known by the list alone.
_PUBLISH: Final = """
local list, mine = KEYS[1], KEYS[2]
local worker, lease, keep, prefix = unpack(ARGV, 1, 4)
for place = 5, #ARGV, 2 do
    redis.call('HSET', mine, ARGV[place], ARGV[place + 1])
end
redis.call('PEXPIRE', mine, lease)
redis.call('HINCRBY', list, worker, 0)
redis.call('PEXPIRE', list, keep)
local ended, others = 0, {}
local entries = redis.call('HGETALL', list)
for place = 1, #entries, 2 do
    local name, count = entries[place], tonumber(entries[place + 1])
    if name == 'ended' then
        ended = ended + count
    elseif name == worker then
        ended = ended - count
    else
        local blocks = redis.call('HKEYS', prefix .. name)
        if #blocks == 0 then
            redis.call('HDEL', list, name)
            redis.call('HINCRBY', list, 'ended', 1)
            ended = ended + 1
        else
            others[#others + 1] = {name, blocks}
        end
    end
end
return {ended, others}
"""

_FREE: Final = """
local list, mine = KEYS[1], KEYS[2]
local worker, keep = unpack(ARGV, 1, 2)
for place = 3, #ARGV do
    redis.call('HDEL', mine, ARGV[place])
end
redis.call('HINCRBY', list, 'ended', #ARGV - 2)
redis.call('HINCRBY', list, worker, #ARGV - 2)
redis.call('PEXPIRE', list, keep)
"""

# What is not held any more is there where Redis took long over a request that was given up, and freed it before.
_RENEW: Final = """
local list, mine = KEYS[1], KEYS[2]
local worker, lease, keep = unpack(ARGV, 1, 3)
local held = {}
for place = 4, #ARGV do
    held[ARGV[place]] = true
end
for _, block in ipairs(redis.call('HKEYS', mine)) do
    if not held[block] then
        redis.call('HDEL', mine, block)
        redis.call('HINCRBY', list, 'ended', 1)
        redis.call('HINCRBY', list, worker, 1)
        redis.call('PEXPIRE', list, keep)
    end
end
if redis.call('PEXPIRE', mine, lease) == 1 then
    -- A call of the model may take longer than the list is kept.
    redis.call('HINCRBY', list, worker, 0)
    redis.call('PEXPIRE', list, keep)
end
"""


class Block(NamedTuple):
    """Contents that the process `worker` has claimed together."""

    worker: str
    name: str


class Published(NamedTuple):
    """What there was when blocks were put in place: the blocks of others, and how many of others had `ended` by then.

    Where that number is what it was before, nobody else has given anything up meanwhile.
    """

    ended: int
    others: list[Block]


class SharedClaims:
    """The claims of the process `worker`, good for `seconds` if they are not renewed. Its methods raise QueueError."""

    def __init__(self, redis: ArqRedis, names: Names, where: str, worker: str, seconds: float) -> None:
        self.worker = worker
        self.seconds = seconds
        self._redis = redis
        self._names = names
        self._where = where
        self._publish = redis.register_script(_PUBLISH)
        self._free = redis.register_script(_FREE)
        self._renew = redis.register_script(_RENEW)

    async def publish(self, blocks: Mapping[str, bytes]) -> Published:
        """Put blocks in place, each under its name."""
        arguments: list[str | int | bytes] = [self.worker, self._milliseconds, _KEEP_MS, self._names.claims("")]
        for name, contents in blocks.items():
            arguments += [name, contents]
        with translated(self._where):
            ended, others = await self._publish(keys=self._keys, args=arguments)
        return Published(
            int(ended), [Block(worker.decode(), name.decode()) for worker, names in others for name in names]
        )

    async def contents(self, blocks: Sequence[Block]) -> list[bytes | None]:
        """What is in the blocks of others; None for those that have ended."""
        with translated(self._where):
            async with self._redis.pipeline(transaction=False) as pipe:
                for worker, name in blocks:
                    pipe.hget(self._names.claims(worker), name)
                return cast("list[bytes | None]", await pipe.execute())

    async def gone(self, blocks: Sequence[Block]) -> list[Block]:
        """Those of the blocks of others that have ended."""
        with translated(self._where):
            async with self._redis.pipeline(transaction=False) as pipe:
                for worker, name in blocks:
                    pipe.hexists(self._names.claims(worker), name)
                there = await pipe.execute()
        return [block for block, is_there in zip(blocks, there, strict=True) if not is_there]

    async def free(self, ended: Iterable[str]) -> None:
        """Free the own blocks that have `ended`. Doing it again does no harm."""
        with translated(self._where):
            await self._free(keys=self._keys, args=[self.worker, _KEEP_MS, *ended])

    async def renew(self, held: Iterable[str]) -> None:
        """Let the own blocks live on that are `held`, and free all others."""
        with translated(self._where):
            await self._renew(keys=self._keys, args=[self.worker, self._milliseconds, _KEEP_MS, *held])

    async def leave(self) -> None:
        """Free all that is claimed: the process ends."""
        with translated(self._where):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.delete(self._names.claims(self.worker))
                pipe.hdel(self._names.claimants, self.worker)
                pipe.hincrby(self._names.claimants, _ENDED, 1)
                pipe.pexpire(self._names.claimants, _KEEP_MS)
                await pipe.execute()

    @property
    def _keys(self) -> list[str]:
        return [self._names.claimants, self._names.claims(self.worker)]

    @property
    def _milliseconds(self) -> int:
        return int(self.seconds * 1000)
