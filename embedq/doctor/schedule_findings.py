"""What the doctor says of schedules, whether anybody runs them, and how the last times ended; and of re-embeddings that
wait for somebody.
"""

from collections.abc import Iterator, Sequence

from embedq.doctor.finding import Finding, Verdict
from embedq_core.text import plural, shown
from embedq_producer.terminal import short_duration
from embedq_store import Reembedding
from embedq_worker.timetable import Upcoming


def schedule_findings(schedules: Sequence[Upcoming], *, served: bool) -> Iterator[Finding]:
    """Of those that are enabled. `served` says that a worker is there which looks at them."""
    enabled = [each for each in schedules if each.seconds is not None]
    if not enabled:
        return
    troubled = [each for each in enabled if each.last and not each.last.startswith("done")]
    for each in troubled:
        yield Finding(
            Verdict.warn,
            f"schedule {each.name}",
            f"last result: {each.last}",
            f"see 'embedq schedule show {each.name}'",
        )
    if not served:
        late = [each.name for each in enabled if (each.seconds or 0) < 0]
        overdue = f" ({', '.join(late)} overdue)" if late else ""
        detail = f"{plural(len(enabled), 'schedule')}{overdue}, and no worker of this database that would run them"
        yield Finding(Verdict.warn, "schedules", detail, "run 'embedq worker'")
    elif not troubled:
        soonest = max(min(each.seconds or 0 for each in enabled), 0)
        detail = f"{plural(len(enabled), 'schedule')}, the next due in {short_duration(soonest)}"
        yield Finding(Verdict.ok, "schedules", detail)


def reembedding_findings(stopped: Sequence[Reembedding]) -> Iterator[Finding]:
    """Of those that have stopped: nothing happens to them before somebody says what is to."""
    for each in stopped:
        name = shown(each.collection)
        yield Finding(
            Verdict.warn,
            f"reembed {each.collection}",
            f"with {each.new_model}, has stopped: {each.message}",
            f"'embedq reembed {name} -m {shown(each.new_model)}' goes on, 'embedq reembed {name} --cancel' ends it",
        )
