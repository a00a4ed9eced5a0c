"""`embedq dead requeue --all` in a forked process that kills itself on the way."""

import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from typing import Literal, TypeAlias

from embedq_jobs import Chunk, Queue
from embedq_jobs.queue import Placed
from support import forked

Moment: TypeAlias = Literal["before", "after"]


def requeue_and_die(environment: Mapping[str, str], moment: Moment, chunks: int) -> ForkServerProcess:
    """Start it. It is killed before it places the chunk that comes after `chunks`, or after the last of these."""
    return forked.call(_requeue_and_die, dict(environment), moment, chunks)


def _requeue_and_die(environment: Mapping[str, str], moment: Moment, left: int) -> None:
    os.environ.clear()
    os.environ.update(environment)
    place = Queue.place

    async def dying_place(self: Queue, chunk: Chunk) -> Placed:
        nonlocal left
        if moment == "before" and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        done = await place(self, chunk)
        left -= 1
        if moment == "after" and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    Queue.place = dying_place  # type: ignore[method-assign]
    sys.argv = ["embedq", "dead", "requeue", "--all"]
    forked.embedq()
