"""Every error that embedq raises on purpose, under one root.

EmbedqError
├── UsageError                 the command line or a call asks for something that makes no sense
├── SettingsError              a setting has a value that can't be used
├── SourceError                a corpus can't be read at all
│   └── RowError               one row of it can't be read
├── ModelError
│   ├── UnknownModel
│   ├── NoModel
│   ├── ModelMismatch
│   │   ├── ConfigurationMismatch   the same model, but other prefixes, another revision …
│   │   └── CollectionMoved    it was embedded anew, and the new vectors have taken the place of the old
│   ├── UnsupportedContent     text for a model of bytes, or the reverse
│   ├── KilledWorker           the model ended its process: out of memory, a segmentation fault
│   ├── ModelUnavailable       the model can't be reached for now; the same call may succeed later
│   │   ├── RateLimited        it asks for patience: too many calls
│   │   └── ModelMisconfigured until somebody mends it: a wrong key, an unknown name
│   │       ├── MissingKey     a key that is kept nowhere
│   │       └── MissingLibrary a library that is not installed
│   ├── ContentRefused         the model refuses this content, or something in this batch
│   └── BadVectors             the model returned what can't be stored
│       └── WrongVectorCount
├── StoreError
│   ├── DatabaseMissing
│   ├── DatabaseUnusable       no database, corrupt, a directory, of a newer schema
│   ├── DatabaseReadOnly
│   ├── DatabaseLocked
│   ├── DiskFull
│   ├── CollectionMissing
│   ├── CollectionExists       a name that is taken
│   ├── CollectionBusy         the queue holds work for it
│   ├── ReembeddingMissing     nothing is being embedded anew, or kept from before
│   ├── ContentMissing         contents were not stored, so they can't be embedded anew
│   ├── NotCovered             the new vectors are not complete
│   ├── EntryMissing
│   ├── ScheduleMissing
│   ├── ScheduleExists
│   └── ScheduleGoing
└── QueueError
    ├── RedisUnreachable
    ├── RedisFull
    ├── NoRedisServer
    ├── ChunkUndecodable
    ├── ChunkLost
    ├── RunMissing
    ├── RunCancelled           somebody has cancelled the run: no more of it is taken
    └── WorkerMissing

The docstring of a class is what it means; the message of an instance says what was wrong, where, and what
to do. `exit_code` is what the command line ends with: 1 could not be done, 2 was asked wrongly.
"""

from typing import ClassVar


class EmbedqError(Exception):
    """Something that embedq can explain went wrong."""

    exit_code: ClassVar[int] = 1


class UsageError(EmbedqError, ValueError):
    """The command or the call asks for something that makes no sense."""

    exit_code = 2


class SettingsError(EmbedqError, ValueError):
    """A setting has a value that can't be used."""

    exit_code = 2


class SourceError(EmbedqError):
    """The corpus can't be read."""

    exit_code = 2


class RowError(SourceError):
    """One row of the corpus can't be read; the others can.

    `where` names the row: a file and a line, a file, or the number of a row.
    """

    exit_code = 1

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem


class ModelError(EmbedqError):
    """The embedding model can't do what is asked."""


class UnknownModel(ModelError, KeyError):  # noqa: N818 - reads as a sentence where it is caught
    """No model has this name or alias."""

    exit_code = 2

    # KeyError would print the repr of the message.
    __str__ = Exception.__str__


class NoModel(ModelError, ValueError):  # noqa: N818
    """No model was named and there is no default."""

    exit_code = 2


class ModelMismatch(ModelError, ValueError):  # noqa: N818
    """The collection was embedded with another model."""

    exit_code = 2


class ConfigurationMismatch(ModelMismatch):
    """The collection was embedded with the same model in another configuration."""


class CollectionMoved(ModelMismatch):
    """The collection was embedded anew: what was meant for the old vectors, or for the new ones beside them, is not."""


class UnsupportedContent(ModelError, ValueError):  # noqa: N818
    """The model does not take content of this kind."""


