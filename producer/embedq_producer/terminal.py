"""What a person sees while a corpus goes in: a bar on a terminal, plain lines elsewhere. All on stderr."""

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol, Self, TextIO, TypeVar

from embedq_core.cancelling import cancel
from embedq_core.errors import RowError
from embedq_core.text import cut_text, shown

PLAIN_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 1.0
RATE_SECONDS: Final = 10.0
MAX_ROW_LINES: Final = 1000

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Figures:
    """How far something has come: `done` items, and the share of the whole, in [0, 1], where it is known."""

    done: int
    share: float | None
    note: str = ""

    @classmethod
    def of(cls, done: int, total: int) -> Self:
        """`done` of so many, which may have become more since they were counted."""
        return cls(done, min(1.0, done / max(total, 1)))


class Display(Protocol):
    """Shows figures as they change, and lines between them."""

    def show(self, figures: Figures) -> None:
        """Show `figures` in the place of the last."""

    def line(self, text: str) -> None:
        """Print a line that stays."""


class Pace:
    """Speed over the last seconds, and the time that is left at that speed."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int, float]] = deque()

    def add(self, now: float, figures: Figures) -> None:
        """Note `figures` at the time `now`, in seconds. Where fewer are done than before, something else has begun."""
        if self._points and figures.done < self._points[-1][1]:
            self._points.clear()
        self._points.append((now, figures.done, figures.share or 0.0))
        while now - self._points[0][0] > RATE_SECONDS and len(self._points) > len(("first", "last")):
            self._points.popleft()

    def items_per_second(self) -> float:
        """Items a second."""
        (since, first, _), (until, last, _) = self._points[0], self._points[-1]
        return (last - first) / (until - since) if until > since else 0.0

    def seconds_left(self) -> float | None:
        """Seconds until the whole is done; None where nobody can tell yet."""
        (since, _, first), (until, _, last) = self._points[0], self._points[-1]
        if last <= first or until <= since:
            return None
        return (1 - last) * (until - since) / (last - first)


@contextmanager
def display(title: str, stream: TextIO | None = None) -> Iterator[Display]:
    """A display on standard error: a bar if it is a terminal, else a plain line every few seconds."""
    stream = stream or sys.stderr
    if stream.isatty():
        with _bar(title, stream) as bar:
            yield bar
    else:
        yield _Plain(title, stream)


async def patiently(title: str, work: Coroutine[object, object, _T], stream: TextIO | None = None) -> _T:
    """What `work` gives. Where it takes longer than a second, a bar without end shows that it is going on."""
    task = asyncio.create_task(work)
    try:
        done, _ = await asyncio.wait([task], timeout=PATIENCE_SECONDS)
        if not done:
            with display(title, stream):
                await asyncio.wait([task])
        return await task
    finally:
        await cancel([task])


class _Plain:
    def __init__(self, title: str, stream: TextIO) -> None:
        self._title = shown(title)
        self._stream = stream
        self._pace = Pace()
        self._printed = time.monotonic()

    def show(self, figures: Figures) -> None:
        now = time.monotonic()
        self._pace.add(now, figures)
        if now - self._printed < PLAIN_SECONDS:
            return
        self._printed = now
        self.line(f"{self._title}: {', '.join(_words(figures, self._pace))}")

    def line(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


@contextmanager
def _bar(title: str, stream: TextIO) -> Iterator[Display]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(file=stream, highlight=False, emoji=False, markup=False)
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[words]}", markup=False),
        console=console,
        transient=True,
        expand=True,
    )
    task = progress.add_task(cut_text(shown(title), max(console.width // 4, 8)), total=None, words="")
    pace = Pace()

    class Bar:
        def show(self, figures: Figures) -> None:
            pace.add(time.monotonic(), figures)
            words = "  ".join(_words(figures, pace, short=console.width < NARROW))
            progress.update(
                task, total=None if figures.share is None else 1.0, completed=figures.share or 0.0, words=words
            )

        def line(self, text: str) -> None:
            progress.console.print(text, soft_wrap=True)

    with progress:
        yield Bar()


NARROW: Final = 80


def _words(figures: Figures, pace: Pace, *, short: bool = False) -> list[str]:
    words = []
    if figures.share is not None:
        words.append(f"{figures.share:4.0%}" if short else f"{figures.share:.0%}")
    words.append(f"{figures.done:,}" if short else f"{figures.done:,} items")
    rate = pace.items_per_second()
    if rate:
        words.append(speed(rate))
    left = pace.seconds_left()
    if figures.note:
        words.append(figures.note)
    elif left is not None and figures.share is not None and figures.share < 1:
        words.append(duration(left) if short else f"{duration(left)} left")
    return words


def duration(seconds: float) -> str:
    """'0.4 s', '12 s', '3 min 20 s', '2 h 05 min'."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def speed(rate: float) -> str:
    """'0.4/s', '1,234/s'; '0/s' where nothing moved."""
    return f"{rate:,.0f}/s" if rate >= 10 or not rate else f"{rate:.1f}/s"


def percent(share: float) -> str:
    """'0%' to '100%', which are said of none and of all alone."""
    return f"{min(max(round(share * 100), int(share > 0)), 99 if share < 1 else 100)}%"


def short_duration(seconds: float) -> str:
    """'0.4s', '12s', '3m20s', '2h05m', '4d03h', for tables."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


class RowReport:
    """Prints rows that can't be read, each on a line; of very many only the first thousand."""

    def __init__(self) -> None:
        self.display: Display | None = None
        self.count = 0
        self._lock = threading.Lock()

    def __call__(self, error: RowError) -> None:
        """Report one row. Called in the thread that reads."""
        with self._lock:
            self.count += 1
            if self.count <= MAX_ROW_LINES:
                self._line(f"skipped: {error}")
            if self.count == MAX_ROW_LINES:
                self._line(f"skipped: more rows, which are counted and not shown ({MAX_ROW_LINES:,} were)")

    def _line(self, text: str) -> None:
        if self.display is not None:
            self.display.line(text)
        else:
            print(text, file=sys.stderr, flush=True)
