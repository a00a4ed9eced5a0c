"""The pure parts together, under workers that crash, stall, stop and retry at any step: the truth comes out.

Around the parts there is as little as possible: a store and a ledger that are dictionaries, a queue that is a list,
and workers that do one step at a time, in the order of `embedq_worker.pipeline`.
"""

import dataclasses
from collections import Counter, deque
from dataclasses import dataclass, field

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from embedq_core.counts import Counts
from embedq_core.digests import content_hash
from embedq_core.items import Item
from embedq_jobs.summaries import RunSummary, summary_of
from embedq_producer.chunks import Cut, cut
from embedq_store import Incoming, Known, Plan, decide
from embedq_store.outcomes import Stored
from embedq_worker.batcher import MAX_LINGER_SECONDS, Batcher, Request, Slice
from embedq_worker.failures import Bisect, Bury, GiveBack, TryAgain, after_failure
from embedq_worker.outbox import nowhere_negative
from embedq_worker.runner import _halves

# Few of each, so that ids come again with other contents and contents under other ids.
ids = st.sampled_from("abc")
contents = st.sampled_from(["one", "two", "three", "four", "five", "poison", "poison too"])
corpora = st.lists(
    st.builds(Item, ids, contents, st.none() | st.sampled_from(['{"n": 1}', '{"n": 2}'])), min_size=6, max_size=16
)


def poisoned(content: str | bytes) -> bool:
    return "poison" in str(content)


class Busy(Exception):  # noqa: N818 - as services call it
    status_code = 429


@dataclass
class Row:
    content: str | bytes
    metadata: str | None
    vector: bytes


@dataclass
class Database:
    """What is committed. A write of a chunk that is finished changes nothing, as in `embedq_store.writer`."""

    rows: dict[str, Row] = field(default_factory=dict)
    dead: set[tuple[int, str]] = field(default_factory=set)
    marks: dict[int, tuple[Counts, bool]] = field(default_factory=dict)

    def known(self, incoming: list[Incoming]) -> Known:
        by_id = {
            entry.item.id: Stored(content_hash(row.content), row.metadata, has_content=True)
            for entry in incoming
            if (row := self.rows.get(entry.item.id)) is not None
        }
        return Known(by_id, {content_hash(row.content): row.vector for row in self.rows.values()})

    def write(self, job: "Job", *, finished: bool) -> None:
        chunk = job.cut.number
        if not self.marks.get(chunk, (None, False))[1]:
            for incoming, vector in job.rows:
                self.rows[incoming.item.id] = Row(incoming.item.content, incoming.item.metadata, vector)
            for item, digest in job.updates:
                row = self.rows.get(item.id)
                if row is not None and content_hash(row.content) == digest:
                    row.metadata = item.metadata or row.metadata
            self.dead |= {(chunk, item.id) for item in job.dead}
            self.marks[chunk] = (nowhere_negative(job.before + job.counts), finished)
        job.before, job.counts = self.marks[chunk][0], Counts()
        job.rows, job.updates, job.dead = [], [], []


@dataclass
class Ledger:
    """What `embedq_jobs.runs` keeps in Redis, and how its scripts change it; the summary is its own."""

    items: int = 0
    cuts: int = 0
    chunks: dict[int, bytes] = field(default_factory=dict)
    partial: dict[int, bytes] = field(default_factory=dict)

    def progress(self, number: int, counts: Counts) -> None:
        if number not in self.chunks:
            self.partial[number] = b"%d:" % counts.done + msgspec.json.encode(counts)

    def record(self, number: int, counts: Counts) -> None:
        if number not in self.chunks:
            self.partial.pop(number, None)
        self.chunks[number] = msgspec.json.encode(counts)

    def summary(self) -> RunSummary:
        fields = {"collection": "c", "model": "m", "source": "s", "started": "0", "closed": str(self.cuts)}
        fields |= {"items": str(self.items), "chunks": str(self.cuts)}
        return summary_of("run", fields, list(self.chunks.values()), list(self.partial.values()))


@dataclass
class Job:
    """A chunk in hand."""

    cut: Cut
    incoming: list[Incoming]
    plan: Plan
    request: Request
    before: Counts
    counts: Counts = field(default_factory=Counts)
    rows: list[tuple[Incoming, bytes]] = field(default_factory=list)
    updates: list[Incoming] = field(default_factory=list)
    dead: list[Item] = field(default_factory=list)
    answered: Counter[int] = field(default_factory=Counter)
    committed: bool = False

    @property
    def done(self) -> bool:
        return len(self.answered) == len(self.request.contents)


@dataclass
class Call:
    """A batch on its way through the model."""

    batch: list[Slice]
    attempt: int = 1

    @property
    def contents(self) -> list[str | bytes]:
        return [content for piece in self.batch for content in piece.contents]


