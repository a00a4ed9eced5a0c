"""Where chunks are embedded with which workers have died: a process for the model alone, which may die instead.

A batch that ends this process is halved, as one that the model refuses, and goes on in a new one, until the item
that kills stands alone.
"""

import asyncio
import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import IO, Final, cast

import msgspec

from embedq_core.errors import KilledWorker, ModelMisconfigured
from embedq_core.model import Model
from embedq_core.text import plural
from embedq_core.vectors import STORED_DTYPE, CheckedRows
from embedq_worker.apart import LENGTH_BYTES, Answer, Raised, Ready, Rows, answers, frame
from embedq_worker.logs import about
from embedq_worker.runner import ModelRunner
from embedq_worker.telemetry import NOBODY, ModelTelemetry

_log = logging.getLogger("embedq.worker")

# A chunk with which as many workers have died is suspect.
SUSPECT_LOSSES: Final = 3

# How often to look whether a process lives that says nothing: its own children may keep its output open.
_LOOK_SECONDS: Final = 0.2
_PIECE_BYTES: Final = 1 << 20

# A process whose input has ended has nothing left to do.
GOODBYE_SECONDS: Final = 1.0


class Quarantine:
    """The place for suspect chunks of one model: batches of theirs alone, one at a time, in a child process that
    is there while it is needed.
    """

    def __init__(self, model: Model, telemetry: ModelTelemetry = NOBODY) -> None:
        self._runner = ModelRunner(model, call=self._call, telemetry=telemetry)
        self._child: _Child | None = None
        self._chunks = 0
        self._stopped = False
        # A model may allow several calls at once; here they would make several processes.
        self._turn = threading.Lock()

    def unmended(self, seconds: float) -> str | None:
        """As the runner's."""
        return self._runner.unmended(seconds)

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[ModelRunner]:
        """The runner for a suspect chunk."""
        self._chunks += 1
        try:
            yield self._runner
        finally:
            self._chunks -= 1
            if not self._chunks:
                await asyncio.to_thread(self._end_idle)

    async def stop(self, grace_seconds: float) -> None:
        """As the runner's `stop`; a call that does not end in time is ended."""
        await self._runner.stop(grace_seconds)
        self._stopped = True
        child = self._child
        if child is not None:
            await asyncio.to_thread(child.end)

    def _end_idle(self) -> None:
        """End the process when nobody needs it any more; in a thread. A call that goes on, for a chunk that was
        given up, ends first: repeated, it would be paid for again.
        """
        with self._turn:
            child = self._child
            if child is not None and not self._chunks:
                self._child = None
                child.end()

    def _call(self, model: Model, contents: Sequence[str | bytes]) -> CheckedRows | BaseException:
        """Embed a batch in the child process; in a thread."""
        with self._turn:
            while not self._stopped:
                child = self._child
                if child is None:
                    child = self._child = _Child(model.model_id)
                fresh = not child.asked
                try:
                    return _outcome(child.ask(contents))
                except _NotStarted as error:
                    self._child = None
                    # Nothing is known of the items: patience, and then back to the queue.
                    return ConnectionError(str(error))
                except _Died as death:
                    self._child = None
                    if child.ending or (len(contents) == 1 and not fresh):
                        # What it did before may have been the cause: an item must do it alone, and by itself.
                        continue
                    _log.warning(
                        "%s: %s over %s; going on",
                        model.model_id,
                        death,
                        plural(len(contents), "item"),
                        extra=about(model.model_id),
                    )
                    return KilledWorker(f"{death} over this item, after workers had died with its chunk")
            return ConnectionError("the worker is stopping")


class _Died(Exception):  # noqa: N818 - a signal within this module
    """The child has ended, with an item or items in hand."""


class _NotStarted(Exception):  # noqa: N818 - likewise
    """There is no child that could be asked."""


class _Child:
    """A process with the model in it."""

    def __init__(self, model_id: str) -> None:
        self.asked = 0
        self.ending = False
        # It finds modules where this process does (-P: nowhere else). In a session of its own, Ctrl-C leaves it alone.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-P", "-m", "embedq_worker.apart", model_id]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
            start_new_session=True,
        )
        self._input = cast("IO[bytes]", self._process.stdin)
        self._output = cast("IO[bytes]", self._process.stdout)
        self._output_ready = select.poll()
        self._output_ready.register(self._output, select.POLLIN)
        self._ready = False
        self._asking = threading.Lock()

    def ask(self, contents: Sequence[str | bytes]) -> Rows | Raised:
        """What comes of a batch. Raises _Died, and _NotStarted where it has not come so far."""
        with self._asking:
            if not self._ready:
                self._begin()
            self.asked += 1
            try:
                _send(self._input, frame(list(contents)))
                answer = self._receive()
            except (OSError, EOFError, msgspec.DecodeError):
                raise _Died(f"the model ended its process ({self._close()})") from None
        assert not isinstance(answer, Ready)  # noqa: S101 - it comes once
        return answer

    def end(self) -> None:
        """End it, whatever it is doing."""
        self.ending = True
        idle = self._asking.acquire(blocking=False)
        if not idle:
            # Whoever asks learns of it, and lets go of the pipes.
            self._process.kill()
            self._asking.acquire()
        try:
            self._close()
        finally:
            self._asking.release()

    def _begin(self) -> None:
        try:
            first = self._receive()
        except (OSError, EOFError, msgspec.DecodeError):
            raise _NotStarted(f"a process for the model could not be started ({self._close()})") from None
        if isinstance(first, Raised):
            self._close()
            raise _NotStarted(f"a process for the model could not be started: {first.message}")
        self._ready = True

    def _close(self) -> str:
        """See that it has ended, which without its input it does by itself, if it can; how it ended."""
        for pipe in (self._input, self._output):
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            code = self._process.wait(GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return _ending(code)

    def _receive(self) -> Answer:
        length = self._read(LENGTH_BYTES)
        return answers.decode(self._read(int.from_bytes(length, "big")))

    def _read(self, size: int) -> bytes:
        read = bytearray()
        while len(read) < size:
            if self._output_ready.poll(_LOOK_SECONDS * 1000):
                piece = self._output.read(min(size - len(read), _PIECE_BYTES))
                if not piece:
                    raise EOFError
                read += piece
            elif self._process.poll() is not None:
                raise EOFError
        return bytes(read)


def _send(output: IO[bytes], content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[output.write(rest) :]


def _outcome(answer: Rows | Raised) -> CheckedRows | BaseException:
    """What calling the model here would have come to."""
    import numpy as np

    if isinstance(answer, Rows):
        matrix = np.frombuffer(answer.vectors, STORED_DTYPE).reshape(answer.rows, answer.dimension)
        return CheckedRows(matrix.astype(np.float32, copy=False), answer.faults)
    if answer.to_mend:
        return ModelMisconfigured(answer.message)
    # A class of its name, and of a kind that the decision about failures knows.
    kind = ConnectionError if answer.again is not None else ImportError if answer.concerns_all else Exception
    attributes: dict[str, object] = {}
    if answer.again is not None:
        attributes["response"] = SimpleNamespace(headers={"retry-after": str(answer.again)})
    error: BaseException = type(answer.name, (kind,), attributes)(answer.message)
    return error


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
