"""`embedq status`: what is going on."""

from embedq_core import options


def status(database: options.Database = None, json: options.Json = False) -> None:
    """Show the queue, the workers, the speed, the latest runs and the dead letters."""
    from embedq.reporting import print_status

    print_status(database, as_json=json)
