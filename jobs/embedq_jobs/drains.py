"""Draining: workers that are told to take no new work, to finish what they have in hand, and to end.

Each is told by its name and by the moment since which it runs, both as it reports them itself: one that starts
afterwards is another, even under the same name, and no two clocks are compared.
"""

from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Final, cast

from arq.connections import ArqRedis

from embedq_jobs.errors import translated
from embedq_jobs.names import Names

# Workers look every second: an order that none has followed for so long is for one that is gone.
KEEP_SECONDS: Final = 3600


def worker_name(report: Mapping[str, Any]) -> str:
    """HOST:PID of the worker that reports."""
    return f"{report['host']}:{report['pid']}"


class Drains:
    """The orders to workers to end when they have finished what is in hand."""

    def __init__(self, redis: ArqRedis, names: Names, where: str) -> None:
        self._redis = redis
        self._names = names
        self._where = where

    async def order(self, reports: Iterable[Mapping[str, Any]]) -> None:
        """Tell the workers that have made these reports to drain. Raises RedisUnreachable."""
        orders: dict[Any, Any] = {worker_name(report): repr(float(report["since"])) for report in reports}
        if not orders:
            return
        with translated(self._where):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(self._names.drain, mapping=orders)
                pipe.expire(self._names.drain, KEEP_SECONDS)
                await pipe.execute()

    async def ordered(self, worker: str, since: float) -> bool:
        """Whether the worker of this name, which runs since then, is to drain. Raises RedisUnreachable."""
        with translated(self._where):
            order = await cast("Awaitable[bytes | None]", self._redis.hget(self._names.drain, worker))
        return order is not None and order.decode() == repr(since)
