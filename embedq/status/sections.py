"""How a status looks: a few facts, then sections, what matters most first. Texts only, no I/O but the printing.

A new section is one more element of `sections`; where it has no rows it is left out.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from embedq.inspecting import moment, size
from embedq.schedule.views import in_zone
from embedq.status.reporting import TEN_MINUTES, Status, model_figures
from embedq.steer.running import runs_table
from embedq.tables import Table, field_lines, output_width, table_lines
from embedq_core.text import plural
from embedq_jobs import Pause, holding
from embedq_producer.pausing import remedy, scope_words
from embedq_producer.terminal import duration, percent, short_duration

_LEVELS: Final = "▁▂▃▄▅▆▇█"
_SPARK_CELLS: Final = 60


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the status: a table, and what to call it where there is no room for it."""

    title: str
    table: Table


def facts(status: Status, width: int) -> list[tuple[str, str]]:
    """What is said in a line each. Lines are about `width` wide, as far as they can be made so."""
    oldest = min((load.oldest for load in status.loads if load.oldest is not None), default=None)
    todo = plural(status.items, "item")
    if oldest is not None and status.items:
        todo += f", the oldest due for {duration(max(status.at - oldest, 0))}"
    in_hand = sum(load.in_progress for load in status.loads)
    minute, ten = status.items_per_second, status.rates.per_second(TEN_MINUTES)
    found = [("workers", _workers(status)), *_troubles(status.workers)]
    found += [("paused", _paused(pause)) for pause in status.pauses]
    found.append(("to do", todo))
    if in_hand:
        found.append(("in hand", plural(in_hand, "chunk")))
    found.append(("speed", f"{_rate(minute)} items/s over a minute, {_rate(ten)} over ten"))
    if any(status.rates.items):
        found.append(("ten minutes", sparkline(status.rates.items, width - len("dead letters") - 2)))
    if status.seconds_left is not None:
        found.append(("time left", f"{duration(status.seconds_left)}, until {_clock(status.at, status.seconds_left)}"))
    found.append(("dead letters", f"{sum(part.letters for part in status.dead):,}"))
    return found


def sections(status: Status) -> list[Section]:
    """The sections that have something to show, the most important first."""
    found = [
        Section("queue", _queues(status)),
        Section("runs", runs_table(status.runs, status.at)),
        Section("dead letters", _dead(status)),
        Section("re-embeddings", _reembeddings(status)),
        Section("schedules", _schedules(status)),
        Section("workers", _worker_rows(status)),
        Section("models", _models(status)),
    ]
    return [section for section in found if section.table.rows]


def print_sections(status: Status) -> None:
    """Print all of it, as wide as the terminal is."""
    width = output_width()
    places = [("redis", status.where), ("database", status.database)]
    print(*field_lines([*places, *facts(status, width)]), sep="\n")
    for section in sections(status):
        print()
        print(*table_lines(section.table, width), sep="\n")


