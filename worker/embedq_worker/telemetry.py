"""What a worker tells of its work while it goes on, for whoever measures it; unless asked to, nobody does.

It is told by the batch, the call, the chunk and the transaction, never by the item, so that listening costs nothing
that could be noticed. Everything may be told from any thread.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

from embedq_core.counts import Counts
from embedq_worker.failures import Decision


class ModelTelemetry(Protocol):
    """Hears of the work for one model."""

    def in_hand(self, items: int) -> AbstractContextManager[object]:
        """A chunk of so many items is in hand while the block runs."""

    def batch_formed(self, contents: int, batch_size: int | None) -> None:
        """A batch of so many contents is ready, of the `batch_size` that the model takes; None: whole chunks."""

    def call_returned(self, contents: int, seconds: float) -> None:
        """A call of the model has returned vectors for so many contents."""

    def call_failed(self, error: BaseException, decision: Decision) -> None:
        """A call of the model has failed, and what follows."""

    def in_trouble(self, trouble: bool) -> None:
        """Whether the latest call failed for a reason that may pass by itself, or when somebody mends it."""

    def waited(self, seconds: float) -> None:
        """A call has waited for so long, since the model may be called only so often."""

    def settled(self, counts: Counts) -> None:
        """What became of items is committed."""

    def died(self, error: str, letters: int) -> None:
        """So many dead letters of an error class are committed."""

    def chunk_done(self) -> None:
        """A chunk is done and entered in the ledger."""


class Telemetry(Protocol):
    """Hears of the work of a worker process."""

    def of_model(self, model_id: str) -> ModelTelemetry:
        """Who hears of the work for a model."""

    def committed(self, rows: int, seconds: float) -> None:
        """A transaction with so many rows is committed, and took so long."""

    def draining(self) -> None:
        """The worker takes no more work: it finishes what it has in hand, and ends."""


class _Nobody:
    """Hears nothing."""

    def of_model(self, _model_id: str) -> ModelTelemetry:
        return self

    def committed(self, _rows: int, _seconds: float) -> None:
        pass

    def draining(self) -> None:
        pass

    def in_hand(self, _items: int) -> AbstractContextManager[object]:
        return _NOTHING

    def batch_formed(self, _contents: int, _batch_size: int | None) -> None:
        pass

    def call_returned(self, _contents: int, _seconds: float) -> None:
        pass

    def call_failed(self, _error: BaseException, _decision: Decision) -> None:
        pass

    def in_trouble(self, _trouble: bool) -> None:
        pass

    def waited(self, _seconds: float) -> None:
        pass

    def settled(self, _counts: Counts) -> None:
        pass

    def died(self, _error: str, _letters: int) -> None:
        pass

    def chunk_done(self) -> None:
        pass


_NOTHING: Final = nullcontext()
NOBODY: Final = _Nobody()
