"""Chaos: workers are killed, Redis is restarted, items are poisoned, and at the end one oracle counts.

    python tests/chaos/driver.py --seed 1 --items 24000

Real processes, a real Redis with an append-only file, a real database. Every 250 ms a die is cast from the seed:
worker kill -9 8 %, SIGTERM 5 %, Redis restart 2 % (half of them kill -9). Of the items 2 % are poisoned, of the
calls of one model 5 % lose their connection. It ends with 0 when nothing was lost or doubled, and says so.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import redis

from embedq_jobs.embedded import find_server

TESTS: Final = Path(__file__).resolve().parent.parent

CAST_SECONDS: Final = 0.25
WORKER_KILL, WORKER_TERM, REDIS_RESTART = 0.08, 0.05, 0.02
POISONED: Final = 0.02
TRANSIENT: Final = 0.05

# Collection → model.
COLLECTIONS: Final = {"alpha": "steady", "beta": "shaky", "gamma": "steady"}
PARTS: Final = 4


@dataclass(frozen=True)
class Plan:
    """What is done: the same for the same seed."""

    seed: int
    items: int
    workers: int = 3
    producers: int = 2
    max_seconds: float = 600.0


@dataclass
class Tally:
    """What happened on the way."""

    events: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    longest_idle: float = 0.0


class Failure(Exception):  # noqa: N818 - it is the verdict
    """The oracle has found something lost, doubled or changed."""


Row = dict[str, Any]


def corpus(plan: Plan) -> dict[str, list[Row]]:
    """The rows of each collection: contents that repeat at times, metadata on some, poison in some."""
    dice = random.Random(plan.seed)
    rows: dict[str, list[Row]] = {name: [] for name in COLLECTIONS}
    names = list(COLLECTIONS)
    for number in range(plan.items):
        name = names[number % len(names)]
        text = f"text {number if dice.random() < 0.95 else number // 50} of {name} é\n"
        if dice.random() < POISONED:
            text += "poison"
        row: Row = {"id": f"{name}/{number}", "content": text}
        if dice.random() < 0.3:
            row["metadata"] = {"number": number, "half": number / 2, "name": name}
        rows[name].append(row)
    return rows


class Theatre:
    """Redis, workers and producers as processes, and the die that ends them."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.database = folder / "embeddings.db"
        self.socket = folder / "redis.sock"
        self.tally = Tally()
        self._dice = random.Random(plan.seed)
        self._redis: subprocess.Popen[bytes] | None = None
        self._workers: list[subprocess.Popen[bytes]] = []
        self._producers: list[subprocess.Popen[bytes]] = []
        self._waiting: list[tuple[str, Path]] = []
        self.runs: list[str] = []
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("EMBEDQ_")},
            "EMBEDQ_REDIS_URL": f"unix://{self.socket}",
            "EMBEDQ_DATABASE": str(self.database),
            "EMBEDQ_PLUGINS": str(TESTS / "support" / "chaos_plugin.py"),
            "XDG_CONFIG_HOME": str(folder),
            "EMBEDQ_CHUNK_ITEMS": "256",
            "EMBEDQ_CHAOS_TRANSIENT": str(TRANSIENT),
            "EMBEDQ_LOG_LEVEL": "warning",
            "PYTHONPATH": str(TESTS),
        }

    # --- processes

    def embedq(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "embedq", *map(str, arguments)]

    def start_redis(self) -> None:
        command = [find_server(), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder)]
        command += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        command += ["--maxmemory-policy", "noeviction"]
        with (self.folder / "redis.log").open("ab") as log:
            self._redis = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            try:
                with redis.Redis(unix_socket_path=str(self.socket)) as client:
                    client.ping()
                    return
            except (redis.exceptions.RedisError, OSError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def start_worker(self) -> None:
        with (self.folder / "workers.log").open("ab") as log:
            self._workers.append(subprocess.Popen(self.embedq("worker"), env=self._environment, stdout=log, stderr=log))

    def start_producers(self) -> None:
        while self._waiting and len(self._producers) < self.plan.producers:
            collection, path = self._waiting.pop(0)
            command = self.embedq("submit", collection, path, "-m", COLLECTIONS[collection], "--json")
            with (self.folder / "producers.log").open("ab") as log:
                producer = subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, stderr=log)
            producer.args = (collection, path)  # what to send again if it fails
            self._producers.append(producer)

    def reap_producers(self) -> None:
        for producer in [one for one in self._producers if one.poll() is not None]:
            self._producers.remove(producer)
            out, _ = producer.communicate()
            if producer.returncode == 0:
                self.runs.append(json.loads(out)["run"])
            else:
                self.tally.events["producer failed"] += 1
                self._waiting.append(producer.args)  # type: ignore[arg-type] # set above

    # --- the play

    def play(self, rows: dict[str, list[Row]]) -> None:
        """Send everything while the die is cast, then wait until all of it is done."""
        for name, of_collection in rows.items():
            size = -(-len(of_collection) // PARTS)
            for part in range(PARTS):
                path = self.folder / f"{name}-{part}.jsonl"
                path.write_text(
                    "".join(json.dumps(row) + "\n" for row in of_collection[part * size : (part + 1) * size])
                )
                self._waiting.append((name, path))
        began = time.monotonic()
        self.start_redis()
        for _ in range(self.plan.workers):
            self.start_worker()
        try:
            self._play(began)
            self.tally.seconds = time.monotonic() - began
            self._calm_down()
        finally:
            for process in [*self._workers, *self._producers]:
                process.kill()
                process.wait()
            if self._redis is not None:
                self._redis.kill()
                self._redis.wait()

    def _play(self, began: float) -> None:
        next_cast = began
        while True:
            now = time.monotonic()
            if now - began > self.plan.max_seconds:
                raise Failure(f"not done after {self.plan.max_seconds:.0f} s: see {self.folder}")
            if now >= next_cast:
                next_cast += CAST_SECONDS
                self.cast()
            self.start_producers()
            self.reap_producers()
            self._replace_workers()
            if not self._waiting and not self._producers and self.settled():
                return
            time.sleep(0.05)

    def cast(self) -> None:
        """Cast the die once."""
        roll = self._dice.random()
        victim = self._dice.randrange(1_000_000)
        if roll < WORKER_KILL:
            self._signal_worker(victim, signal.SIGKILL)
        elif roll < WORKER_KILL + WORKER_TERM:
            self._signal_worker(victim, signal.SIGTERM)
        elif roll < WORKER_KILL + WORKER_TERM + REDIS_RESTART:
            self._restart_redis(signal.SIGKILL if victim % 2 else signal.SIGTERM)

    def _signal_worker(self, victim: int, number: signal.Signals) -> None:
        alive = [worker for worker in self._workers if worker.poll() is None]
        if alive:
            self.tally.events[f"worker {number.name}"] += 1
            alive[victim % len(alive)].send_signal(number)

    def _restart_redis(self, number: signal.Signals) -> None:
        if self._redis is not None:
            self.tally.events[f"Redis {number.name}"] += 1
            self._redis.send_signal(number)
            self._redis.wait(30)
        self.start_redis()

    def _replace_workers(self) -> None:
        for worker in [one for one in self._workers if one.poll() is not None]:
            self._workers.remove(worker)
            if worker.returncode not in (0, -signal.SIGKILL, -signal.SIGTERM):
                self.tally.events[f"worker ended with {worker.returncode}"] += 1
            self.start_worker()

    def settled(self) -> bool:
        """Whether no job is left in any queue."""
        try:
            with redis.Redis(unix_socket_path=str(self.socket)) as client:
                models = {value.decode() for value in client.smembers("embedq:models")}
                return all(client.zcard(f"embedq:{model}") == 0 for model in models)
        except (redis.exceptions.RedisError, OSError):
            return False

    def _calm_down(self) -> None:
        """Let workers end as they like to, so that what they hold is committed."""
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
        for worker in self._workers:
            worker.wait(60)

    def summaries(self) -> list[Row]:
        """What `runs show` says of each run that was sent to its end."""
        self.start_redis()
        try:
            return [
                json.loads(
                    subprocess.run(
                        self.embedq("runs", "show", run, "--json"),
                        env=self._environment,
                        capture_output=True,
                        check=True,
                    ).stdout
                )
                for run in self.runs
            ]
        finally:
            assert self._redis is not None
            self._redis.terminate()
            self._redis.wait(30)


# --- the oracle


def judge(rows: dict[str, list[Row]], database: Path, summaries: list[Row]) -> str:
    """Raise Failure where anything was lost, doubled or changed; else say what was found."""
    db = sqlite3.connect(database)
    try:
        _expect(db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "the database is damaged")
        stored = {name: {row[0]: row[1:] for row in _entries(db, name)} for name in COLLECTIONS}
        doubled = sum(len(list(_entries(db, name))) - len(stored[name]) for name in COLLECTIONS)
        _expect(doubled == 0, f"{doubled} ids stand twice")
        dead = {
            (row[0], row[1]): row[2:] for row in db.execute("SELECT collection, id, content, metadata FROM embedq_dead")
        }
    finally:
        db.close()
    for name, of_collection in rows.items():
        for row in of_collection:
            _judge_row(name, row, stored[name].get(row["id"]), dead.get((name, row["id"])))
        extra = set(stored[name]) - {row["id"] for row in of_collection}
        _expect(not extra, f"{name} holds ids that were never sent: {sorted(extra)[:5]}")
    accepted = sum(len(of_collection) for of_collection in rows.values())
    in_store = sum(len(entries) for entries in stored.values())
    _expect(accepted == in_store + len(dead), f"{accepted} accepted, {in_store} stored, {len(dead)} dead")
    for summary in summaries:
        outcome = summary["embedded"] + summary["reused"] + summary["unchanged"] + summary["dead"]
        _expect(summary["state"] == "complete", f"run {summary['run']} is {summary['state']}")
        _expect(outcome == summary["items"], f"run {summary['run']}: {outcome} outcomes of {summary['items']} items")
    return f"{accepted:,} accepted = {in_store:,} stored + {len(dead):,} dead; none lost, none twice, none changed"


def _entries(db: sqlite3.Connection, collection: str) -> list[tuple[str, str, str | None]]:
    query = (
        "SELECT e.id, e.content, e.metadata FROM embeddings e JOIN collections c ON c.id = e.collection_id"
        " WHERE c.name = ?"
    )
    return db.execute(query, (collection,)).fetchall()


def _judge_row(name: str, row: Row, stored: tuple[str, str | None] | None, dead: tuple[str, str | None] | None) -> None:
    metadata = row.get("metadata")
    _expect((stored is None) != (dead is None), f"{row['id']} is {'lost' if stored is None else 'stored and dead'}")
    content, text = stored or dead or ("", None)
    _expect(content == row["content"], f"{row['id']} of {name} has another content")
    _expect((json.loads(text) if text else None) == metadata, f"{row['id']} of {name} has other metadata")
    poisoned = "poison" in row["content"]
    _expect(poisoned == (dead is not None), f"{row['id']} is {'dead' if dead else 'stored'}, poisoned: {poisoned}")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failure(otherwise)


def run(plan: Plan, *, keep: bool = False) -> str:
    """Play `plan` and judge it; the verdict, with what happened on the way. Raises Failure."""
    # A short path, since a socket lies in it.
    folder = Path(tempfile.mkdtemp(prefix="embedq-chaos-"))
    theatre = Theatre(plan, folder)
    rows = corpus(plan)
    theatre.play(rows)
    verdict = judge(rows, theatre.database, theatre.summaries())
    events = ", ".join(f"{count} x {name}" for name, count in sorted(theatre.tally.events.items()))
    if not keep:
        shutil.rmtree(folder)
    return f"seed {plan.seed}: {verdict}, in {theatre.tally.seconds:.0f} s with {events}"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, nargs="+", default=[1])
    parser.add_argument("--items", type=int, default=24_000)
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs")
    arguments = parser.parse_args()
    for seed in arguments.seed:
        print(run(Plan(seed, arguments.items), keep=arguments.keep), flush=True)


if __name__ == "__main__":
    main()
