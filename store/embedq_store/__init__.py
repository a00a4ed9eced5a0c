"""The store: SQLite schema, collections, group-commit writer, deduplication, search.

No SQLite type, connection or SQL leaves this room. Names are imported when they are first used: what does not search
starts without numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedq_store.auditing import ClearedPage, Findings, Flawed, Problem, Sampled
    from embedq_store.collection import AsyncCollection
    from embedq_store.embedding import checked_item, embed_into
    from embedq_store.filters import Where, where_given
    from embedq_store.graph import Built
    from embedq_store.letters import DeadGroup, DeadHeading, DeadLetter, DeadLetterSummary, Selection
    from embedq_store.outcomes import Incoming, Known, Plan, Stored, decide
    from embedq_store.pruning import Candidate, Prunable
    from embedq_store.querying import query_vectors
    from embedq_store.reembedding import Coverage, Moved, Reembedding, Role, RolledBack, Switched
    from embedq_store.reembeddings import Reembeddings
    from embedq_store.schedules import Attempt, NewSchedule, Schedule, Schedules
    from embedq_store.search import Entry
    from embedq_store.snapshot import Snapshot, SnapshotFigures, StoredEntry
    from embedq_store.standing import CollectionFigures, CollectionInfo, Standing
    from embedq_store.steady import is_whole, steadily
    from embedq_store.store import Store
    from embedq_store.sync import Collection
    from embedq_store.writes import ChunkMark, Row, Target, Write

__all__ = [
    "AsyncCollection",
    "Attempt",
    "Built",
    "Candidate",
    "ChunkMark",
    "ClearedPage",
    "Collection",
    "CollectionFigures",
    "CollectionInfo",
    "Coverage",
    "DeadGroup",
    "DeadHeading",
    "DeadLetter",
    "DeadLetterSummary",
    "Entry",
    "Findings",
    "Flawed",
    "Incoming",
    "Known",
    "Moved",
    "NewSchedule",
    "Plan",
    "Problem",
    "Prunable",
    "Reembedding",
    "Reembeddings",
    "Role",
    "RolledBack",
    "Row",
    "Sampled",
    "Schedule",
    "Schedules",
    "Selection",
    "Snapshot",
    "SnapshotFigures",
    "Standing",
    "Store",
    "Stored",
    "StoredEntry",
    "Switched",
    "Target",
    "Where",
    "Write",
    "checked_item",
    "decide",
    "embed_into",
    "is_whole",
    "query_vectors",
    "steadily",
    "where_given",
]

_HOMES = {
    "AsyncCollection": "embedq_store.collection",
    "Attempt": "embedq_store.schedules",
    "Built": "embedq_store.graph",
    "Candidate": "embedq_store.pruning",
    "ChunkMark": "embedq_store.writes",
    "ClearedPage": "embedq_store.auditing",
    "Collection": "embedq_store.sync",
    "CollectionFigures": "embedq_store.standing",
    "CollectionInfo": "embedq_store.standing",
    "Coverage": "embedq_store.reembedding",
    "DeadGroup": "embedq_store.letters",
    "DeadHeading": "embedq_store.letters",
    "DeadLetter": "embedq_store.letters",
    "DeadLetterSummary": "embedq_store.letters",
    "Entry": "embedq_store.search",
    "Findings": "embedq_store.auditing",
    "Flawed": "embedq_store.auditing",
    "Incoming": "embedq_store.outcomes",
    "Known": "embedq_store.outcomes",
    "Moved": "embedq_store.reembedding",
    "NewSchedule": "embedq_store.schedules",
    "Plan": "embedq_store.outcomes",
    "Problem": "embedq_store.auditing",
    "Reembedding": "embedq_store.reembedding",
    "Reembeddings": "embedq_store.reembeddings",
    "Role": "embedq_store.reembedding",
    "RolledBack": "embedq_store.reembedding",
    "Prunable": "embedq_store.pruning",
    "Row": "embedq_store.writes",
    "Sampled": "embedq_store.auditing",
    "Schedule": "embedq_store.schedules",
    "Schedules": "embedq_store.schedules",
    "Selection": "embedq_store.letters",
    "Snapshot": "embedq_store.snapshot",
    "SnapshotFigures": "embedq_store.snapshot",
    "Standing": "embedq_store.standing",
    "Store": "embedq_store.store",
    "Stored": "embedq_store.outcomes",
    "Switched": "embedq_store.reembedding",
    "StoredEntry": "embedq_store.snapshot",
    "Target": "embedq_store.writes",
    "Where": "embedq_store.filters",
    "Write": "embedq_store.writes",
    "checked_item": "embedq_store.embedding",
    "decide": "embedq_store.outcomes",
    "embed_into": "embedq_store.embedding",
    "is_whole": "embedq_store.steady",
    "query_vectors": "embedq_store.querying",
    "steadily": "embedq_store.steady",
    "where_given": "embedq_store.filters",
}

if not TYPE_CHECKING:  # a type checker would believe that there is any name

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
