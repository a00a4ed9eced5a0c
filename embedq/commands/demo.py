"""`embedq demo`: the main job on real input."""

from embedq_core import options


def demo(database: options.Database = None) -> None:
    """See it work: embed the documentation of Python's standard library, then search it.

    Thousands of real docstrings go through the real queue and a real worker into a database, and three questions
    are asked of it. Run it twice: the second time nothing has changed, and no model is called.
    """
    from embedq.demonstration import run_demo

    run_demo(database)
