import asyncio
import io
import re
import threading

import pytest

import embedq_producer.terminal
from embedq_core.errors import RowError
from embedq_core.text import columns_of
from embedq_producer.terminal import MAX_ROW_LINES, Figures, Pace, RowReport, display, duration, patiently
from support.waiting import BOUND_SECONDS


class Terminal(io.StringIO):
    """A terminal, as far as a display asks."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        written = super().write(text)
        if "reading docs" in self.getvalue():
            self.drawn.set()
        return written


async def test_what_takes_long_shows_that_it_is_going_on(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()

    async def quick() -> int:
        return 1

    assert await patiently("reading docs", quick(), terminal) == 1
    assert terminal.getvalue() == ""
    monkeypatch.setattr(embedq_producer.terminal, "PATIENCE_SECONDS", 0.0)

    async def slow() -> int:
        assert await asyncio.to_thread(terminal.drawn.wait, BOUND_SECONDS)
        return 2

    assert await patiently("reading docs", slow(), terminal) == 2


async def test_who_is_not_patient_ends_what_is_going_on() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    waiting = asyncio.create_task(patiently("reading", endless(), Terminal()))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (61, "1 min 01 s"), (3599, "59 min 59 s"), (7500, "2 h 05 min")],
)
def test_durations_read_well(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_pace_is_that_of_the_last_seconds() -> None:
    pace = Pace()
    for second in range(30):
        done = second if second < 20 else 20 + (second - 20) * 100
        pace.add(second, Figures(done, done / 2000))
    assert pace.items_per_second() == pytest.approx(90, rel=0.15)
    assert pace.seconds_left() == pytest.approx((2000 - 920) / pace.items_per_second(), rel=0.01)


def test_nobody_can_tell_the_time_left_before_something_moves() -> None:
    pace = Pace()
    pace.add(0, Figures(0, 0.0))
    assert pace.seconds_left() is None
    pace.add(1, Figures(0, 0.0))
    assert pace.seconds_left() is None
    assert pace.items_per_second() == 0


def test_without_a_terminal_lines_are_plain_and_few(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("embedq_producer.terminal.time.monotonic", lambda: now)
    stream = io.StringIO()
    with display("do\x1bcs", stream) as shown_on:
        for second in range(13):
            now = 100.0 + second
            shown_on.show(Figures(second * 10, second / 100))
        shown_on.line("a line that stays")
    assert stream.getvalue().splitlines() == [
        "do\\x1bcs: 5%, 50 items, 10/s, 1 min 35 s left",
        "do\\x1bcs: 10%, 100 items, 10/s, 1 min 30 s left",
        "a line that stays",
    ]


def test_a_title_leaves_room_for_the_bar_in_whatever_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    for title in ("a name of a collection that is long", "日本語の長い長い長い名前のコレクション"):
        stream = Terminal()
        with display(title, stream) as shows:
            shows.show(Figures(5, 0.5))
        drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
        cut = {line.partition("…")[0] for line in re.split(r"[\r\n]+", drawn) if "…" in line}
        assert [columns_of(text) <= 14 for text in cut] == [True], cut


def test_rows_are_reported_as_they_come_and_of_very_many_only_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    report = RowReport()
    for number in range(MAX_ROW_LINES + 50):
        report(RowError(f"x.csv line {number}", "is bad"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "skipped: x.csv line 0: is bad"
    assert len(lines) == MAX_ROW_LINES + 1
    assert report.count == MAX_ROW_LINES + 50


def test_what_is_queued_and_then_done_is_not_undone_in_between() -> None:
    pace = Pace()
    pace.add(1.0, Figures(0, 0.0))
    pace.add(2.0, Figures(20_000, 1.0))
    pace.add(3.0, Figures(0, 0.0))
    assert (pace.items_per_second(), pace.seconds_left()) == (0.0, None)
    pace.add(4.0, Figures(100, 0.5))
    assert (pace.items_per_second(), pace.seconds_left()) == (100.0, 1.0)
