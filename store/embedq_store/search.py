"""Cosine search over a collection, answered from the rows as they are now: exact, or approximate where that is asked.

The scores of all rows, from `CollectionRows`, find the candidates; the database has the last word: candidates are
read back, scored again in float64, and those that are gone, or that the filter doesn't keep, are dropped. So what is
held of the rows can be behind and cost time, but never gives a stale answer, as long as every *new* row is noticed:
see `embedq_store.rows`. What is held of a filter must only never leave out a row that it keeps.

An approximate search differs in one thing: only rows that an index names, and those that it doesn't hold yet, are
scored. Where these are not enough, for a filter that keeps few rows, say, the search is exact.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, ParamSpec, TypeVar

import aiosqlite
import numpy as np
import numpy.typing as npt

from embedq_core.errors import UsageError
from embedq_core.items import metadata_object
from embedq_core.parts import belongs_to
from embedq_core.vectors import Matrix, Vector, moderate
from embedq_store.approximate import Approximate, is_small, near_counts, near_scores
from embedq_store.candidates import Candidate, read_rows
from embedq_store.copying import CopyFolder
from embedq_store.filters import Filter
from embedq_store.graph import Graph
from embedq_store.rows import CollectionRows
from embedq_store.selection import Selector, gathered
from embedq_store.shortlist import STEP, Mask, Places, Shortlist, offer_each

# Queries that are multiplied with a block of rows at once: their scores take 8 MiB. Fewer than the second number
# are as well answered one by one.
_GROUP: Final = 128
_SMALL_GROUP: Final = 16

# Looking whether a candidate passes costs about as much as reading the metadata of so many rows in a row.
_LOOK_COST: Final = 16
_LOOKS: Final = 256

# Candidates of several queries that are read together.
_READ_ROWS: Final = 4096

# Numbers that are multiplied in some tenths of a millisecond.
_SMALL: Final = 4_000_000

# How often a query is answered anew, at most, while others change the collection.
_TRIES: Final = 3

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Entry:
    """A search result. `score` is the cosine similarity, in [-1, 1]; higher is more similar."""

    id: str
    score: float | None
    content: str | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of a collection."""

    vector: npt.NDArray[np.float64]
    number: int
    skip_id: str | None = None
    filter: Filter = field(default_factory=Filter)
    ann: bool = False
    """Whether the answer may be approximate."""
    group: bool = False
    """Whether documents are asked for, each by its best part; `skip_id` is then the id of a document."""

    @classmethod
    def of(
        cls,
        vector: Vector,
        number: int,
        skip_id: str | None,
        filter_: Filter,
        *,
        ann: bool = False,
        group: bool = False,
    ) -> "Query":
        """A query by `vector`. Raises UsageError (a ValueError) where it isn't one, or `number` is below 1."""
        values = np.asarray(vector, dtype=np.float64)
        if values.ndim != 1 or not len(values):
            raise UsageError(f"a query needs one vector, not an array of shape {values.shape}")
        if not np.isfinite(values).all():
            raise UsageError("the query's vector holds NaN or infinity")
        if number < 1:
            raise UsageError(f"number must be at least 1, not {number}")
        return cls(moderate(values), number, skip_id, filter_, ann, group)

    @property
    def norm(self) -> float:
        """The length of the vector."""
        return float(np.linalg.norm(self.vector))

    @property
    def unit(self) -> Matrix:
        """The vector at length 1, or zeros; float32, shape (dimension,)."""
        norm = self.norm
        return (self.vector / norm if norm > 0 else self.vector).astype(np.float32)

    def scored(self, candidates: Sequence[Candidate]) -> list[tuple[float, Candidate]]:
        """The exact scores of `candidates`, the one to skip left out."""
        norm = self.norm
        return [(one.score(self.vector, norm), one) for one in candidates if self.id_of(one) != self.skip_id]

    def id_of(self, candidate: Candidate) -> str:
        """The id under which a candidate is answered: its own, or that of the document of which it is a part."""
        return belongs_to(candidate.id, candidate.metadata) if self.group else candidate.id

    def decisive(self, scored: list[tuple[float, Candidate]]) -> list[tuple[float, Candidate]]:
        """Those of `scored` that can be answered: of a document, its best part."""
        if not self.group:
            return scored
        best: dict[str, tuple[float, Candidate]] = {}
        for pair in sorted(scored, key=_rank):
            best.setdefault(self.id_of(pair[1]), pair)
        return list(best.values())

    def answer(self, scored: list[tuple[float, Candidate]]) -> list[Entry]:
        """The best of them, ties in the order of their ids."""
        best = sorted(self.decisive(scored), key=_rank)[: self.number]
        return [Entry(self.id_of(one), score, one.content, metadata_object(one.metadata)) for score, one in best]


