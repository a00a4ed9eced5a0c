"""`status` without --watch: once, for people or as JSON."""

import asyncio
import json
from pathlib import Path

from embedq.status.reporting import read_status, status_object
from embedq_core.settings import load_settings


def print_status(database: Path | None, *, as_json: bool) -> None:
    """Print it for people, or as JSON."""
    status = asyncio.run(read_status(load_settings(database=database)))
    if as_json:
        print(json.dumps(status_object(status)))
        return
    from embedq.status.sections import print_sections

    print_sections(status)