def sparkline(values: Sequence[int], width: int) -> str:
    """`values` as bars beside each other, `width` at most; where that is too few, several make one."""
    each = max(-(-len(values) // max(min(width, _SPARK_CELLS), 1)), 1)
    # From the end: the latest is whole.
    sums = [sum(values[max(stop - each, 0) : stop]) for stop in range(len(values), 0, -each)][::-1]
    most = max(sums, default=0)
    # The lowest bar is for nothing at all.
    return "".join(_LEVELS[-(-value * (len(_LEVELS) - 1) // most) if most else 0] for value in sums)


def summary_line(status: Status) -> str:
    """The status in one line, for a log."""
    going_on = sum(not run.settled for run in status.runs)
    words = [
        f"{plural(status.items, 'item')} to do ({size(sum(load.bytes for load in status.loads))})",
        f"{_rate(status.items_per_second)} items/s",
        *([] if status.seconds_left is None else [f"{duration(status.seconds_left)} left"]),
        plural(len(status.workers), "worker"),
        f"{plural(going_on, 'run')} going on",
        plural(sum(part.letters for part in status.dead), "dead letter"),
        *(f"{name}: {text}" for name, text in _troubles(status.workers)),
    ]
    return ", ".join(words)


def _rate(items: float) -> str:
    return f"{items:,.1f}" if items < 100 else f"{items:,.0f}"


def _clock(now: float, seconds: float) -> str:
    """The time of day in so many seconds, and the day where that is far off."""
    form = "%H:%M:%S" if seconds < 3600 else "%H:%M" if seconds < 12 * 3600 else "%Y-%m-%d %H:%M"
    return time.strftime(form, time.localtime(now + seconds))


def _workers(status: Status) -> str:
    if not status.workers:
        return "none: 'embedq worker' runs one" if status.items else "none"
    return f"{len(status.workers):,}"


def _paused(pause: Pause) -> str:
    why = f", {pause.reason}" if pause.reason else ""
    return f"{scope_words(pause.scope)} since {moment(pause.since)}{why}: '{remedy(pause)}' lets it go on"


def _troubles(workers: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Why a model can't be used just now, once for all workers that say so."""
    told = [f"{model}: {why}" for report in workers for model, why in report.get("troubles", {}).items()]
    return [("trouble", text) for text in dict.fromkeys(told)]


def _queues(status: Status) -> Table:
    """`high` is counted among the others, and has a column only where there are such."""
    with_high = any(load.high for load in status.loads)
    titles = ["queue", "items", "oldest", "size", *(["high"] if with_high else [])]
    titles += ["queued", "in hand", "later", "paused"]
    return Table(
        titles,
        [
            [
                load.model_id,
                f"{load.items:,}",
                "-" if load.oldest is None else short_duration(max(status.at - load.oldest, 0)),
                f"{size(load.bytes)} of {size(status.queue_bytes)}",
                *([f"{load.high:,} of {load.jobs:,}"] if with_high else []),
                f"{load.queued:,}",
                f"{load.in_progress:,}",
                f"{load.deferred:,}",
                "all" if holding(status.pauses, load.model_id) else f"{load.paused:,}",
            ]
            for load in status.loads
            if load.jobs
        ],
        frozenset(range(1, len(titles))),
    )


def _reembeddings(status: Status) -> Table:
    return Table(
        ["re-embedding", "state", "done", "left", "to", "why"],
        [
            [
                row.reembedding.collection,
                row.reembedding.state,
                "-" if row.share is None else percent(row.share),
                "-" if row.seconds_left is None else short_duration(row.seconds_left),
                row.reembedding.new_model,
                row.reembedding.message or "-",
            ]
            for row in status.reembeddings
        ],
        frozenset({2, 3}),
    )


def _schedules(status: Status) -> Table:
    rows = [
        [
            each.name,
            "disabled" if each.seconds is None else _when(each.seconds),
            "-" if each.due is None else in_zone(each.due, each.timezone),
            each.last or "-",
        ]
        for each in status.schedules
    ]
    return Table(["schedule", "due", "next", "last result"], rows)


def _when(seconds: float) -> str:
    return f"in {short_duration(seconds)}" if seconds > 0 else "now"


def _dead(status: Status) -> Table:
    rows = [[part.collection, part.error, f"{part.letters:,}"] for part in status.dead]
    return Table(["dead of", "error", "items"], rows, frozenset({2}))


def _worker_rows(status: Status) -> Table:
    return Table(
        ["worker", "in hand", "up", "seen", "done", "models"],
        [
            [
                f"{report['host']}:{report['pid']}",
                _in_hand(report),
                short_duration(max(status.at - report["since"], 0)) if "since" in report else "-",
                _seen(report, status.at),
                f"{report.get('done', 0):,}",
                ", ".join(report.get("models", [])),
            ]
            for report in status.workers
        ],
        frozenset({2, 3, 4}),
    )


def _seen(report: dict[str, Any], now: float) -> str:
    """When a worker was heard of, and whether it is about to end."""
    ago = f"{max(now - report['seen'], 0):.0f}s ago" if "seen" in report else "-"
    return f"{ago}, draining" if report.get("draining") else ago


def _in_hand(report: dict[str, Any]) -> str:
    """How much a worker has in hand of what it may; one of an earlier version doesn't say, or not in items."""
    held, limit = report.get("in_hand_bytes"), report.get("in_hand_bytes_limit")
    if held is None or not limit:
        return "-"
    items = report.get("in_hand_items")
    told = "" if items is None else f"{items:,} items, "
    return f"{told}{size(held)} of {size(limit)}"


def _models(status: Status) -> Table:
    """Of the last ten minutes."""
    return Table(
        ["model", "batch", "full", "calls", "a call", "errors in ten minutes"],
        [
            [
                figures.model,
                "-" if figures.batch_size is None else f"{figures.batch_size:,}",
                "-" if figures.batch_fill is None else percent(figures.batch_fill),
                f"{figures.calls:,}",
                f"{1000 * figures.model_seconds / figures.calls:,.0f} ms" if figures.calls else "-",
                ", ".join(f"{count:,} {name}" for name, count in figures.errors.items()) or "none",
            ]
            for figures in model_figures(status.workers)
        ],
        frozenset({1, 2, 3, 4}),
    )
