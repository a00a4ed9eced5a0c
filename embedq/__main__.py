"""The `embedq` command."""

import gc
import sys
from typing import Final

from embedq_core.errors import EmbedqError

# What a command imports is there until it ends. The collector looked through it time and again while it was imported,
# and once more at the very end: a fifth of the time that `embedq status` took.
_NEW_OBJECTS: Final = 100_000


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and an exit code that means something."""
    gc.set_threshold(_NEW_OBJECTS)
    from embedq.app import app

    try:
        app(prog_name="embedq")
    except EmbedqError as error:
        print(f"embedq: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()


if __name__ == "__main__":
    main()