def _rank(scored: tuple[float, Candidate]) -> tuple[float, str]:
    return -scored[0], scored[1].id


class CollectionIndex:
    """Answers queries to one collection, one after the other: searches hold a lock."""

    def __init__(
        self, db: aiosqlite.Connection, collection_id: int, copies: CopyFolder | None, search_bytes: int
    ) -> None:
        self._db = db
        self._collection_id = collection_id
        self._lock = asyncio.Lock()
        self._rows = CollectionRows(db, collection_id, copies, search_bytes)
        self._selector = Selector(db, collection_id)
        self._approximate = Approximate(copies, collection_id)

    @property
    def why_exact(self) -> str | None:
        """Why the last approximate search was an exact one, where an index would have been of use."""
        return self._approximate.why_exact

    async def refresh(self) -> bool:
        """Hold every row, in the mapped copy if there are many; whether there are many."""
        async with self._lock:
            await self._rows.refresh()
            return not is_small(self._rows)

    async def search(self, query: Query) -> list[Entry]:
        """The `number` entries nearest to the query, best first, ties in the order of their ids."""
        async with self._lock:
            return (await self._answers_now([query]))[0]

    async def search_many(self, queries: Sequence[Query]) -> list[list[Entry]]:
        """The answer of `search` to each of `queries`, which differ in nothing but vectors and ids to skip."""
        answers: list[list[Entry]] = []
        for start in range(0, len(queries), _GROUP):
            async with self._lock:
                answers += await self._answers_now(queries[start : start + _GROUP])
        return answers

    async def _answers_now(self, queries: Sequence[Query]) -> list[list[Entry]]:
        for _ in range(_TRIES):
            await self._refresh(queries)
            if not self._rows.size:
                return [[] for _ in queries]
            near = await self._search_near(queries)
            left = [query for query, answer in zip(queries, near, strict=True) if answer is None]
            exact = iter(
                await self._search_group(left) if len(left) > 1 else [await self._search(query) for query in left]
            )
            answers = [next(exact) if answer is None else answer for answer in near]
            # Rows that were replaced or numbered anew meanwhile may be missing.
            if not await self._rows.have_moved():
                break
        return answers

    async def _refresh(self, queries: Sequence[Query]) -> None:
        await self._rows.refresh()
        dimension = self._rows.dimension
        for query in queries:
            if self._rows.size and len(query.vector) != dimension:
                raise UsageError(
                    f"the query has {len(query.vector)} dimensions; the collection's vectors have {dimension}"
                )

    # --- one query

    async def _search(self, query: Query) -> list[Entry]:
        if query.filter.everything:
            return query.answer(await self._nearest(query, None))
        kept, complete = await self._selector.known(query.filter, self._rows.rowids)
        if not complete:
            found = await self._look(query, kept)
            if found is not None:
                return query.answer(found)
            kept = await self._all_kept(query.filter)
        return query.answer(await self._nearest(query, kept))

    async def _all_kept(self, filter_: Filter) -> Mask | None:
        await self._selector.all(filter_, self._rows.rowids)
        # That may have taken seconds, in which rows were written.
        await self._rows.refresh()
        return await self._selector.all(filter_, self._rows.rowids)

    async def _nearest(self, query: Query, kept: Mask | None) -> list[tuple[float, Candidate]]:
        """The nearest rows among those `kept` (None: all), `number` of them at least, or all that there are."""
        found = await self._candidates(query, kept, query.number, most=None)
        assert found is not None  # noqa: S101 - there was no limit
        return found

    async def _look(self, query: Query, kept: Mask | None) -> list[tuple[float, Candidate]] | None:
        """As `_nearest`, where many candidates may not pass the filter.

        None where so few do that it takes less time to find out first which rows the filter keeps.
        """
        most = max(_LOOKS, self._rows.size // _LOOK_COST)
        return await self._candidates(query, kept, 2 * query.number, most)

    async def _candidates(
        self, query: Query, kept: Mask | None, wanted: int, most: int | None
    ) -> list[tuple[float, Candidate]] | None:
        """Take candidates, `wanted` at first, until enough of them pass; None where `most` are not enough."""
        scores, places = await self._reckon(self._scores, query.unit, kept)
        return await self._best(query, scores, places, kept if places is None else None, wanted, most)

    async def _best(
        self,
        query: Query,
        scores: Matrix,
        places: Places | None,
        among: Mask | None,
        wanted: int,
        most: int | None,
    ) -> list[tuple[float, Candidate]] | None:
        """`_candidates`, of rows at `places` (None: all) with these scores, and of those alone that are `among`."""
        count = len(scores) if among is None else int(np.count_nonzero(among))
        looked_at: set[int] = set()
        found: list[tuple[float, Candidate]] = []
        while True:
            shortlist = Shortlist(wanted, self._rows.slack)
            held = await self._reckon(shortlist.of, scores, among)
            rowids = self._rows.rowids[held if places is None else places[held]].tolist()
            passing = await self._read(query.filter, [rowid for rowid in rowids if rowid not in looked_at])
            found = query.decisive(found + query.scored(passing))
            looked_at.update(rowids)
            sure = sum(score >= shortlist.sure for score, _ in found)
            if sure >= query.number or len(held) >= count:
                if most is not None and len(looked_at) > max(_LOOKS, 4 * query.number):
                    self._selector.want(query.filter)
                return found
            if most is not None and len(looked_at) >= most:
                return None
            # As many as it takes if as large a part of them passes, and half as many again.
            wanted = max(2 * wanted, 3 * query.number * len(looked_at) // (2 * max(sure, 1)))
            if most is not None and wanted > most:
                if sure * most < query.number * len(looked_at):
                    return None
                wanted = most

    async def _reckon(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call `function`, in a thread if it takes longer than to go there and back."""
        if self._rows.size * self._rows.dimension <= _SMALL:
            return function(*args, **kwargs)
        return await asyncio.to_thread(function, *args, **kwargs)

    def _scores(self, units: Matrix, kept: Mask | None) -> tuple[Matrix, Places | None]:
        """The scores of all rows, or, where few are kept, of those, and their places."""
        places = gathered(kept)
        if places is None:
            return self._rows.scores(units), None
        parts = [self._rows.scores(units, places[first : first + STEP]) for first in range(0, len(places), STEP)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32), places

    # --- approximately

    async def _search_near(self, queries: Sequence[Query]) -> list[list[Entry] | None]:
        """The approximate answer to each query; None where it is to be answered exactly."""
        graph = await asyncio.to_thread(self._approximate.of, self._rows) if queries[0].ann else None
        if graph is None:
            return [None] * len(queries)
        filter_, kept = queries[0].filter, None
        if not filter_.everything:
            kept, _ = await self._selector.known(filter_, self._rows.rowids)
            if gathered(kept) is not None:  # it takes less time to score them all
                return [None] * len(queries)
        return [await self._near(query, graph, kept) for query in queries]

    async def _near(self, query: Query, graph: Graph, kept: Mask | None) -> list[Entry] | None:
        for wanted in near_counts(query.number, self._rows.size if query.norm > 0 else 0):
            scores, places = await asyncio.to_thread(near_scores, self._rows, graph, query.unit, wanted, kept)
            found = await self._best(query, scores, places, None, query.number, most=None)
            if found is not None and len(found) >= query.number:
                return query.answer(found)
        return None

    # --- many queries

    async def _search_group(self, queries: Sequence[Query]) -> list[list[Entry]]:
        filter_ = queries[0].filter
        kept: Mask | None = None
        if not filter_.everything:
            kept, complete = await self._selector.known(filter_, self._rows.rowids)
            if not complete:
                if len(queries) < _SMALL_GROUP:
                    return [await self._search(query) for query in queries]
                kept = await self._all_kept(filter_)
        answers: dict[int, list[Entry]] = {}
        wanted = queries[0].number
        while len(answers) < len(queries):
            # Mostly all at once; where many rows of those held are gone, some may need more candidates.
            left = [index for index in range(len(queries)) if index not in answers]
            found = await self._answers([queries[index] for index in left], wanted, kept)
            answers.update((index, answer) for index, answer in zip(left, found, strict=True) if answer is not None)
            wanted *= 4
        return [answers[index] for index in range(len(queries))]

    async def _answers(self, queries: Sequence[Query], wanted: int, kept: Mask | None) -> list[list[Entry] | None]:
        """The answer to each query; None where `wanted` candidates are not enough."""
        shortlists, places = await asyncio.to_thread(self._shortlists, queries, wanted, kept)
        answers: list[list[Entry] | None] = []
        for part in _parts(shortlists):
            held = [shortlist.places() for shortlist in shortlists[part]]
            rowids = [self._rows.rowids[one if places is None else places[one]].tolist() for one in held]
            passing = await self._read(queries[0].filter, sorted({rowid for some in rowids for rowid in some}))
            by_rowid = {candidate.rowid: candidate for candidate in passing}
            for query, shortlist, some in zip(queries[part], shortlists[part], rowids, strict=True):
                found = query.decisive(query.scored([by_rowid[rowid] for rowid in some if rowid in by_rowid]))
                sure = sum(score >= shortlist.sure for score, _ in found)
                enough = sure >= query.number or shortlist.complete
                answers.append(query.answer(found) if enough else None)
        return answers

    def _shortlists(
        self, queries: Sequence[Query], wanted: int, kept: Mask | None
    ) -> tuple[list[Shortlist], Places | None]:
        """The candidates of each query, and where few rows are kept, the places of those."""
        shortlists = [Shortlist(wanted, self._rows.slack) for _ in queries]
        units = np.stack([query.unit for query in queries])
        places = gathered(kept)
        if places is not None:
            for first in range(0, len(places), STEP):
                offer_each(shortlists, first, self._rows.scores(units, places[first : first + STEP]))
        else:
            for first, block in self._rows.blocks(STEP):
                among = None if kept is None else kept[first : first + len(block)]
                offer_each(shortlists, first, units @ block.T, among)
        return shortlists, places

    # --- reading

    async def _read(self, filter_: Filter, rowids: Sequence[int]) -> list[Candidate]:
        """Those of the rows that are there, pass the filter, and can be compared."""
        size = 4 * self._rows.dimension
        return [
            Candidate.of(row)
            async for row in read_rows(self._db, self._collection_id, rowids)
            if len(row[2]) == size and filter_.keeps(row[1], row[4])
        ]


def _parts(shortlists: Sequence[Shortlist]) -> Iterator[slice]:
    """`shortlists` in parts whose candidates can be read together."""
    start = rows = 0
    for end, shortlist in enumerate(shortlists):
        count = len(shortlist.places())
        if rows and rows + count > _READ_ROWS:
            yield slice(start, end)
            start, rows = end, 0
        rows += count
    yield slice(start, len(shortlists))
