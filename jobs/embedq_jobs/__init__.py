"""The wire: chunks, the queue in Redis that holds them, runs and their progress, and the private Redis.

No Redis type leaves this room but to the worker's supervisor, which runs arq.
"""

from embedq_jobs.codec import Chunk, decode_chunk, encode_chunk
from embedq_jobs.connection import open_queue, queue_directory, queue_exists
from embedq_jobs.names import job_id, new_run_id, parse_job_id
from embedq_jobs.notes import RUN_NOTE, noted_runs
from embedq_jobs.patience import Patience
from embedq_jobs.pauses import Pause, Scope, holding
from embedq_jobs.progress import Measured, Progress, measured, progress_of
from embedq_jobs.queue import Queue, QueueLoad
from embedq_jobs.rates import Rates
from embedq_jobs.runs import Runs
from embedq_jobs.starts import Starts
from embedq_jobs.summaries import Run, RunSummary

__all__ = [
    "RUN_NOTE",
    "Chunk",
    "Measured",
    "Patience",
    "Pause",
    "Progress",
    "Queue",
    "QueueLoad",
    "Rates",
    "Run",
    "RunSummary",
    "Runs",
    "Scope",
    "Starts",
    "decode_chunk",
    "encode_chunk",
    "holding",
    "job_id",
    "measured",
    "new_run_id",
    "noted_runs",
    "open_queue",
    "parse_job_id",
    "progress_of",
    "queue_directory",
    "queue_exists",
]
