"""Chaos at the operator's console: priorities, pauses, cancellations, re-embeddings, rollbacks and drains, all at once,
while workers and Redis are killed. At the end an oracle counts.

PYTHONPATH=tests python -m chaos.console_driver --seed 1 2 3 [--print]

Real worker processes, a real Redis that syncs each write, a real database. The seed fixes which acts come, in which
order, how long after each other and to whom; how far the workers are by then is the system's affair. All the while a
reader looks at the collections. It ends with 0 when every item is accounted for once, no vector is of another model
than its collection, and queues, ledger and Redis hold nothing that is over.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final, TypeVar, cast

from chaos import worker
from chaos.console_oracle import ConsoleEnd, Sent, items_of, judge, see
from chaos.console_plan import Act, ConsolePlan, Step, steps
from chaos.oracle import Failure
from embedq_core.errors import CollectionMissing, ReembeddingMissing, UsageError
from embedq_core.priority import Priority
from embedq_core.settings import Settings, load_settings
from embedq_core.text import plural
from embedq_jobs import Chunk, Patience, Queue, Run, Scope, new_run_id, open_queue
from embedq_jobs.cancelling import Marked
from embedq_jobs.drains import worker_name
from embedq_jobs.forwarding import MOVED_FIELD
from embedq_store import Store
from embedq_worker.reembedding import tell_producers
from embedq_worker.supplying import cancel_supply
from support import forked
from support.command_line import TESTS
from support.console_plugin import MARKS
from support.servers import MortalRedis

LOOK_SECONDS: Final = 0.05
# How long a worker that is told to end may take.
END_SECONDS: Final = 30.0
# Looks in a row that find nothing to do: a worker looks four times a second whether something is to be queued.
QUIET_LOOKS: Final = 10
FIRST, SECOND = MARKS

_T = TypeVar("_T")


class Console:
    """The operator, and all that is operated."""

    def __init__(self, plan: ConsolePlan, folder: Path, settings: Settings, queue: Queue, store: Store) -> None:
        self.events: Counter[str] = Counter()
        self._plan = plan
        self._folder = folder
        self._settings = settings
        self._queue = queue
        self._store = store
        self._workers: dict[int, ForkServerProcess] = {}
        self._ending: dict[int, asyncio.Task[None]] = {}
        self._sending: list[asyncio.Task[Sent]] = []
        self._stalled: list[asyncio.Task[None]] = []
        self._runs: dict[int, tuple[str, str]] = {}
        self._accepted: defaultdict[int, list[Chunk]] = defaultdict(list)
        self._cancelled: set[str] = set()
        self._insist: Callable[[Callable[[], Awaitable[_T]]], Awaitable[_T]] = Patience(30.0, lambda _: None).insist

    async def play(self, redis: MortalRedis) -> ConsoleEnd:
        """Do all that is planned, wait until nothing is left to do, and say what there is then. Raises Failure."""
        try:
            for place in range(self._plan.workers):
                self._start(place)
            for step in steps(self._plan):
                await asyncio.sleep(step.after)
                await self._do(step, redis)
            sent = await asyncio.gather(*self._sending)
            await asyncio.gather(*self._stalled)
            await asyncio.gather(*self._ending.values())
            await self._settle()
            await self._end_workers()
            return await self._seen([each._replace(cancelled=each.run in self._cancelled) for each in sent])
        finally:
            for task in (*self._sending, *self._stalled, *self._ending.values()):
                task.cancel()
            for process in self._workers.values():
                process.kill()
                process.join()

    async def _do(self, step: Step, redis: MortalRedis) -> None:
        self.events[step.act] += 1
        queue = self._queue
        match step.act:
            case Act.SEND:
                self._sending.append(asyncio.create_task(self._send(step)))
            case Act.AGAIN:
                # As producers do when Redis was away: under the model that they knew.
                for chunk in self._accepted[step.number]:
                    await self._insist(partial(queue.place, chunk))
            case Act.CANCEL:
                await self._cancel(step.number)
            case Act.PAUSE:
                await self._insist(lambda: queue.pausing.pause(Scope.of(step.scope)))
            case Act.RESUME:
                await self._resume()
            case Act.REEMBED | Act.END | Act.ROLL_BACK:
                with contextlib.suppress(CollectionMissing, ReembeddingMissing, UsageError):
                    await self._reembed(step)
                    self.events[f"{step.act}, done"] += 1
            case Act.KILL | Act.TERM | Act.DRAIN | Act.STALL:
                await self._disturb(step)
            case Act.REDIS_KILL:
                await asyncio.to_thread(redis.kill)
                await asyncio.to_thread(redis.start)

    # --- runs

    async def _send(self, step: Step) -> Sent:
        """Send as a producer does: in an order of its own beside whatever else goes on."""
        queue, collection = self._queue, step.collection
        model_id = await self._insist(lambda: queue.collection_model(collection))
        if model_id is None:
            info = await self._store.find_collection(collection)
            model_id = FIRST if info is None else info.model_id
            await self._insist(lambda: queue.set_collection_model(collection, model_id))
        priority = Priority.HIGH if step.high else Priority.NORMAL
        run = Run(new_run_id(), collection, model_id, f"submission {step.number}", time.time(), priority)
        await self._insist(lambda: queue.runs.open(run))
        self._runs[step.number] = (run.id, model_id)
        accepted = self._accepted[step.number]
        for number, twice in enumerate(step.twice):
            chunk = Chunk(
                run.id, number, collection, model_id, store=True, after=[], items=items_of(step.number, number)
            )
            place = partial(queue.place, chunk)
            if (await self._insist(place)).cancelled:
                break
            accepted.append(chunk)
            if twice:
                await self._insist(place)
            await asyncio.sleep(self._plan.call_seconds)
        await self._insist(lambda: queue.runs.close(run.id, len(accepted), skipped=0, duplicates=0))
        return Sent(step.number, run.id, collection, len(accepted), cancelled=False)

    async def _cancel(self, number: int) -> None:
        if number in self._runs:
            run, model_id = self._runs[number]
            marked, _ = await self._insist(lambda: self._queue.cancelling.cancel(run, model_id))
            if marked is not Marked.over:
                self._cancelled.add(run)

    async def _resume(self) -> None:
        queue = self._queue
        scopes = [pause.scope for pause in await self._insist(queue.pauses)]
        models = await self._insist(queue.model_ids)
        await self._insist(lambda: queue.pausing.resume(scopes, models))

    # --- models

    async def _reembed(self, step: Step) -> None:
        """What the commands do. Raises UsageError and its like where it makes no sense just now."""
        name, every = step.collection, self._store.reembeddings
        match step.act:
            case Act.REEMBED:
                going_on = next((each for each in await every.open() if each.collection == name), None)
                present = await self._store.collection(name)
                other = SECOND if present.model_id == FIRST else FIRST
                await every.begin(name, other if going_on is None else going_on.new_model)
            case Act.END:
                ended = await every.cancel(name)
                await self._insist(lambda: cancel_supply(self._queue, ended))
            case _:
                done = await every.rollback(name)
                await self._insist(lambda: tell_producers(self._queue, name, done.reembedding.old_model))

    # --- workers

    def _start(self, place: int) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("EMBEDQ_")},
            "EMBEDQ_DATABASE": str(self._settings.database),
            "EMBEDQ_REDIS_URL": str.__str__(self._settings.redis_url),
            "EMBEDQ_PLUGINS": str(TESTS / "support" / "console_plugin.py"),
            "EMBEDQ_CHAOS_SECONDS": str(self._plan.call_seconds),
            "EMBEDQ_LOG_LEVEL": "warning",
            "XDG_CONFIG_HOME": str(self._folder),
        }
        log = str(self._folder / "workers.log")
        self._workers[place] = forked.call(worker.work, environment, self._plan.lease_seconds, log)

    async def _disturb(self, step: Step) -> None:
        place, process = step.number, self._workers[step.number]
        if step.act is Act.STALL:
            self._stalled.append(asyncio.create_task(self._stall(process)))
            return
        if step.act is Act.KILL:
            process.kill()
        elif place not in self._ending:
            if step.act is Act.TERM:
                process.terminate()
            else:
                await self._drain(process)
        if place not in self._ending:
            self._ending[place] = asyncio.create_task(self._replace(place, process))

    async def _stall(self, process: ForkServerProcess) -> None:
        """Let it stand still for longer than its leases; it does not know that."""
        assert process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGSTOP)
            await asyncio.sleep(self._plan.lease_seconds * self._plan.stall_leases)
            os.kill(process.pid, signal.SIGCONT)

    async def _drain(self, process: ForkServerProcess) -> None:
        """Tell it, when it has said that it is there."""
        until = time.monotonic() + END_SECONDS
        while True:
            reports = [
                report
                for report in await self._insist(self._queue.live_workers)
                if worker_name(report).endswith(f":{process.pid}")
            ]
            if reports:
                await self._insist(partial(self._queue.drains.order, reports))
                return
            if time.monotonic() > until or not process.is_alive():
                raise Failure(f"a worker has said nothing in {END_SECONDS:.0f} s, or ended with {process.exitcode}")
            await asyncio.sleep(LOOK_SECONDS)

    async def _replace(self, place: int, process: ForkServerProcess) -> None:
        """Wait until a worker has ended, and put another in its place."""
        await _ended(process)
        del self._ending[place]
        self._start(place)

    async def _end_workers(self) -> None:
        for process in self._workers.values():
            if not process.is_alive():
                raise Failure(f"a worker ended by itself with {process.exitcode}")
            process.terminate()
        for process in self._workers.values():
            await _ended(process)

    # --- the end

    async def _settle(self) -> None:
        """Let go on what is paused, and wait until nothing is to be done; the oracle says what else there is."""
        await self._resume()
        until, quiet = time.monotonic() + self._plan.settle_seconds, 0
        while quiet < QUIET_LOOKS and time.monotonic() < until:
            quiet = quiet + 1 if await self._quiet() else 0
            await asyncio.sleep(LOOK_SECONDS)

    async def _quiet(self) -> bool:
        if any(load.jobs for load in await self._queue.loads()) or await self._queue.redis.keys("arq:in-progress:*"):
            return False
        for each in (await self._store.reembeddings.current()).values():
            if each.state == "embedding":
                return False
            if each.state == "rolled back" and (await self._store.reembeddings.owed(each))[0]:
                return False
        return True

    async def _seen(self, sent: list[Sent]) -> ConsoleEnd:
        queue = self._queue
        keys = [key for pattern in ("arq:*", queue.names.partial("*")) for key in await queue.redis.keys(pattern)]
        # Of a chunk whose worker was killed as it ended, the count of attempts stays for a month, and says nothing.
        keys += [key for key in await queue.redis.keys(queue.names.starts("*")) if await queue.redis.ttl(key) < 0]
        runs = await queue.runs.latest(10_000)
        for each in runs:
            fields = await cast("Awaitable[list[bytes]]", queue.redis.hkeys(queue.names.run(each.run.id)))
            self.events["chunk handed on"] += sum(field.startswith(MOVED_FIELD.encode()) for field in fields)
        return ConsoleEnd(
            sent,
            runs,
            await queue.loads(),
            [key.decode() for key in keys],
            await self._store.reembeddings.all(),
            self._settings.database,
        )

    async def read_forever(self) -> None:
        """Look again and again as readers do."""
        seen: set[str] = set()
        while True:
            await asyncio.to_thread(see, self._settings.database, seen)
            await asyncio.sleep(LOOK_SECONDS)

    def bugs(self) -> int:
        """Lines of the workers' log in which embedq itself went wrong."""
        lines = (self._folder / "workers.log").read_text().splitlines()
        return sum("in embedq itself" in line or line.startswith("Traceback") for line in lines)

    def told(self) -> str:
        """What happened, in words."""
        return ", ".join(f"{count} x {name}" for name, count in sorted(self.events.items()))


