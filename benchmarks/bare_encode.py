"""The bare loop over the model's `encode`, which embedq is compared with.

It loads the model, says `ready`, and then for each path of a corpus on a line of its standard input encodes the
contents, a batch at a time, and prints the seconds that took.
"""

import sys
import time
from pathlib import Path

from benchmarks.corpora import contents
from benchmarks.models import MiniLM, minilm


def main() -> None:
    """Encode until there is no more input."""
    model, size = minilm(), MiniLM.batch_size
    model.encode(["warm"] * size, batch_size=size)
    print("ready", flush=True)
    for line in sys.stdin:
        texts = contents(Path(line.rstrip("\n")))
        began = time.perf_counter()
        for first in range(0, len(texts), size):
            model.encode(texts[first : first + size], batch_size=size)
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
