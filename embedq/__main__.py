"""The `embedq` command."""

import sys

from embedq_core.errors import EmbedqError


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and an exit code that means something."""
    from embedq.app import app

    try:
        app(prog_name="embedq")
    except EmbedqError as error:
        print(f"embedq: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
