"""`embedq doctor`: what is well and what is not."""

from typing import Annotated

import typer

from embedq_core import options


def doctor(
    full: Annotated[
        bool, typer.Option("--full", help="Compare the database's indexes with its rows, too: takes longer.")
    ] = False,
    database: options.Database = None,
    json: options.Json = False,
) -> None:
    """Look at Redis, the queues, the database and the models, and say what is wrong and what to do about it.

    Each line begins with ok, warn or fail. Exits with 1 if there is a fail. Nothing is changed.
    """
    from embedq.doctor.doctoring import run_doctor

    run_doctor(database, full=full, as_json=json)
