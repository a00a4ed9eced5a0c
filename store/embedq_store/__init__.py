"""The store: SQLite schema, collections, group-commit writer, deduplication, search.

No SQLite type, connection or SQL leaves this room.
"""

from embedq_store.collection import AsyncCollection
from embedq_store.deadletters import DeadGroup, DeadHeading, DeadLetter, DeadLetterSummary, Selection
from embedq_store.embedding import checked_item, embed_into
from embedq_store.filters import Where, where_given
from embedq_store.graph import Built
from embedq_store.outcomes import Incoming, Known, Plan, Stored, decide
from embedq_store.querying import query_vectors
from embedq_store.search import Entry
from embedq_store.store import CollectionFigures, CollectionInfo, Standing, Store
from embedq_store.sync import Collection
from embedq_store.writer import ChunkMark, Row, Target, Write

__all__ = [
    "AsyncCollection",
    "Built",
    "ChunkMark",
    "Collection",
    "CollectionFigures",
    "CollectionInfo",
    "DeadGroup",
    "DeadHeading",
    "DeadLetter",
    "DeadLetterSummary",
    "Entry",
    "Incoming",
    "Known",
    "Plan",
    "Row",
    "Selection",
    "Standing",
    "Store",
    "Stored",
    "Target",
    "Where",
    "Write",
    "checked_item",
    "decide",
    "embed_into",
    "query_vectors",
    "where_given",
]
