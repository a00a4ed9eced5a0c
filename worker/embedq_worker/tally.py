"""What a model was asked of late, and what went wrong: for the worker's report. Bounded, however long it runs."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, TypedDict

# Of late: so many minutes, the running one included.
SPAN_SECONDS: Final = 60.0
SPANS: Final = 10

# Plugins may raise what they like: beyond so many classes of errors in a minute, the others are counted as one.
CLASSES: Final = 8
OTHERS: Final = "other errors"


class Recent(TypedDict):
    """Calls that ended in the last ten minutes, as the report has it.

    `calls` are those that succeeded: they were given `inputs` and took `model_seconds`. `errors` counts the others by
    the class of what was raised.
    """

    calls: int
    inputs: int
    model_seconds: float
    errors: dict[str, int]


@dataclass(slots=True)
class _Span:
    number: int
    calls: int = 0
    inputs: int = 0
    seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)


class Tally:
    """Counts the calls of one model. `clock` tells seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._spans: deque[_Span] = deque(maxlen=SPANS)
        self.calls = 0
        """Calls in all, failed ones included."""
        self.inputs = 0
        """Contents that vectors came back for, in all."""

    def succeeded(self, inputs: int, seconds: float) -> None:
        """Count a call that returned rows for `inputs` contents after `seconds`."""
        span = self._span()
        span.calls += 1
        span.inputs += inputs
        span.seconds += seconds
        self.calls += 1
        self.inputs += inputs

    def failed(self, error: BaseException) -> None:
        """Count a call that raised `error`."""
        errors, name = self._span().errors, type(error).__name__
        errors[name if name in errors or len(errors) < CLASSES else OTHERS] += 1
        self.calls += 1

    def recent(self) -> Recent:
        """What there was in the last ten minutes."""
        first = self._number() - SPANS + 1
        spans = [span for span in self._spans if span.number >= first]
        errors: Counter[str] = Counter()
        for span in spans:
            errors.update(span.errors)
        return {
            "calls": sum(span.calls for span in spans),
            "inputs": sum(span.inputs for span in spans),
            "model_seconds": round(sum(span.seconds for span in spans), 3),
            "errors": dict(errors.most_common(CLASSES)),
        }

    def _span(self) -> _Span:
        number = self._number()
        if not self._spans or self._spans[-1].number != number:
            self._spans.append(_Span(number))
        return self._spans[-1]

    def _number(self) -> int:
        return int(self._clock() // SPAN_SECONDS)
