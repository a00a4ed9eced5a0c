"""How Python is set while a worker runs: for few large heaps of short-lived objects, and threads that take turns."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# Items in hand are hundreds of thousands of small objects without cycles. At the usual 700, the collector looks at
# all of them time and again, which took a sixth of a worker's time.
_NEW_OBJECTS: Final = 100_000

# SQLite's threads take Python's lock after each step of a statement. At the usual 5 ms the database stands still
# while Python is busy with other chunks.
_SWITCH_SECONDS: Final = 0.0005


@contextmanager
def tuned() -> Iterator[None]:
    """Within the block, Python collects garbage seldom and threads give way to each other soon."""
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.freeze()  # what was imported stays
    gc.set_threshold(_NEW_OBJECTS, *thresholds[1:])
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
        gc.unfreeze()
