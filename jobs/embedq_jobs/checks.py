"""Whether a Redis is set up so that nothing is lost in it."""

from typing import Any

import redis.exceptions

from embedq_jobs.errors import translated
from embedq_jobs.queue import Queue


async def server_warnings(queue: Queue) -> list[str]:
    """What is dangerous about the settings of the queue's Redis, each with the mend; nothing where INFO is denied."""
    with translated(queue.where):
        try:
            memory: dict[str, Any] = await queue.redis.info("memory")
            persistence: dict[str, Any] = await queue.redis.info("persistence")
        except redis.exceptions.NoPermissionError:
            return []
    warnings = []
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        warnings.append(
            f"Redis at {queue.where} may throw queued items away when memory is short (maxmemory-policy {policy}): "
            "set it to noeviction"
        )
    if not persistence.get("aof_enabled"):
        warnings.append(
            f"Redis at {queue.where} keeps no append-only file: what is queued is lost when it ends: set appendonly yes"
        )
    return warnings
