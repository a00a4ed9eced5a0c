"""Scores in the queue of a model: when a job is due, and whether it goes ahead of others.

arq works off its queue in the order of the scores, which are milliseconds since the epoch. A high job has the same,
less a constant that is larger than any of them: so it is ahead of all normal ones, and in order among its like. Both
are whole numbers, which Redis keeps exactly; and a worker that knows of no priorities takes high jobs first as well.
"""

from typing import Final

# Some 30,000 years.
HIGH_AHEAD_MS: Final = 10**15


def due_ms(score: float) -> float:
    """When a job with this score is due, in milliseconds since the epoch."""
    return score + HIGH_AHEAD_MS if score < 0 else score


def high_score(due: int) -> int:
    """The score of a high job that is due then, in milliseconds since the epoch."""
    return due - HIGH_AHEAD_MS
