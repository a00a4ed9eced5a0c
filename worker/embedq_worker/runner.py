"""Running one model: batches across chunks, calls in threads, results back to whoever asked."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from embedq_core.errors import BadVectors, ModelMisconfigured
from embedq_core.model import Model, embed_checked
from embedq_core.vectors import CheckedRows, Matrix
from embedq_worker.batcher import Batcher, Request, Slice
from embedq_worker.failures import Bisect, Bury, GiveBack, TryAgain, after_failure
from embedq_worker.logs import about
from embedq_worker.tally import Tally
from embedq_worker.telemetry import NOBODY, ModelTelemetry

_log = logging.getLogger("embedq.worker")

# How long whoever waits for results hears nothing: he may have others to commit.
QUIET_SECONDS: Final = 1.0

# Weight of the latest batch in the moving average of the model's speed.
_RATE_WEIGHT: Final = 0.2


class TransientFailure(Exception):  # noqa: N818 - a signal within the worker
    """The model can't be reached for now: the chunk goes back to the queue."""

    def __init__(self, error: BaseException, seconds: float) -> None:
        super().__init__(f"{type(error).__name__}: {_brief(error)}")
        self.error = error
        self.seconds = seconds


class Stopping(Exception):  # noqa: N818 - a signal within the worker
    """The worker is stopping: what has not been embedded goes back to the queue."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one item could not be embedded."""

    error: str
    message: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Results for contents `start` to `start + len(matrix)` of a request.

    `matrix` has one row a content (float32), zero where there is a fault. `calls` and `inputs` say what the
    model was asked: of a batch that several chunks share, the first one counts the call.
    """

    start: int
    matrix: Matrix
    faults: dict[int, Fault]
    calls: int


@dataclass(eq=False, slots=True)
class _Pending(Request):
    """A request of a `run`, the results that have come in, and in how many batches that are going on it has a part.

    None among the results says that one of these has ended.
    """

    results: "asyncio.Queue[Piece | BaseException | None]" = field(default_factory=asyncio.Queue)
    going_on: int = 0
    run: str = ""


def call_model(model: Model, contents: Sequence[str | bytes]) -> CheckedRows | BaseException:
    """Call the model. Whatever it raises is returned: sys.exit() in a plugin must not end the worker, and of
    StopIteration and CancelledError asyncio makes something else, or, before Python 3.12, nothing at all.
    """
    try:
        return embed_checked(model, contents)
    except BaseException as error:
        return error


class ModelRunner:
    """One model: its batcher, its threads, its speed. `call` is what a thread does with a batch, `sleep` waits
    before it is repeated.
    """

    def __init__(
        self,
        model: Model,
        *,
        call: Callable[[Model, Sequence[str | bytes]], CheckedRows | BaseException] = call_model,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        telemetry: ModelTelemetry = NOBODY,
    ) -> None:
        self.model = model
        self.telemetry = telemetry
        self._call = call
        self._sleep = sleep
        most = getattr(model, "batch_tokens", None)
        self._batcher = Batcher(model.batch_size, partial(_weight, model, most) if most else None, most)
        self._slots = max(1, int(getattr(model, "concurrency", 1) or 1))
        self._threads = ThreadPoolExecutor(self._slots, thread_name_prefix=f"embedq-{model.model_id}")
        self._coming: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pausing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._to_mend: tuple[ModelMisconfigured, float] | None = None
        self._refusing_since: float | None = None
        self.stopping = asyncio.Event()
        self.items_per_second = 0.0
        self.tally = Tally()
        self.trouble: str | None = None
        """What went wrong with the latest call, where it may pass by itself or when somebody mends it."""

    @property
    def busy(self) -> bool:
        """Whether a call of the model is going on."""
        return bool(self._tasks)

    @property
    def out_of_order(self) -> bool:
        """Whether the model waits for somebody to mend it: until it is looked at again, no work is taken in hand."""
        if self._to_mend is not None and time.monotonic() >= self._to_mend[1]:
            self._to_mend = None
        return self._to_mend is not None

    def unmended(self, seconds: float) -> str | None:
        """What somebody has to mend, where no call has ended otherwise for as long; None elsewhere."""
        since = self._refusing_since
        return self.trouble if since is not None and time.monotonic() - since >= seconds else None

    def coming(self, jobs: Iterable[str]) -> None:
        """Say that these jobs were taken in hand: their contents are on the way, so a tail waits for them."""
        self._coming.update(jobs)
        self._batcher.coming = bool(self._coming)

    def came(self, job: str) -> None:
        """Say that a job has brought its contents, or will bring none. Saying so twice is saying it once."""
        if job in self._coming:
            self._coming.discard(job)
            if not self._coming:
                self._batcher.coming = False
                self._dispatch()

    async def embed(
        self, contents: Sequence[str | bytes], run: str = "", *, high: bool = False
    ) -> AsyncGenerator[Piece, None]:
        """Embed `contents`, in batches shared with others, ahead of these if they are `high`; results come as they are
        ready, in any order, and an empty piece whenever nothing has come for a second. `run`, for the log, is whose
        contents they are.

        Raises TransientFailure when the model can't be reached and Stopping when the worker is to end, but not before
        the batches that are going on have ended: what they return is paid for. What came before stays good. Close it
        (`contextlib.aclosing`): what nobody waits for is not embedded.
        """
        if self.stopping.is_set():
            raise Stopping
        if self.out_of_order and self._to_mend is not None:
            error, until = self._to_mend
            raise TransientFailure(error, max(until - time.monotonic(), 0.0))
        pending = _Pending(contents, run=run, high=high)
        self._batcher.add(pending, time.monotonic())
        self._dispatch()
        missing, failure = len(contents), None
        try:
            while missing:
                try:
                    async with asyncio.timeout(QUIET_SECONDS):
                        result = await pending.results.get()
                except TimeoutError:
                    yield Piece(0, _zeros(0), {}, 0)
                    continue
                if isinstance(result, BaseException):
                    failure = failure or result
                    self._batcher.remove(pending)
                elif result is not None:
                    missing -= len(result.matrix)
                    yield result
                if failure is not None and not pending.going_on and pending.results.empty():
                    raise failure
        finally:
            self._batcher.remove(pending)

    async def stop(self, grace_seconds: float) -> None:
        """Start no more batches; give calls that are going on `grace_seconds` to end."""
        self.stopping.set()
        if self._timer is not None:
            self._timer.cancel()
        waiting = self._batcher.clear()
        begun = [request for request in waiting if request.taken]
        for request in waiting:
            if not request.taken:
                _answer(request, Stopping())
        for task in self._pausing:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_seconds)
        # Not before: what the calls that were going on have returned comes first, and is kept.
        for request in begun:
            _answer(request, Stopping())
        for task in self._tasks:
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _dispatch(self) -> None:
        """Start the batches that are ready, as far as there are free slots; see that a tail is not forgotten."""
        now = time.monotonic()
        while not self.stopping.is_set() and len(self._tasks) < self._slots:
            batch = self._batcher.next_batch(now)
            if not batch:
                break
            self.telemetry.batch_formed(_size(batch), self.model.batch_size)
            for piece in batch:
                _pending(piece.request).going_on += 1
            task = asyncio.create_task(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(partial(self._finished, batch))
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._batcher.deadline()
        # With no free slot, the end of a running batch looks again.
        if deadline is not None and len(self._tasks) < self._slots and not self.stopping.is_set():
            self._timer = asyncio.get_running_loop().call_later(max(deadline - now, 0.001), self._dispatch)

    def _finished(self, batch: list[Slice], task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        for piece in batch:
            _pending(piece.request).going_on -= 1
            _answer(piece.request, None)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a batch failed in embedq itself", exc_info=task.exception(), extra=self._about(batch))
        if not self.stopping.is_set():
            self._dispatch()

    async def _run(self, batch: list[Slice]) -> None:
        try:
            await self._embed(batch)
        except Stopping as stopping:
            for piece in batch:
                _answer(piece.request, stopping)
        except BaseException as error:
            for piece in batch:
                _answer(piece.request, error if isinstance(error, Exception) else Stopping())
            raise

    async def _embed(self, batch: list[Slice], attempts_before: int = 0) -> None:
        """Embed a batch, or what is left of it after bisection, and hand out the results."""
        contents = [content for piece in batch for content in piece.contents]
        attempt = 0
        while True:
            attempt += 1
            if self.stopping.is_set() and (attempts_before or attempt > 1):
                raise Stopping
            began = time.monotonic()
            outcome = await asyncio.get_running_loop().run_in_executor(self._threads, self._call, self.model, contents)
            if isinstance(outcome, CheckedRows):
                if self.trouble is not None:
                    _log.info("%s: it works again", self.model.model_id, extra=self._about(batch))
                    self._trouble(None)
                self._refusing_since = None
                seconds = time.monotonic() - began
                self.tally.succeeded(len(contents), seconds)
                self._measure(len(contents), seconds)
                self.telemetry.call_returned(len(contents), seconds)
                faults = {
                    index: Fault(BadVectors.__name__, message, attempts_before + 1)
                    for index, message in outcome.faults.items()
                }
                self._hand_out(batch, outcome.matrix, faults)
                return
            self.tally.failed(outcome)
            if not await self._failed(outcome, batch, attempt, attempts_before):
                return

    async def _failed(self, outcome: BaseException, batch: list[Slice], attempt: int, attempts_before: int) -> bool:
        """Do what follows from a call that failed; whether that is to call again."""
        size = _size(batch)
        if not isinstance(outcome, ModelMisconfigured):
            self._refusing_since = None
        decision = after_failure(outcome, size, attempt)
        self.telemetry.call_failed(outcome, decision)
        match decision:
            case TryAgain(seconds):
                self._trouble(outcome)
                if self.stopping.is_set():
                    raise Stopping
                _log.warning(
                    "%s: %s; trying again in %.1f s",
                    self.model.model_id,
                    self.trouble,
                    seconds,
                    extra=self._about(batch),
                )
                await self._pause(seconds)
                return True
            case GiveBack(seconds):
                self._trouble(outcome)
                for piece in batch:
                    _answer(piece.request, TransientFailure(outcome, seconds))
                if isinstance(outcome, ModelMisconfigured):
                    self._wait_for_a_hand(outcome, seconds)
            case Bisect():
                self._count_call(batch)
                for half in _halves(batch):
                    await self._embed(half, attempts_before + 1)
            case Bury():
                fault = Fault(type(outcome).__name__, _brief(outcome), attempts_before + 1)
                self._hand_out(batch, _zeros(size), dict.fromkeys(range(size), fault))
        return False

    def _wait_for_a_hand(self, error: ModelMisconfigured, seconds: float) -> None:
        """Call the model no more for a while, and give back all that waits for it."""
        if not self.out_of_order:
            _log.error(
                "%s: %s; what is queued is kept", self.model.model_id, _brief(error), extra=about(self.model.model_id)
            )
        now = time.monotonic()
        self._to_mend = (error, now + seconds)
        self._refusing_since = now if self._refusing_since is None else self._refusing_since
        for request in self._batcher.clear():
            _answer(request, TransientFailure(error, seconds))

    def _trouble(self, error: BaseException | None) -> None:
        self.trouble = None if error is None else _brief(error)
        self.telemetry.in_trouble(error is not None)

    def _about(self, batch: list[Slice]) -> dict[str, object]:
        return about(self.model.model_id, runs=[_pending(piece.request).run for piece in batch])

    async def _pause(self, seconds: float) -> None:
        """Sleep; `stop` cuts it short."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        self._pausing.add(task)
        try:
            await self._sleep(seconds)
        finally:
            self._pausing.discard(task)

    def _count_call(self, batch: list[Slice]) -> None:
        first = batch[0]
        _answer(first.request, Piece(first.start, _zeros(0), {}, 1))

    def _hand_out(self, batch: list[Slice], matrix: Matrix, faults: dict[int, Fault]) -> None:
        offset = 0
        for number, piece in enumerate(batch):
            size = piece.stop - piece.start
            own = {index - offset: fault for index, fault in faults.items() if offset <= index < offset + size}
            _answer(piece.request, Piece(piece.start, matrix[offset : offset + size], own, int(number == 0)))
            offset += size

    def _measure(self, items: int, seconds: float) -> None:
        rate = items / max(seconds, 1e-6) * self._slots
        known = self.items_per_second
        self.items_per_second = rate if not known else known + _RATE_WEIGHT * (rate - known)


