"""A model in a process of its own: `python -m embedq_worker.apart MODEL`.

It reads batches from standard input and writes what came of each to standard output: frames of msgpack, their
length before them in eight bytes. It ends when its input does.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Final, TypeAlias

import msgspec

from embedq_core.errors import ModelMisconfigured, UnknownModel
from embedq_core.model import Model
from embedq_core.vectors import STORED_DTYPE, CheckedRows
from embedq_worker.failures import GiveBack, TryAgain, after_failure, concerns_all
from embedq_worker.runner import call_model

LENGTH_BYTES: Final = 8


class Ready(msgspec.Struct, tag=True):
    """The model was found. It is the first frame."""


class Rows(msgspec.Struct, tag=True):
    """What the model returned: `rows` times `dimension` floats of 32 bits, zero where there is a fault."""

    rows: int
    dimension: int
    vectors: bytes
    faults: dict[int, str]


class Raised(msgspec.Struct, tag=True):
    """What the model raised: the class and the message, whether the same call may succeed after `again`
    seconds, whether it is the fault of no item, whether somebody has to mend the model.
    """

    name: str
    message: str
    again: float | None
    concerns_all: bool
    to_mend: bool


Answer: TypeAlias = Ready | Rows | Raised

answers: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)
# Text or bytes: msgspec knows no union of the two.
_batches: Final = msgspec.msgpack.Decoder(list[Any])


def frame(content: object) -> bytes:
    """`content` as msgpack, with its length."""
    encoded = msgspec.msgpack.encode(content)
    return len(encoded).to_bytes(LENGTH_BYTES, "big") + encoded


def main() -> None:
    """Answer batches until the worker that asks is gone."""
    from embedq_plugins import get_embedding_model

    _be_the_first_to_go()
    # What a plugin prints must not get among the answers, and what it reads is no batch.
    source, output = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    try:
        model = get_embedding_model(sys.argv[1])
    except UnknownModel as error:
        output.write(frame(raised(error)))
        output.flush()
        return
    batches: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_read, args=(source, batches.put), daemon=True).start()
    output.write(frame(Ready()))
    while True:
        output.flush()
        output.write(frame(answer(model, _batches.decode(batches.get()))))


def answer(model: Model, contents: list[str | bytes]) -> Rows | Raised:
    """What comes of calling the model."""
    outcome = call_model(model, contents)
    if not isinstance(outcome, CheckedRows):
        return raised(outcome)
    matrix = outcome.matrix.astype(STORED_DTYPE, copy=False)
    rows, dimension = matrix.shape
    return Rows(rows, dimension, matrix.tobytes(), outcome.faults)


def raised(error: BaseException) -> Raised:
    """An error, as far as the worker has to know it."""
    decision = after_failure(error, 1, 1, jitter=0.0)
    again = decision.seconds if isinstance(decision, TryAgain | GiveBack) else None
    message = str(error).encode(errors="replace").decode()
    return Raised(type(error).__name__, message, again, concerns_all(error), isinstance(error, ModelMisconfigured))


def _be_the_first_to_go() -> None:
    """Leave signals that are meant for the worker to it, and have the system, when it runs out of memory, end
    this process rather than that one.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _read(source: IO[bytes], put: Callable[[bytes], None]) -> None:
    """Hand over the frames of `source`. At its end the worker is gone, and this process too, whatever it does."""
    while True:
        length = source.read(LENGTH_BYTES)
        content = source.read(int.from_bytes(length, "big")) if len(length) == LENGTH_BYTES else b""
        if not content:
            os._exit(0)
        put(content)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # nobody waits for answers any more
        os._exit(0)