class KilledWorker(ModelError):  # noqa: N818
    """The model ended the process that it ran in."""


class ModelUnavailable(ModelError):  # noqa: N818
    """The model can't be used for now, whatever it is given: the same call may succeed later.

    `seconds` is how long it asks to be left alone, where it says so.
    """

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


class RateLimited(ModelUnavailable):
    """The model asks for patience: it is called more often than it allows."""


class ModelMisconfigured(ModelUnavailable):
    """The model can't be used until somebody mends something: a key, an address, a library, a certificate.

    No item is at fault, so none dies of it: workers keep what is queued, say so, and look again.
    """


class MissingKey(ModelMisconfigured):
    """The model's service wants a key, and none is set."""


class MissingLibrary(ModelMisconfigured, ImportError):  # noqa: N818
    """A library that the model needs is not installed."""


class ContentRefused(ModelError, ValueError):  # noqa: N818
    """The model refuses the content: it is too long, say. Of a batch, some item may be at fault."""


class BadVectors(ModelError, ValueError):  # noqa: N818
    """The model returned vectors that can't be stored."""


class WrongVectorCount(BadVectors):
    """The model returned more or fewer vectors than it was given items, so none can be attributed."""


class StoreError(EmbedqError):
    """The database can't do what is asked."""


class DatabaseMissing(StoreError):  # noqa: N818
    """There is no database file."""


class DatabaseUnusable(StoreError):  # noqa: N818
    """The file can't be used as an embeddings database."""


class DatabaseReadOnly(StoreError):  # noqa: N818
    """The database can't be written to."""


class DatabaseLocked(StoreError):  # noqa: N818
    """Another program holds the database's write lock for too long."""


class DiskFull(StoreError):  # noqa: N818
    """There is no space left for the database."""


class CollectionMissing(StoreError):  # noqa: N818
    """The collection does not exist."""

    exit_code = 2


class CollectionExists(StoreError):  # noqa: N818
    """There is a collection of this name."""

    exit_code = 2


class ReembeddingMissing(StoreError):  # noqa: N818
    """Of this collection nothing is being embedded anew, or nothing is kept from before."""

    exit_code = 2


class CollectionBusy(StoreError):  # noqa: N818
    """The queue holds work for the collection, which would make it anew under its old name."""


class ContentMissing(StoreError):  # noqa: N818
    """The contents of entries were not stored, so they can't be embedded anew."""


class NotCovered(StoreError):  # noqa: N818
    """Entries have no vector of the new model yet, and no dead letter either."""


class EntryMissing(StoreError):  # noqa: N818
    """The collection has no entry with this id."""

    exit_code = 2


class ScheduleMissing(StoreError):  # noqa: N818
    """There is no schedule of this name."""

    exit_code = 2


class ScheduleExists(StoreError):  # noqa: N818
    """There is a schedule of this name already."""

    exit_code = 2


class ScheduleGoing(StoreError):  # noqa: N818
    """The schedule's command is still running, or was begun by another at this moment."""


class QueueError(EmbedqError):
    """The queue can't do what is asked."""


class RedisUnreachable(QueueError):  # noqa: N818
    """Redis does not answer."""


class RedisFull(QueueError):  # noqa: N818
    """Redis has no memory left for more, or no disk."""


class NoRedisServer(QueueError):  # noqa: N818
    """No Redis is configured and none can be started."""


class ChunkUndecodable(QueueError):  # noqa: N818
    """The bytes of a chunk can't be read as one."""


class ChunkLost(QueueError):  # noqa: N818
    """Redis no longer holds a chunk that was queued."""


class RunMissing(QueueError):  # noqa: N818
    """There is no run with this id."""

    exit_code = 2


class RunCancelled(QueueError):  # noqa: N818
    """Somebody has cancelled the run: the queue takes no more of it."""


class WorkerMissing(QueueError):  # noqa: N818
    """No worker of this name has been heard of."""

    exit_code = 2