class Worker:
    """One process: all that it holds is gone when it crashes."""

    def __init__(self, batch_size: int | None) -> None:
        self.batch_size = batch_size
        self.batcher = Batcher(batch_size)
        self.jobs: dict[int, Job] = {}
        self.calls: list[Call] = []

    def drop(self, number: int) -> None:
        job = self.jobs.pop(number)
        self.batcher.remove(job.request)


class Workers(RuleBasedStateMachine):
    @initialize(
        corpus=corpora,
        max_items=st.integers(1, 3),
        batch_sizes=st.tuples(*[st.none() | st.integers(1, 5)] * 2),
    )
    def submit(self, corpus: list[Item], max_items: int, batch_sizes: tuple[int | None, int | None]) -> None:
        self.cuts = list(cut(corpus, max_items=max_items, max_bytes=10_000))
        self.database = Database()
        self.ledger = Ledger(sum(len(each.items) for each in self.cuts), len(self.cuts))
        self.queue = deque(self.cuts)
        self.leased: dict[int, Worker] = {}
        self.workers = [Worker(size) for size in batch_sizes]
        self.now = 0.0

    # --- what workers do

    @rule(place=st.integers(0, 1))
    def take(self, place: int) -> None:
        """Take a chunk that is free, and of which all that it waits for is done."""
        worker = self.workers[place]
        for number, each in enumerate(self.queue):
            ready = all(earlier in self.ledger.chunks for earlier in each.after)
            if each.number not in self.leased and each.number not in worker.jobs and ready:
                self.leased[each.number] = worker
                self.begin(worker, self.queue[number])
                return

    def begin(self, worker: Worker, each: Cut) -> None:
        before, finished = self.database.marks.get(each.number, (Counts(), False))
        if finished:
            self.record(each.number, before)
            return
        # Another may have written its own counts over those that told of them.
        dead = {identifier for number, identifier in self.database.dead if number == each.number}
        before = msgspec.structs.replace(before, failed=len(dead))
        incoming = [entry for entry in Incoming.of(each.items) if entry.item.id not in dead]
        again = before.done - len(dead)
        plan = decide(incoming, self.database.known(incoming), store=True)
        wanted = [incoming[group[0]].item.content for group in plan.inputs.values()]
        # In one run chunks are alike; here every other one is high, so that both queues of the batcher are used.
        job = Job(each, incoming, plan, Request(wanted, high=each.number % 2 == 1), before)
        job.rows = [(incoming[index], vector) for index, vector in plan.reused]
        job.updates = [incoming[index] for index in plan.updates]
        job.counts = Counts(unchanged=len(plan.unchanged) - again, reused=len(plan.reused))
        worker.jobs[each.number] = job
        worker.batcher.add(job.request, self.now)
        self.settle(worker)

    @rule(place=st.integers(0, 1), fault=st.sampled_from([None, None, None, ConnectionError("gone"), Busy("later")]))
    def call(self, place: int, fault: Exception | None) -> None:
        """The model is called once: what was cut off an earlier batch first, else the next batch."""
        worker = self.workers[place]
        self.now += MAX_LINGER_SECONDS
        if not worker.calls:
            batch = worker.batcher.next_batch(self.now)
            if not batch:
                return
            worker.calls.append(Call(batch))
            assert len(worker.calls[-1].contents) <= (worker.batch_size or 1000)
        call = worker.calls.pop()
        size = len(call.contents)
        error = fault or (ValueError("poison") if any(map(poisoned, call.contents)) else None)
        if error is None:
            self.hand_out(worker, call, fine=True)
            return
        match after_failure(error, size, call.attempt, jitter=0.5):
            case TryAgain(seconds):
                assert fault is not None
                self.now += seconds
                worker.calls.append(dataclasses.replace(call, attempt=call.attempt + 1))
            case GiveBack(_):
                assert fault is not None
                for number in [number for number, job in worker.jobs.items() if self.takes_part(call, job)]:
                    self.hand_back(worker, number)
            case Bisect():
                assert fault is None
                worker.calls.extend(Call(half) for half in reversed(_halves(call.batch)))
            case Bury():
                assert fault is None, "a lost connection costs an item nothing"
                assert size == 1, "the good ones of a batch don't die with it"
                self.hand_out(worker, call, fine=False)
        self.settle(worker)

    def takes_part(self, call: Call, job: Job) -> bool:
        return any(piece.request is job.request for piece in call.batch)

    def hand_out(self, worker: Worker, call: Call, *, fine: bool) -> None:
        for piece in call.batch:
            for job in [job for job in worker.jobs.values() if job.request is piece.request]:
                groups = list(job.plan.inputs.values())
                for index in range(piece.start, piece.stop):
                    job.answered[index] += 1
                    assert job.answered[index] == 1, "a content was embedded twice for one request"
                    group = [job.incoming[each] for each in groups[index]]
                    assert {entry.item.content for entry in group} == {job.request.contents[index]}
                    if fine:
                        vector = b"vector of " + group[0].digest
                        job.rows.extend((entry, vector) for entry in group)
                        job.counts += Counts(embedded=1, reused=len(group) - 1, inputs=1)
                    else:
                        job.dead.extend(entry.item for entry in group)
                        job.counts += Counts(failed=len(group), inputs=1)
        self.settle(worker)

    def settle(self, worker: Worker) -> None:
        """Commit chunks of which everything is answered. The ledger hears of it in a step of its own."""
        for job in worker.jobs.values():
            if job.done and not job.committed:
                self.database.write(job, finished=True)
                job.committed = True

    @rule(place=st.integers(0, 1))
    def tell(self, place: int) -> None:
        """Enter what is finished in the ledger, and take it off the queue."""
        worker = self.workers[place]
        for number, job in list(worker.jobs.items()):
            if job.done:
                counts, finished = self.database.marks[number]
                assert finished
                del worker.jobs[number]
                self.record(number, counts)

    def record(self, number: int, counts: Counts) -> None:
        self.ledger.record(number, counts)
        self.leased.pop(number, None)
        self.queue = deque(each for each in self.queue if each.number != number)

    @rule(place=st.integers(0, 1))
    def flush(self, place: int) -> None:
        """What has come so far is committed, and said."""
        for number, job in self.workers[place].jobs.items():
            if not job.done:
                self.database.write(job, finished=False)
                self.ledger.progress(number, self.database.marks[number][0])

    @rule(place=st.integers(0, 1), steps=st.integers(1, 12))
    def work(self, place: int, steps: int) -> None:
        """A while without any fault."""
        for _ in range(steps):
            self.take(place)
            self.call(place, None)
            self.tell(place)

    # --- what happens to them

    @rule(place=st.integers(0, 1))
    def crash(self, place: int) -> None:
        """Killed: nothing is committed, leases run out."""
        gone = self.workers[place]
        self.leased = {number: worker for number, worker in self.leased.items() if worker is not gone}
        self.workers[place] = Worker(gone.batch_size)

    @rule(place=st.integers(0, 1), steps=st.integers(0, 12))
    def stall(self, place: int, steps: int) -> None:
        """Asleep for longer than its leases: the other may take its chunks, and it goes on with them all the same."""
        asleep = self.workers[place]
        self.leased = {number: worker for number, worker in self.leased.items() if worker is not asleep}
        self.work(1 - place, steps)

    @rule(place=st.integers(0, 1))
    def stop(self, place: int) -> None:
        """SIGTERM: what has come so far is committed, the rest handed back."""
        worker = self.workers[place]
        assert all(request in [job.request for job in worker.jobs.values()] for request in worker.batcher.clear())
        for number in list(worker.jobs):
            self.hand_back(worker, number)
        self.workers[place] = Worker(worker.batch_size)

    def hand_back(self, worker: Worker, number: int) -> None:
        job = worker.jobs[number]
        if not job.done:
            self.database.write(job, finished=False)
            self.ledger.progress(number, self.database.marks[number][0])
        worker.drop(number)
        if self.leased.get(number) is worker:
            del self.leased[number]

    # --- what holds

    @invariant()
    def every_vector_belongs_to_its_content(self) -> None:
        for row in self.database.rows.values():
            assert row.vector == b"vector of " + content_hash(row.content)

    @invariant()
    def poison_is_never_stored_and_nothing_else_is_dead(self) -> None:
        assert not any(poisoned(row.content) for row in self.database.rows.values())
        sent = {(each.number, item.id): item.content for each in self.cuts for item in each.items}
        assert all(poisoned(sent[key]) for key in self.database.dead)

    @invariant()
    def no_chunk_is_forgotten(self) -> None:
        assert {each.number for each in self.queue} | set(self.ledger.chunks) == {each.number for each in self.cuts}

    @invariant()
    def the_ledger_never_says_more_than_there_is(self) -> None:
        summary = self.ledger.summary()
        assert summary.counts.done <= summary.items
        assert summary.complete == (not self.queue)
        assert min(msgspec.structs.astuple(summary.counts)) >= 0

    def teardown(self) -> None:
        """With one worker and no more faults, all comes to its end, and it is the truth."""
        if not hasattr(self, "queue"):
            return
        for place in (0, 1):
            self.crash(place)
        for _ in range(100):
            self.work(0, 10)
        assert not self.queue, "it does not come to an end"
        sent = [(each.number, item) for each in self.cuts for item in each.items]
        assert self.database.dead == {(number, item.id) for number, item in sent if poisoned(item.content)}
        last = {item.id: item for _, item in sent if not poisoned(item.content)}
        assert {key: row.content for key, row in self.database.rows.items()} == {
            key: item.content for key, item in last.items()
        }
        for key, item in last.items():
            assert item.metadata is None or self.database.rows[key].metadata == item.metadata
        for each in self.cuts:
            counts = msgspec.json.decode(self.ledger.chunks[each.number], type=Counts)
            assert counts.done == len(each.items)
            assert counts.failed == sum(poisoned(item.content) for item in each.items)
        assert self.ledger.summary().complete


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