def _weight(model: Model, most: int, content: str | bytes) -> int:
    """The tokens of a content. One that the model can't count is sent alone: what is wrong with it, the call tells."""
    try:
        return int(model.count_tokens(content))
    except Exception:
        return most


def _pending(request: Request) -> _Pending:
    assert isinstance(request, _Pending)  # noqa: S101 - for the type checker
    return request


def _answer(request: Request, result: "Piece | BaseException | None") -> None:
    _pending(request).results.put_nowait(result)


def _size(batch: list[Slice]) -> int:
    return sum(piece.stop - piece.start for piece in batch)


def _halves(batch: list[Slice]) -> tuple[list[Slice], list[Slice]]:
    """A batch of at least two contents, cut in the middle."""
    middle = _size(batch) // 2
    left: list[Slice] = []
    right: list[Slice] = []
    for piece in batch:
        size = piece.stop - piece.start
        cut = min(max(middle, 0), size)
        if cut:
            left.append(Slice(piece.request, piece.start, piece.start + cut))
        if cut < size:
            right.append(Slice(piece.request, piece.start + cut, piece.stop))
        middle -= size
    return left, right


def _zeros(rows: int) -> Matrix:
    import numpy as np

    return np.zeros((rows, 0), dtype=np.float32)


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:500] or type(error).__name__
