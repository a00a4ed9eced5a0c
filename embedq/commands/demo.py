"""`embedq demo`: the main job on real input."""

from pathlib import Path
from typing import Annotated

import typer

from embedq_core import options


def demo(
    # Not the database of real work, whatever the environment says.
    database: Annotated[
        Path | None,
        typer.Option(
            "-d",
            "--database",
            metavar="FILE",
            help="SQLite file that holds the vectors.",
            show_default="demo.db in your data folder",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """See it work: embed the documentation of Python's standard library, then search it.

    Thousands of real docstrings go through the real queue and a real worker into a database of their own, and three
    questions are asked of it. Run it twice: the second time nothing has changed, and no model is called.
    """
    from embedq.demonstration import run_demo

    run_demo(database, as_json=json)
