"""Audits of collections, a slice at a time, and the clearing of what they find. Reached as `Store.audits`."""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial

from embedq_store import auditing
from embedq_store.access import Access
from embedq_store.auditing import ClearedPage, Findings


class Audits:
    """What is wrong with the rows of a database's collections. Each is told by its key."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def findings(
        self, collection_id: int, *, sample: int, seed: int, told: Callable[[int], None] | None = None
    ) -> Findings:
        """Look at every row of a collection, a slice at a time: what is wrong, and `sample` of the good ones.

        `told` is given how many were looked at.
        """
        dimension = await self._access.read(partial(auditing.usual_dimension, collection_id=collection_id))
        last = await self.last_rowid()
        auditor, after = auditing.Auditor(dimension, sample, seed), auditing.BEFORE_ALL

        def look(db: sqlite3.Connection) -> int | None:
            rows = auditing.read_slice(db, collection_id, after, last)
            auditor.take(rows)
            return rows[-1].rowid if rows else None

        while (reached := await self._access.read(look)) is not None:
            after = reached
            if told is not None:
                told(auditor.findings.entries)
        return auditor.findings

    async def clear(self, collection_id: int, dimension: int, drifted: Sequence[bytes]) -> int:
        """Clear the rows that an audit finds bad, and all with the `drifted` content hashes; return how many.

        Nobody waits for what is good: only a slice in which something is wrong is judged again, in the transaction that
        clears it. See `embedq_store.auditing` for what that means.
        """
        after, cleared, last = auditing.BEFORE_ALL, 0, await self.last_rowid()

        def look(db: sqlite3.Connection) -> tuple[int, bool] | None:
            rows = auditing.read_slice(db, collection_id, after, last)
            wrong = any(problem is not None for problem, _ in auditing.judge(rows, dimension))
            return (rows[-1].rowid, wrong) if rows else None

        while (seen := await self._access.read(look)) is not None:
            reached, wrong = seen
            if wrong:
                cleared += await self._clear_between(collection_id, dimension, after, reached)
            after = reached
        if drifted:
            clear_drifted = partial(auditing.clear_contents, collection_id=collection_id, digests=drifted)
            cleared += await self._access.change(clear_drifted)
        return cleared

    async def _clear_between(self, collection_id: int, dimension: int, after: int | None, last: int) -> int:
        """Clear what is bad beyond `after` and up to `last`: in one transaction, unless rows have grown since."""
        cleared = 0
        while after is not None and after < last:
            clear = partial(auditing.clear_slice, collection_id=collection_id, dimension=dimension)
            after, some = await self._access.change_in_turn(partial(clear, after=after, last=last))
            cleared += some
        return cleared

    async def last_rowid(self) -> int:
        """The rowid of the last row: where pages of what is there now end."""
        return await self._access.read(auditing.last_rowid)

    async def cleared_page(
        self, collection_id: int, after: int, last: int, *, max_items: int, max_bytes: int
    ) -> ClearedPage:
        """The next rows with content and without hash in the order of their rowids: see `auditing.cleared_page`."""
        page = partial(auditing.cleared_page, max_items=max_items, max_bytes=max_bytes)
        return await self._access.read(lambda db: page(db, collection_id, after, last))
