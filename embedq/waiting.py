"""What `runs wait` does: wait until a run is settled, and print what became of it."""

import json
from pathlib import Path

from embedq.running import run_fields
from embedq.tables import print_fields
from embedq_core.settings import load_settings
from embedq_jobs import open_queue
from embedq_producer.submitting import stop_on_interrupt, wait_for_run
from embedq_producer.summary import EXIT_DEAD, EXIT_DONE, EXIT_INTERRUPTED, summary_object


async def wait_until_settled(run: str, database: Path | None, *, as_json: bool) -> int:
    """Wait for a run and print what became of it; return the exit code."""
    settings = load_settings(database=database)
    async with open_queue(settings) as queue:
        summary = await queue.runs.summary(run)
        stop = stop_on_interrupt()
        summary = await wait_for_run(queue, run, summary.run.collection, settings, stop)
    if as_json:
        print(json.dumps(summary_object(summary)))
    else:
        print_fields(run_fields(summary))
    if not summary.settled:
        return EXIT_INTERRUPTED
    return EXIT_DEAD if summary.counts.failed or summary.cancelled is not None else EXIT_DONE
