"""What the doctor says of schedules: whether anybody runs them, and how the last times ended."""

from collections.abc import Iterator, Sequence

from embedq.doctor.finding import Finding, Verdict
from embedq_core.text import plural
from embedq_producer.terminal import short_duration
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
