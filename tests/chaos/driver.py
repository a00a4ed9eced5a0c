"""Chaos: workers and producers are killed, Redis is restarted, items are poisoned, and at the end an oracle counts.

PYTHONPATH=tests python -m chaos.driver --seed 1 2 3

Real processes, a real Redis with an append-only file, a real database. Every 250 ms a die is cast from the seed:
worker kill -9 8 %, SIGTERM 5 %, Redis restart 2 % (half of them kill -9). Of the items 2 % are poisoned, of the
calls of one model 5 % lose their connection, of the producers 15 % are killed, and their files are sent again. The
seed fixes the corpus, the casts, who is hit and which calls fail; what a process was doing then is the system's affair.
It ends with 0 when nothing was lost or doubled and no chunk of a killed worker waited longer than 20 s.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final

import redis

from chaos.oracle import Failure, Report, judge
from chaos.plan import CAST_SECONDS, COLLECTIONS, Fault, Part, Plan, casts, corpus, ends_of_producers
from chaos.recovery import Recovery
from chaos.worker import worker as short_worker
from embedq_core.text import plural
from embedq_jobs.embedded import find_server
from embedq_jobs.names import Names, lease_key
from support import forked
from support.command_line import TESTS, python_path

LOOK_SECONDS: Final = 0.1
# What a pipe takes though nobody reads it yet.
PIPE_BYTES: Final = 60_000
SENT_AGAIN: Final = "producer sent again"
NAMES: Final = Names("embedq")


@dataclass
class Tally:
    """What happened on the way."""

    events: Counter[str] = field(default_factory=Counter)
    recovery: Recovery = field(default_factory=Recovery)
    seconds: float = 0.0


@dataclass
class _Producer:
    process: "subprocess.Popen[bytes]"
    part: Part
    dies: float | None


class Theatre:
    """Redis, workers and producers as processes, and the die that ends them."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.parts = corpus(plan)
        self.database = folder / "embeddings.db"
        self.tally = Tally()
        self._socket = folder / "redis.sock"
        self._casts = casts(plan)
        self._ends = ends_of_producers(plan)
        self._redis: subprocess.Popen[bytes] | None = None
        self._workers: dict[int, ForkServerProcess] = {}
        self._lives = [0] * plan.workers
        self._producers: list[_Producer] = []
        self._waiting = list(self.parts)
        self._runs: dict[str, Part] = {}
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("EMBEDQ_")},
            "EMBEDQ_REDIS_URL": f"unix://{self._socket}",
            "EMBEDQ_DATABASE": str(self.database),
            "EMBEDQ_PLUGINS": str(TESTS / "support" / "chaos_plugin.py"),
            "XDG_CONFIG_HOME": str(folder),
            "EMBEDQ_CHUNK_ITEMS": str(plan.chunk_items),
            "EMBEDQ_CHAOS_TRANSIENT": str(plan.transient),
            "EMBEDQ_CHAOS_SECONDS": str(plan.call_seconds),
            "EMBEDQ_LOG_LEVEL": "warning",
            "PYTHONPATH": python_path(),
        }

    # --- the play

    def play(self) -> None:
        """Send everything while the die is cast, then wait until all of it is done. Raises Failure."""
        for part in self.parts:
            self._path(part).write_text("".join(json.dumps(row) + "\n" for row in part.rows))
        began = time.monotonic()
        self._start_redis()
        try:
            self._play(began)
            self.tally.seconds = time.monotonic() - began
            self._calm_down()
        finally:
            for worker in self._workers.values():
                worker.kill()
                worker.join()
            for producer in self._producers:
                producer.process.kill()
                producer.process.communicate()
            self._end_redis(signal.SIGKILL)

    def _play(self, began: float) -> None:
        next_cast: float | None = None
        next_look = began
        played = 0
        while True:
            now = time.monotonic()
            if now - began > self.plan.max_seconds:
                raise Failure(f"not done after {self.plan.max_seconds:.0f} s")
            self._mind_workers()
            self._mind_producers()
            if now >= next_look:
                next_look = now + LOOK_SECONDS
                leases, queued = self._look()
                # The play begins when there is something to disturb.
                if next_cast is None and leases:
                    next_cast = now
                enough = not self.plan.each_once or played > 3 * len(Fault)
                if enough and not self._waiting and not self._producers and not queued:
                    return
            if next_cast is not None and now >= next_cast:
                next_cast = max(next_cast + CAST_SECONDS, now)
                played += 1
                self._cast()
            time.sleep(0.02)

    def _cast(self) -> None:
        """Cast the die once."""
        fault, victim = next(self._casts)
        if fault is None:
            return
        self.tally.events[fault] += 1
        match fault:
            case Fault.WORKER_KILL:
                self._workers[victim].kill()
                self._workers[victim].join()
                leases, _ = self._look()
                self.tally.recovery.killed(time.monotonic(), leases)
            case Fault.WORKER_TERM:
                self._workers[victim].terminate()
            case Fault.REDIS_KILL | Fault.REDIS_TERM:
                self._end_redis(signal.SIGKILL if fault is Fault.REDIS_KILL else signal.SIGTERM)
                self._start_redis()

    def _look(self) -> tuple[dict[str, float], set[str]]:
        """The jobs in hand, each with the seconds that its lease still is; and all that are not done."""
        with self._client() as client:
            models = [each.decode() for each in client.smembers(NAMES.models)]
            queued = {job.decode() for model in models for job in client.zrange(NAMES.queue(model), 0, -1)}
            pipe = client.pipeline(transaction=False)
            for job in queued:
                pipe.pttl(lease_key(job))
            left = dict(zip(queued, pipe.execute(), strict=True))
        leases = {job: milliseconds / 1000 for job, milliseconds in left.items() if milliseconds > 0}
        self.tally.recovery.look(time.monotonic(), leases, queued)
        return leases, queued

    # --- workers

    def _mind_workers(self) -> None:
        """Put a worker in each place that has none."""
        for place in range(self.plan.workers):
            worker = self._workers.get(place)
            if worker is not None:
                if worker.exitcode is None:
                    continue
                if worker.exitcode not in (0, -signal.SIGKILL, -signal.SIGTERM):
                    raise Failure(f"a worker ended with {worker.exitcode}")
            self._lives[place] += 1
            lease = self.plan.lease_seconds
            program, arguments = (forked.embedq, ["worker"]) if lease is None else (short_worker, [str(lease)])
            seed = {"EMBEDQ_CHAOS_SEED": f"{self.plan.seed} {place} {self._lives[place]}"}
            self._workers[place] = self._start(program, arguments, "workers.log", "workers.log", seed)

    def _calm_down(self) -> None:
        """Let workers end as they like to."""
        for worker in self._workers.values():
            worker.terminate()
        for worker in self._workers.values():
            worker.join(60)
            if worker.exitcode not in (0, -signal.SIGTERM):
                raise Failure(f"a worker ended with {worker.exitcode}")

    # --- producers

    def _path(self, part: Part) -> Path:
        return self.folder / f"{part.collection}-{part.number}.jsonl"

    def _mind_producers(self) -> None:
        """Start those that may, end those that must, and send again what was not sent to its end."""
        for producer in list(self._producers):
            if producer.dies is not None and time.monotonic() > producer.dies:
                producer.process.kill()
                producer.process.wait()
            if producer.process.poll() is None:
                continue
            self._producers.remove(producer)
            out, _ = producer.process.communicate()
            if producer.process.returncode == 0:
                self._runs[json.loads(out)["run"]] = producer.part
            else:
                self.tally.events[SENT_AGAIN] += 1
                self._waiting.append(producer.part)
        while self._waiting and len(self._producers) < self.plan.producers:
            self._start_producer(self._waiting.pop(0), next(self._ends))

    def _start_producer(self, part: Part, seconds: float | None) -> None:
        """Send a part. One that is to be killed after `seconds` gets half of it, and waits for the rest until then."""
        source = "-" if seconds is not None else self._path(part)
        command = [sys.executable, "-m", "embedq", "submit", part.collection, str(source), "--json"]
        with (self.folder / "producers.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "-m", COLLECTIONS[part.collection], "--format", "nl"],
                env=self._environment,
                stdin=subprocess.DEVNULL if seconds is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        if process.stdin is not None:
            half = self._path(part).read_bytes()[:PIPE_BYTES].splitlines(keepends=True)
            process.stdin.write(b"".join(half[: len(part.rows) // 2]))
            process.stdin.flush()
        dies = None if seconds is None else time.monotonic() + seconds
        self._producers.append(_Producer(process, part, dies))

    # --- Redis

    def _client(self) -> Any:
        return closing(redis.Redis(unix_socket_path=str(self._socket)))

    def _start_redis(self) -> None:
        command = [find_server(), "--port", "0", "--unixsocket", str(self._socket), "--dir", str(self.folder)]
        command += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        command += ["--maxmemory-policy", "noeviction"]
        with (self.folder / "redis.log").open("ab") as log:
            self._redis = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            try:
                with self._client() as client:
                    client.ping()
                    return
            except (redis.exceptions.RedisError, OSError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _end_redis(self, number: signal.Signals) -> None:
        if self._redis is not None:
            self._redis.send_signal(number)
            self._redis.wait(30)
            self._redis = None

    # --- the end

    def report(self) -> Report:
        """What the commands say when all is done."""
        self._start_redis()
        try:
            listed = self._asked("runs", "list", "-n", "1000")
            shown = {run: self._asked("runs", "show", run) for run in self._runs}
            status = self._asked("status")
            return Report(self._runs, shown, listed, status, self.tally.events[SENT_AGAIN])
        finally:
            self._end_redis(signal.SIGTERM)

    def _asked(self, *arguments: str) -> Any:
        (self.folder / "answer").unlink(missing_ok=True)
        asking = self._start(forked.embedq, [*arguments, "--json"], "answer", "asking.log", {})
        asking.join(60)
        if asking.exitcode != 0:
            raise Failure(f"{' '.join(arguments)} ended with {asking.exitcode}")
        return json.loads((self.folder / "answer").read_bytes())

    def _start(
        self, program: forked.Program, arguments: list[str], out: str, err: str, more: dict[str, str]
    ) -> ForkServerProcess:
        streams = (Path(os.devnull), self.folder / out, self.folder / err)
        return forked.start(program, arguments, Path.cwd(), self._environment | more, streams)

    def bugs(self) -> list[str]:
        """Lines of the logs in which embedq itself went wrong."""
        return [
            line
            for name in ("workers.log", "producers.log")
            for line in (self.folder / name).read_text().splitlines()
            if "in embedq itself" in line or line.startswith("Traceback")
        ]

    def events(self) -> str:
        """What happened, in words."""
        words = ", ".join(f"{self.tally.events[name]} x {name}" for name in [*Fault, SENT_AGAIN])
        recovery = self.tally.recovery
        taken = plural(recovery.taken_over, "chunk") + " taken over"
        return f"{words}; {taken}, longest recovery {recovery.longest:.1f} s"


def run(plan: Plan, *, keep: bool = False) -> tuple[str, Tally]:
    """Play `plan` and judge it; the verdict, and what happened on the way. Raises Failure, and keeps the logs."""
    # A short path, since a socket lies in it.
    theatre = Theatre(plan, Path(tempfile.mkdtemp(prefix="embedq-chaos-")))
    try:
        theatre.play()
        verdict = judge(theatre.parts, theatre.database, theatre.report())
        longest = theatre.tally.recovery.longest
        if longest > plan.recovery_seconds:
            raise Failure(f"a chunk of a killed worker waited {longest:.1f} s")  # noqa: TRY301 - as the oracle's
        if theatre.bugs():
            raise Failure(f"the logs tell of {plural(len(theatre.bugs()), 'bug')}")  # noqa: TRY301 - the same
    except Failure as failure:
        raise Failure(f"{failure} ({theatre.events()}); logs and database are in {theatre.folder}") from failure
    if not keep:
        shutil.rmtree(theatre.folder)
    return f"{verdict}, in {theatre.tally.seconds:.0f} s with {theatre.events()}", theatre.tally


def run_seeds(plans: Iterable[Plan], *, keep: bool = False) -> int:
    """Play each plan, print each verdict and the sum of them; the exit code."""
    good, longest, failed = 0, 0.0, 0
    for plan in plans:
        try:
            verdict, tally = run(plan, keep=keep)
        except Failure as failure:
            failed += 1
            print(f"seed {plan.seed}: FAILED: {failure}", flush=True)
        else:
            good += 1
            longest = max(longest, tally.recovery.longest)
            print(f"seed {plan.seed}: {verdict}", flush=True)
    print(f"{plural(good, 'seed')} good, {failed} failed; longest recovery after kill -9 {longest:.1f} s")
    return int(failed > 0)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, nargs="+", default=[1])
    parser.add_argument("--items", type=int, default=24_000)
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs")
    arguments = parser.parse_args()
    sys.exit(run_seeds((Plan(seed, arguments.items) for seed in arguments.seed), keep=arguments.keep))


if __name__ == "__main__":
    main()
