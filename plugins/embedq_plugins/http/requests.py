"""Which texts make a request."""

from collections.abc import Iterator, Sequence


def planned(tokens: Sequence[int], most_texts: int | None, most_tokens: int | None) -> Iterator[tuple[int, int]]:
    """Where each request begins and ends, for texts of so many `tokens`, in order: as few as can be.

    None has more than `most_texts` or `most_tokens`, unless one text alone has.
    """
    start, total = 0, 0
    for place, size in enumerate(tokens):
        full = place - start == most_texts or (most_tokens is not None and total + size > most_tokens)
        if full and place > start:
            yield start, place
            start, total = place, 0
        total += size
    if tokens:
        yield start, len(tokens)
