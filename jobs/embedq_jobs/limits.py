"""The limits of a model, kept by all workers together: `embedq_core.limits.Pace`, in Redis and by its clock."""

from typing import Final

from arq.connections import ArqRedis

from embedq_core.limits import LONGEST_HOLD_SECONDS, Booking
from embedq_jobs.errors import translated
from embedq_jobs.names import Names

# Longer than any hold; by then a pace says nothing that counts.
_KEEP_SECONDS: Final = int(LONGEST_HOLD_SECONDS) * 2

# What `Pace` does, in one step. An empty last argument means: by the clock of this server.
_PACE: Final = """
local what, seconds, booked, now = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
if now == nil then
  local time = redis.call('TIME')
  now = time[1] + time[2] / 1e6
end
local stored = redis.call('HMGET', KEYS[1], 'free', 'held', 'generation')
local free, held = tonumber(stored[1] or 0), tonumber(stored[2] or 0)
local generation = tonumber(stored[3] or 0)
local wait = 0
if what == 'book' then
  if booked == tostring(generation) then return {'0', generation} end
  local begin = math.max(now, free, held)
  free, wait = begin + seconds, begin - now
elseif what == 'shift' then
  free = free + seconds
else
  held = math.max(held, now + seconds)
  free, generation = held, generation + 1
end
redis.call('HSET', KEYS[1], 'free', string.format('%.6f', free), 'held', string.format('%.6f', held),
  'generation', generation)
redis.call('EXPIRE', KEYS[1], tonumber(ARGV[5]))
return {string.format('%.6f', wait), generation}
"""


class SharedPace:
    """The pace of one model, for every process that has the same Redis. Its methods raise QueueError.

    `now`, where it is given, stands for the clock of Redis.
    """

    def __init__(self, redis: ArqRedis, names: Names, where: str, model_id: str) -> None:
        self._key = names.limit(model_id)
        self._where = where
        self._pace = redis.register_script(_PACE)

    async def book(self, seconds: float, generation: int | None, now: float | None = None) -> Booking:
        """As `embedq_core.limits.Pace.book`."""
        return await self._do("book", seconds, generation, now)

    async def shift(self, seconds: float) -> None:
        """As `embedq_core.limits.Pace.shifted`."""
        await self._do("shift", seconds, None, None)

    async def hold(self, seconds: float, now: float | None = None) -> None:
        """As `embedq_core.limits.Pace.hold`."""
        await self._do("hold", min(max(seconds, 0.0), LONGEST_HOLD_SECONDS), None, now)

    async def _do(self, what: str, seconds: float, generation: int | None, now: float | None) -> Booking:
        arguments: list[str | float] = [
            what,
            repr(seconds),
            "" if generation is None else generation,
            "" if now is None else repr(now),
            _KEEP_SECONDS,
        ]
        with translated(self._where):
            wait, current = await self._pace(keys=[self._key], args=arguments)
        return Booking(float(wait), int(current))
