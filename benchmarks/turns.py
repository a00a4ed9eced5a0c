"""Repetitions by turns, so that no contender gets the better moments of a noisy machine."""

from collections.abc import Callable, Mapping, Sequence

Say = Callable[[str], None]


def by_turns(
    contenders: Mapping[str, Callable[[int], float]], turns: int, say: Say = lambda _: None, unit: str = ""
) -> dict[str, tuple[float, ...]]:
    """What each contender measured in each turn. Each is called with the number of the turn.

    The order is rotated from turn to turn, so that nobody is always first.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns):
        for name in rotated(list(contenders), turn):
            found[name].append(contenders[name](turn))
            say(f"{name}, turn {turn + 1} of {turns}: {found[name][-1]:,.3f} {unit}".rstrip())
    return {name: tuple(values) for name, values in found.items()}


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """`names` beginning with another one in each turn."""
    start = turn % len(names)
    return [*names[start:], *names[:start]]


def rates(count: float, seconds: Sequence[float]) -> tuple[float, ...]:
    """How many a second, for each of `seconds` that `count` of them took."""
    return tuple(count / value for value in seconds)