async def _ended(process: ForkServerProcess) -> None:
    until = time.monotonic() + END_SECONDS
    while process.is_alive():
        if time.monotonic() > until:
            raise Failure(f"a worker did not end within {END_SECONDS:.0f} s")
        await asyncio.sleep(0.01)
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL, -signal.SIGTERM):
        raise Failure(f"a worker ended with {process.exitcode}")


@asynccontextmanager
async def _opened(plan: ConsolePlan, folder: Path, redis: MortalRedis) -> AsyncIterator[Console]:
    settings = load_settings(database=folder / "embeddings.db", redis_url=redis.url)
    async with open_queue(settings) as queue, await Store.open(settings.database) as store:
        yield Console(plan, folder, settings, queue, store)


async def run(plan: ConsolePlan) -> tuple[str, Counter[str]]:
    """Play `plan` and judge it; the verdict, and what happened. Raises Failure, and keeps logs and database."""
    # A short path, since a socket lies in it.
    folder = Path(tempfile.mkdtemp(prefix="embedq-console-"))
    redis = MortalRedis(folder)
    told, began = "nothing", time.monotonic()
    try:
        async with _opened(plan, folder, redis) as console:
            reading = asyncio.create_task(console.read_forever())
            playing = asyncio.create_task(console.play(redis))
            try:
                await asyncio.wait([reading, playing], return_when=asyncio.FIRST_COMPLETED)
                told = console.told()
                if reading.done():
                    await reading
                verdict = judge(await playing)
                told = console.told()
                if console.bugs():
                    raise Failure(f"the log tells of {plural(console.bugs(), 'bug')}")
            finally:
                for task in (reading, playing):
                    task.cancel()
                await asyncio.gather(reading, playing, return_exceptions=True)
    except Failure as failure:
        raise Failure(f"{failure} ({told}); log and database are in {folder}") from failure
    finally:
        redis.kill()
    shutil.rmtree(folder)
    return f"{verdict}, in {time.monotonic() - began:.0f} s with {told}", console.events


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", type=int, default=ConsolePlan(0).steps)
    parser.add_argument("--print", action="store_true", help="print what would be done, and do nothing")
    arguments = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("EMBEDQ_")]:
        del os.environ[name]
    failed = 0
    for seed in arguments.seed:
        plan = ConsolePlan(seed, arguments.steps)
        if arguments.print:
            print(f"seed {seed}", *steps(plan), sep="\n")
            continue
        try:
            verdict, _ = asyncio.run(run(plan))
        except Failure as failure:
            failed += 1
            verdict = f"FAILED: {failure}"
        print(f"seed {seed}: {verdict}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
