"""Golden queries: whether the vectors of a new model find what those of the old one found."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import msgspec

from embedq_core.errors import UsageError
from embedq_core.items import unstorable
from embedq_core.text import plural, shown

# Recall is that of the first ten answers, or of as many as are expected where these are more.
FIRST: Final = 10
# How many of the queries that lost most are named.
WORST: Final = 3
_SHOWN_LETTERS: Final = 40


class GoldenQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text that is searched for, and the ids that should be among the answers."""

    query: str
    expected: list[str]

    @property
    def first(self) -> int:
        """How many answers are looked at."""
        return max(FIRST, len(self.expected))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a golden check came to. Recalls are means over the queries, in [0, 1]; `old` is None where the old model
    was not asked. `reason` is why the new vectors are not good enough, or empty.
    """

    new: float
    old: float | None
    reason: str = ""


_decoder = msgspec.json.Decoder(GoldenQuery)


def parse_golden(text: str, source: str) -> list[GoldenQuery]:
    """The queries of a golden file, one JSON object on each line. Raises UsageError, naming `source` and the line."""
    queries = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{source}, line {number}"
        try:
            query = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            raise UsageError(f'{where}: {error}. Each line is {{"query": TEXT, "expected": [ID, …]}}') from error
        problem = unstorable(query.query) if query.query.strip() else "is empty"
        if problem is not None:
            raise UsageError(f"{where}: the query {problem}")
        if not query.expected or len(set(query.expected)) < len(query.expected):
            raise UsageError(f"{where}: 'expected' names no id, or one of them twice")
        queries.append(query)
    if not queries:
        raise UsageError(f'{source} holds no queries: each line is {{"query": TEXT, "expected": [ID, …]}}')
    return queries


def judge(
    queries: Sequence[GoldenQuery],
    new: Sequence[Sequence[str]],
    old: Sequence[Sequence[str]] | None,
    required: float | None,
) -> Verdict:
    """Compare the ids that were answered to `queries` with what is expected, best answers first.

    The new vectors must reach the recall that is `required`; where none is, that of the `old` ones.
    """
    found = [_found(query, answers) for query, answers in zip(queries, new, strict=True)]
    before = None if old is None else [_found(query, answers) for query, answers in zip(queries, old, strict=True)]
    recall, old_recall = _mean(queries, found), None if before is None else _mean(queries, before)
    # As it was typed: 0.9 is nine tenths, and not the nearest binary fraction.
    bar = Fraction(str(required)) if required is not None else old_recall
    verdict = Verdict(float(recall), None if old_recall is None else float(old_recall))
    if bar is None or recall >= bar:
        return verdict
    bars = [f"{required:.3f} is required"] if required is not None else []
    bars += [f"the old vectors have {float(old_recall):.3f}"] if old_recall is not None else []
    count = plural(len(queries), "golden query", "golden queries")
    reason = (
        f"recall@{FIRST} of the new vectors is {float(recall):.3f} over {count} ({', '.join(bars)}); "
        f"worst: {_worst(queries, found, before)}"
    )
    return Verdict(verdict.new, verdict.old, reason)


def recalls(verdict: Verdict) -> str:
    """The figures of a check, in words."""
    old = "" if verdict.old is None else f", the old vectors have {verdict.old:.3f}"
    return f"recall@{FIRST} {verdict.new:.3f}{old}"


def _found(query: GoldenQuery, answers: Sequence[str]) -> int:
    return len(set(query.expected) & set(answers[: query.first]))


def _mean(queries: Sequence[GoldenQuery], found: Sequence[int]) -> Fraction:
    shares = [Fraction(count, len(query.expected)) for query, count in zip(queries, found, strict=True)]
    return sum(shares, Fraction(0)) / len(shares)


def _worst(queries: Sequence[GoldenQuery], found: Sequence[int], before: Sequence[int] | None) -> str:
    """The queries that lost most against the old vectors; where none did, those that lack most of what is expected."""

    def most(full: Sequence[int]) -> list[int]:
        lost = [
            Fraction(each - got, len(query.expected)) for query, got, each in zip(queries, found, full, strict=True)
        ]
        return sorted((index for index, share in enumerate(lost) if share > 0), key=lambda index: -lost[index])

    expected = [len(query.expected) for query in queries]
    worst = most(expected if before is None else before) or most(expected)
    words = []
    for index in worst[:WORST]:
        query = queries[index]
        text = query.query if len(query.query) <= _SHOWN_LETTERS else query.query[: _SHOWN_LETTERS - 1] + "…"
        was = "" if before is None else f", was {before[index]}"
        words.append(f"{shown(text)!r} ({found[index]} of {len(query.expected)}{was})")
    return ", ".join(words)
