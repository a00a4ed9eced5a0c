"""A fresh process that searches and says how much memory it took: for the budget.

    python -m benchmarks.search_child DATABASE QUERIES

QUERIES is an array of shape (queries, dimension) in a file. It prints, as JSON, the ids found for each query,
the resident bytes before the first search, the most there were in between, how many of these were pages of files,
and the seconds of the searches.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil

import embedq
from benchmarks.search_rows import COLLECTION, NUMBER

_LOOK = 0.002


def main(database: Path, queries: Path) -> None:
    """Search, and look at the memory all the while."""
    process, stop, seen = psutil.Process(os.getpid()), threading.Event(), [(0, 0)]

    def watch() -> None:
        while not stop.wait(_LOOK):
            now = process.memory_info()
            # Linux says how much of it is pages of files, which the system takes back when it needs them.
            seen[0] = max(seen[0], (int(now.rss), int(getattr(now, "shared", 0))))

    vectors = np.load(queries)
    with embedq.Collection(COLLECTION, database) as collection:
        before = int(process.memory_info().rss)
        watching = threading.Thread(target=watch)
        watching.start()
        began = time.perf_counter()
        found = [[entry.id for entry in collection.similar_by_vector(vector, NUMBER)] for vector in vectors]
        took = time.perf_counter() - began
        stop.set()
        watching.join()
    most, of_files = seen[0]
    print(json.dumps({"found": found, "before": before, "most": most, "of_files": of_files, "seconds": took}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
