"""Names in Redis: every key that embedq or arq uses for it, and the ids of runs and jobs."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from arq.constants import in_progress_key_prefix, job_key_prefix, retry_key_prefix

# SQLite and Redis keep no larger numbers than 2**63 - 1, which has 19 digits.
_NUMBER_DIGITS: Final = 18

# No vowels, no look-alikes: a run id is read aloud and typed.
_ALPHABET: Final = "23456789bcdfghjkmnpqrstvwxz"


def new_run_id(now: datetime | None = None) -> str:
    """A run id that sorts by time: 20261231-235959-x7kq, in UTC."""
    moment = now or datetime.now(UTC)
    return f"{moment:%Y%m%d-%H%M%S}-{''.join(secrets.choice(_ALPHABET) for _ in range(5))}"


def job_id(run: str, number: int) -> str:
    """The id of the job that carries chunk `number` of `run`: submitting a chunk again can't double it."""
    return f"{run}:{number}"


def parse_job_id(job: str) -> tuple[str, int]:
    """The run and the chunk number of a job; chunk -1 for an id that is not one of ours."""
    run, _, number = job.rpartition(":")
    ours = run and number.isascii() and number.isdigit() and len(number) <= _NUMBER_DIGITS
    return (run, int(number)) if ours else (job, -1)


@dataclass(frozen=True, slots=True)
class Names:
    """Keys under one prefix (`EMBEDQ_QUEUE`)."""

    prefix: str

    def queue(self, model_id: str) -> str:
        """Sorted set of the waiting and running jobs of a model: arq's queue."""
        return f"{self.prefix}:{model_id}"

    def load(self, model_id: str) -> str:
        """Hash: job id → 'bytes,items' of each job in the queue of a model, and their totals."""
        return f"{self.prefix}:load:{model_id}"

    @property
    def models(self) -> str:
        """Set of the models that have, or had, a queue."""
        return f"{self.prefix}:models"

    @property
    def collections(self) -> str:
        """Hash: collection → full id of its model."""
        return f"{self.prefix}:collections"

    @property
    def runs(self) -> str:
        """Sorted set: run id → when it started."""
        return f"{self.prefix}:runs"

    def run(self, run: str) -> str:
        """Hash: what is known of a run."""
        return f"{self.prefix}:run:{run}"

    def chunks(self, run: str) -> str:
        """Hash: number of a chunk that is done → its counts."""
        return f"{self.prefix}:run:{run}:chunks"

    def partial(self, run: str) -> str:
        """Hash: number of a chunk that is in hand → how far it has come."""
        return f"{self.prefix}:run:{run}:partial"

    def starts(self, run: str) -> str:
        """Hash: number of a chunk → attempts at it that have begun and not ended."""
        return f"{self.prefix}:run:{run}:starts"

    def done(self, bucket: int) -> str:
        """Counter of the items that were done in a span of `RATE_SECONDS`."""
        return f"{self.prefix}:done:{bucket}"

    def limit(self, model_id: str) -> str:
        """Hash: where the limiter of a model stands, which all workers share."""
        return f"{self.prefix}:limit:{model_id}"

    def turn(self, collection: str) -> str:
        """String: which process may queue for the re-embedding of a collection, or finish it, just now."""
        return f"{self.prefix}:turn:{collection}"

    @property
    def claimants(self) -> str:
        """Hash: worker process that claims contents → how many of its blocks have ended; and `ended`, of them all."""
        return f"{self.prefix}:claimants"

    def claims(self, worker: str) -> str:
        """Hash: block → the contents that a worker process is having embedded."""
        return f"{self.prefix}:claims:{worker}"

    @property
    def paused(self) -> str:
        """Hash: what is paused → since when, and why."""
        return f"{self.prefix}:paused"

    @property
    def drain(self) -> str:
        """Hash: worker that is to end → since when it runs, by its own report."""
        return f"{self.prefix}:drain"

    @property
    def workers(self) -> str:
        """Hash: worker → what it says of itself."""
        return f"{self.prefix}:workers"

    def health(self, worker: str) -> str:
        """Key that arq keeps alive while a worker polls: one for each worker, since any exit deletes it."""
        return f"{self.prefix}:health:{worker}"


def payload_key(job: str) -> str:
    """Arq's key of a job's payload."""
    return f"{job_key_prefix}{job}"


def lease_key(job: str) -> str:
    """Arq's key that says that a worker has a job in hand."""
    return f"{in_progress_key_prefix}{job}"


def tries_key(job: str) -> str:
    """Arq's counter of how often a job was picked up."""
    return f"{retry_key_prefix}{job}"
