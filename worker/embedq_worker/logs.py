"""Where a worker's log lines go: to stderr, as text for people or as JSON for programs that gather logs.

A line of JSON says when (ISO 8601, UTC), how bad (`level`), who (`logger`, and `worker`: host:pid) and what
(`message`); where they are known also `run`, `chunk`, `collection`, `model`, of a batch that several runs share `runs`,
and the traceback in `exception`. Contents, metadata and passwords are in neither form, but for
what a model says in its errors.
"""

import logging
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from embedq_core.errors import EmbedqError
from embedq_core.settings import Settings
from embedq_jobs import parse_job_id

_log = logging.getLogger("embedq.worker")


def about(
    model_id: str | None = None,
    *,
    job: str | None = None,
    collection: str | None = None,
    runs: Iterable[str] = (),
) -> dict[str, object]:
    """What a log line is about, for its `extra=`; of `runs`, one alone is its `run`."""
    several = sorted(set(runs))
    run, chunk = (several[0] if len(several) == 1 else None, None) if job is None else parse_job_id(job)
    known = {
        "run": run,
        "chunk": chunk,
        "collection": collection,
        "model": model_id,
        "runs": several if len(several) > 1 else None,
    }
    return {name: value for name, value in known.items() if value is not None}


def log_to_stderr(settings: Settings) -> None:
    """Have what this process logs written to stderr, in the form and from the level on that the settings name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_json() if settings.log_format == "json" else _text())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    if settings.log_format == "json":
        # Warnings of libraries would be lines of text between the others.
        logging.captureWarnings(True)


@contextmanager
def endings_logged(settings: Settings) -> Iterator[None]:
    """Where lines are JSON, log what ends this process in the block, too, and end with its exit code."""
    if settings.log_format != "json":
        yield
        return
    try:
        yield
    except EmbedqError as error:
        _log.error("%s", error)
        sys.exit(error.exit_code)
    except Exception:
        _log.critical("the worker failed in embedq itself", exc_info=True)
        sys.exit(1)


def _text() -> logging.Formatter:
    return logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")


def _json() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    return JsonFormatter(
        "%(timestamp)s %(levelname)s %(name)s %(message)s",
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
        static_fields={"worker": f"{socket.gethostname()}:{os.getpid()}"},
        timestamp=True,
        json_ensure_ascii=False,
    )
