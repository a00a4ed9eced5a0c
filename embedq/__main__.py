"""The `embedq` command."""

import errno
import gc
import os
import sys
from pathlib import Path
from typing import Final

from embedq_core.errors import EmbedqError

# What a command imports is there until it ends. The collector looked through it time and again while it was imported,
# and once more at the very end: a fifth of the time that `embedq status` took.
_NEW_OBJECTS: Final = 100_000
# What is wrong is not here but where the output goes.
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and an exit code that means something."""
    _open_streams()
    try:
        # Libraries ask for it while they are imported.
        Path.cwd()
    except FileNotFoundError:
        print("embedq: the directory in which this was started is gone: go to another", file=sys.stderr)
        sys.exit(2)
    gc.set_threshold(_NEW_OBJECTS)
    from embedq.app import app

    try:
        try:
            app(prog_name="embedq")
        finally:
            # Python does it after this function, and would print a traceback.
            print(end="", flush=True)
    except OSError as error:
        if error.errno not in (*_NO_ROOM, errno.EPIPE):
            raise
        # What is left in the buffer could not be written either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            # Who no longer reads has seen enough.
            print(f"embedq: the output can't be written: {os.strerror(error.errno).lower()}", file=sys.stderr)
        sys.exit(1)
    except EmbedqError as error:
        print(f"embedq: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()


def _open_streams() -> None:
    """Put nothing in the place of standard streams that were closed: Python has None there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - for as long as we run


if __name__ == "__main__":
    main()
