"""What `runs wait` does: wait until a run is settled, and print what became of it."""

import sys
from pathlib import Path

from embedq_core.settings import load_settings
from embedq_jobs import open_queue
from embedq_producer.submitting import stop_on_interrupt, wait_for_run
from embedq_producer.summary import EXIT_DEAD, EXIT_DONE, EXIT_INTERRUPTED, print_summary


async def wait_until_settled(run: str, database: Path | None, *, as_json: bool) -> int:
    """Wait for a run and print what became of it; return the exit code."""
    settings = load_settings(database=database)
    async with open_queue(settings) as queue:
        summary = await queue.runs.summary(run)
        stop = stop_on_interrupt()
        summary = await wait_for_run(queue, run, summary.run.collection, settings, stop)
    print_summary(summary, settings, as_json=as_json)
    if not summary.settled:
        print(f"interrupted: the run goes on without you; 'embedq runs wait {run}' waits again", file=sys.stderr)
        return EXIT_INTERRUPTED
    # Of one that was interrupted, nobody knows what there would have been.
    return EXIT_DONE if summary.state == "complete" and not summary.counts.failed else EXIT_DEAD
