"""Which runs a command made, for whoever started it: it names a file, and each run that begins is noted there.

The output of a command says so too, but in a form that is for people or depends on its options, and that is cut short
when the command is killed.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

RUN_NOTE: Final = "EMBEDQ_RUN_NOTE"
"""The environment variable with the name of the file."""


def note_run(run: str) -> None:
    """Note that this process has begun a run, where somebody wants to know."""
    file = os.environ.get(RUN_NOTE)
    if file:
        # What is being submitted is worth more than the note.
        with contextlib.suppress(OSError), Path(file).open("a", encoding="ascii") as notes:
            notes.write(f"{run}\n")


def noted_runs(file: Path) -> tuple[str, ...]:
    """The runs that were noted in `file`, in the order in which they began."""
    try:
        return tuple(dict.fromkeys(file.read_text("ascii", errors="replace").split()))
    except FileNotFoundError:
        return ()
