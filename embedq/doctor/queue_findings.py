"""What the doctor says of the queue of a model."""

from collections.abc import Iterator, Sequence
from typing import Final

from embedq.doctor.finding import Finding, Verdict, some
from embedq_core.text import plural
from embedq_jobs.health import QueueFacts, WorkerFacts
from embedq_producer.terminal import duration

SLACK_SECONDS: Final = 30 * 24 * 3600
IDLE_SECONDS: Final = 60.0


def queue_findings(queue: QueueFacts, workers: Sequence[WorkerFacts], *, paused: bool) -> Iterator[Finding]:
    """Whether its ledger is right, its jobs are there, and somebody works on them."""
    what = f"queue {queue.model_id}"
    problems = [
        *_lost(what, queue),
        *_expiring(what, queue),
        *_unowned(what, queue, workers, paused=paused),
        *_ledger(what, queue),
    ]
    yield from problems
    if not problems and queue.jobs:
        yield Finding(Verdict.ok, what, f"{plural(queue.jobs, 'chunk')}, {plural(queue.items, 'item')}")


def _lost(what: str, queue: QueueFacts) -> Iterator[Finding]:
    if queue.lost:
        yield Finding(
            Verdict.fail,
            what,
            f"chunks are gone that should be there, of {plural(len(queue.lost), 'run')}: {some(queue.lost)}",
            "submit their sources again; see the maxmemory-policy of Redis",
        )


def _expiring(what: str, queue: QueueFacts) -> Iterator[Finding]:
    if queue.least_ttl is not None and queue.least_ttl < SLACK_SECONDS:
        days = queue.least_ttl / 86400
        yield Finding(
            Verdict.warn,
            what,
            f"a chunk expires in {days:.1f} days, and would be lost",
            "run 'embedq worker' before, or 'redis-cli persist' its key (arq:job:RUN:N)",
        )
    if queue.unexpiring:
        yield Finding(
            Verdict.warn,
            what,
            f"{plural(queue.unexpiring, 'chunk has', 'chunks have')} no time to live, which embedq always sets",
            "find out what else writes keys arq:job:… in this Redis",
        )


def _unowned(what: str, queue: QueueFacts, workers: Sequence[WorkerFacts], *, paused: bool) -> Iterator[Finding]:
    served = any(queue.model_id in worker.models for worker in workers)
    if queue.stuck:
        yield Finding(
            Verdict.fail,
            what,
            f"{plural(len(queue.stuck), 'chunk')} held by a lease that does not end: {some(queue.stuck)}",
            "where no worker has it, delete the key with 'redis-cli del'",
        )
    elif queue.leased and not served:
        yield Finding(
            Verdict.warn,
            what,
            f"{plural(queue.leased, 'chunk')} in progress, and no worker that lives has it",
            "run 'embedq worker', which takes them over within 20 seconds",
        )
    if queue.oldest_due is None or queue.leased or paused:
        return
    if not served:
        detail = f"{plural(queue.jobs, 'chunk')}, due for {duration(queue.oldest_due)}, and no worker that serves them"
        yield Finding(Verdict.warn, what, detail, f"run 'embedq worker' where there is the model {queue.model_id}")
    elif queue.oldest_due > IDLE_SECONDS:
        detail = f"workers take none of {plural(queue.jobs, 'chunk')}, due for {duration(queue.oldest_due)}"
        yield Finding(Verdict.fail, what, detail, "see what the workers say, and start them anew")


def _ledger(what: str, queue: QueueFacts) -> Iterator[Finding]:
    off = (queue.bytes - queue.entry_bytes, queue.items - queue.entry_items)
    if off == (0, 0) and not queue.ghosts:
        return
    details = []
    if queue.ghosts:
        details.append(
            f"{plural(queue.ghosts, 'chunk')} counted that {'is' if queue.ghosts == 1 else 'are'} not queued"
        )
    if off != (0, 0):
        details.append(f"{off[0]:+,} bytes and {off[1]:+,} items against what is counted one by one")
    yield Finding(
        Verdict.warn,
        what,
        f"the ledger is off ({'; '.join(details)}): producers hold back too early or too late",
        f"when nothing is queued for it, 'redis-cli del {queue.load_key}'",
    )
