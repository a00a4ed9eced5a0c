"""Workers that run what schedules owe, by a clock that the tests move: real commands, a real store, a real queue."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

import embedq_worker.lane
import embedq_worker.scheduled
import embedq_worker.scheduler
import embedq_worker.service
from embedq.schedule.scheduling import all_schedules
from embedq_core.counts import Counts
from embedq_core.errors import ModelMisconfigured
from embedq_core.settings import Settings
from embedq_jobs import Queue
from embedq_store import Attempt, NewSchedule, Schedule, Store
from embedq_worker.scheduled import FILE_BYTES, TAIL_BYTES, Ending, Place, Stopping, _Output, _watch
from embedq_worker.scheduler import Scheduler
from embedq_worker.service import ServiceOptions, serve
from embedq_worker.timetable import last_result
from support.chunks import RUN, chunk, install, items, submit
from support.clocks import MovedClock
from support.command_line import TESTS, python_path
from support.models import FaultyModel, RecordingModel
from support.serving import start_worker
from support.waiting import BOUND_SECONDS, Eventually
from support.working import burst, complete, worker

# A command that does little and takes little time.
LITTLE = ("collections", "path")


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedq_worker.scheduler, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(embedq_worker.scheduled, "WATCH_SECONDS", 0.02)


@pytest.fixture(autouse=True)
def _environment_of_commands(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    """A command is a process of its own: it has what the worker has in its environment, and its models."""
    install(monkeypatch, RecordingModel())
    monkeypatch.setenv("EMBEDQ_REDIS_URL", redis_url)
    monkeypatch.setenv("EMBEDQ_PLUGINS", str(TESTS / "support" / "plugin.py"))
    monkeypatch.setenv("PYTHONPATH", python_path())


@pytest.fixture
def clock() -> MovedClock:
    """Half past two at night in Berlin; what is added is due at three."""
    return MovedClock("2026-11-20 02:30", "Europe/Berlin")


@pytest.fixture
def without_processes(monkeypatch: pytest.MonkeyPatch, clock: MovedClock) -> list[int]:
    """Commands that take no time, where only it matters when they are run; the numbers of the attempts."""
    begun: list[int] = []

    async def attempt(store: Store, *arguments: object, **_: object) -> Ending:
        number = arguments[2]
        assert isinstance(number, int)
        begun.append(number)
        await store.schedules.end(number, "done", clock.now, exit_code=0)
        return Ending("done", 0, (), "", "")

    monkeypatch.setattr(embedq_worker.scheduler, "attempt", attempt)
    return begun


class Looks:
    """Counts when workers look at schedules."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        look = Scheduler._look

        async def counted(scheduler: Scheduler) -> None:
            self.begun = number = self.begun + 1
            await look(scheduler)
            self.ended = max(self.ended, number)

        monkeypatch.setattr(Scheduler, "_look", counted)


class Night:
    """The schedules of a store, as the tests add them and look at them."""

    def __init__(self, settings: Settings, store: Store, clock: MovedClock, directory: Path, looks: Looks) -> None:
        self.settings = settings
        self.looks = looks
        self.store = store
        self.clock = clock
        self.directory = directory

    async def add(self, *arguments: str, name: str = "nightly", expression: str = "0 3 * * *") -> Schedule:
        due = self.clock.now + (-self.clock.now % 1800 or 1800)
        new = NewSchedule(name, expression, "Europe/Berlin", arguments or LITTLE, str(self.directory), due)
        await self.store.schedules.add(new, self.clock.now, replace=False)
        return await self.store.schedules.get(name)

    def options(self, **others: object) -> ServiceOptions:
        return replace(ServiceOptions(schedules=True, clock=self.clock), **others)  # type: ignore[arg-type]

    async def attempts(self, name: str = "nightly") -> list[Attempt]:
        """The oldest first."""
        schedule = await self.store.schedules.get(name)
        return (await self.store.schedules.attempts(schedule.key, 100))[::-1]

    async def states(self, name: str = "nightly") -> list[str]:
        return [attempt.state for attempt in await self.attempts(name)]

    async def seen_at(self, moment: str, eventually: Eventually) -> None:
        """Move the clock into another minute, and wait until a worker has looked at the schedules since then."""
        before = self.looks.begun
        self.clock.move_to(moment)

        async def has_looked() -> bool:
            return self.looks.ended > before

        await eventually(has_looked)

    def has(self, *states: str, name: str = "nightly") -> Callable[[], Awaitable[bool]]:
        """Whether the attempts at a schedule are in these states."""

        async def look() -> bool:
            return await self.states(name) == list(states)

        return look


@pytest.fixture
def night(
    settings: Settings, store: Store, clock: MovedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Night:
    looks = Looks()
    looks.install(monkeypatch)
    return Night(settings, store, clock, tmp_path, looks)


async def test_a_command_runs_when_its_time_comes_and_missed_times_are_made_up_for_by_one(
    night: Night, queue: Queue, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "embedq.worker")
    (night.directory / "rows.csv").write_text("id,content\na,one\nb,two\n")
    await night.add("submit", "docs", "rows.csv", "-m", "recording")
    async with worker(night.settings, night.options()):
        await night.seen_at("2026-11-20 02:59:59", eventually)
        assert await night.states() == []

        async def is_looked_at() -> bool:
            return (await asyncio.to_thread(all_schedules, night.settings.database))[1]

        await eventually(is_looked_at)
        async with await Store.open(night.directory / "other.db") as other:
            await other.schedules.add(NewSchedule("a", "0 3 * * *", "UTC", LITTLE, "/", 1.0), 0.0, replace=False)
        (_, looked_at) = await asyncio.to_thread(all_schedules, night.directory / "other.db")
        assert not looked_at, "a worker of another database, on the same Redis"
        night.clock.move_to("2026-11-23 12:00")
        await eventually(night.has("done"))
        (attempt,) = await night.attempts()
        (run,) = attempt.runs
        await eventually(lambda: complete(queue, run))
    assert (attempt.missed, attempt.exit_code) == (3, 0)
    assert attempt.output == f"{run}\nqueued 2 items for docs (recording)\n"
    assert (await queue.runs.summary(run)).counts.embedded == 2
    schedule = await night.store.schedules.get("nightly")
    night.clock.move_to("2026-11-24 03:00")
    assert (schedule.due, schedule.last) == (night.clock.now, replace(attempt, output=""))
    assert "schedule nightly: begins, for 3 missed times too: embedq submit docs rows.csv -m recording" in caplog.text
    assert f"schedule nightly: done, run {run}" in caplog.text


async def test_while_the_last_run_is_going_times_are_skipped_and_that_is_said(
    night: Night, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    rows = _pipe(night)
    await night.add("submit", "docs", "rows.csv", "-m", "recording", expression="*/30 * * * *")
    async with worker(night.settings, night.options()):
        night.clock.move_to("2026-11-20 03:00:01")
        await eventually(night.has("running"))
        for time, skipped in (("03:30:01", 0), ("04:00:01", 1), ("04:30:01", 2)):
            night.clock.move_to(f"2026-11-20 {time}")

            async def has_skipped(skipped: int = skipped) -> bool:
                attempts = await night.attempts()
                return attempts[-1].state == "skipped" and attempts[-1].missed == skipped

            await eventually(has_skipped)
        assert await night.states() == ["running", "skipped"], "several in a row are one"
        schedule = await night.store.schedules.get("nightly")
        assert schedule.skipped is not None
        assert schedule.skipped.message == "its last run is still going"
        assert "schedule nightly: skipped: its last run is still going" in caplog.text
        rows.write_text("id,content\na,one\n")
        await eventually(night.has("done", "skipped"))
    schedule = await night.store.schedules.get("nightly")
    assert last_result(schedule) == "done (3 times skipped meanwhile)"


def _pipe(night: Night) -> Path:
    """A source that keeps whoever reads it waiting until somebody writes."""
    path = night.directory / "rows.csv"
    os.mkfifo(path)
    return path


async def _opened(pipe: Path, eventually: Eventually) -> int:
    """The end of a pipe to write to, once a command reads the other."""
    found: list[int] = []

    async def is_read() -> bool:
        with contextlib.suppress(OSError):
            found.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(found)

    await eventually(is_read)
    return found[0]


@pytest.mark.usefixtures("without_processes")
async def test_a_run_that_is_not_done_is_still_going(night: Night, queue: Queue, eventually: Eventually) -> None:
    # For a model that no worker has.
    await submit(queue, chunk(items(5), model_id="absent"))
    schedule = await night.add()
    await _note_done(night, schedule, RUN)
    async with worker(night.settings, night.options()):
        night.clock.move_to("2026-11-20 03:00:01")
        await eventually(night.has("done", "skipped"))
        attempt = (await night.attempts())[-1]
        assert attempt.message == f"its last run, {RUN}, has 5 items to do yet"
        await queue.runs.record(RUN, 0, "absent", Counts(failed=5))
        night.clock.move_to("2026-11-21 03:00:01")
        await eventually(night.has("done", "skipped", "done"))


@pytest.mark.usefixtures("without_processes")
async def test_a_missed_time_waits_for_what_the_last_run_left(
    night: Night, queue: Queue, eventually: Eventually
) -> None:
    await submit(queue, chunk(items(5), model_id="absent"))
    schedule = await night.add()
    await _note_done(night, schedule, RUN)
    async with worker(night.settings, night.options()):
        await night.seen_at("2026-11-22 12:00", eventually)
        assert await night.states() == ["done"], "neither run nor skipped"
        await queue.runs.record(RUN, 0, "absent", Counts(failed=5))
        night.clock.move(60)
        await eventually(night.has("done", "done"))
    assert (await night.attempts())[-1].missed == 2


async def _note_done(night: Night, schedule: Schedule, run: str) -> None:
    """An attempt, long ago, that queued `run`."""
    number = await night.store.schedules.begin(schedule, schedule.due, night.clock.now, "here:1")
    assert number is not None
    assert await night.store.schedules.end(number, "done", night.clock.now, exit_code=0, runs=[run])


async def test_of_two_workers_only_one_begins_it_each_time(
    night: Night, eventually: Eventually, without_processes: list[int]
) -> None:
    await night.add(expression="* * * * *")
    night.clock.move_to("2026-11-20 03:00")
    async with worker(night.settings, night.options()), worker(night.settings, night.options()):
        for round_ in range(1, 21):
            await eventually(night.has(*["done"] * round_))
            night.clock.move(60)
        await eventually(night.has(*["done"] * 21))
    assert len(without_processes) == len(set(without_processes)) == 21


@pytest.mark.usefixtures("without_processes")
async def test_a_clock_that_is_put_back_runs_nothing_twice(night: Night, eventually: Eventually) -> None:
    await night.add()
    night.clock.move_to("2026-11-20 03:00")
    async with worker(night.settings, night.options()):
        await eventually(night.has("done"))
        await night.seen_at("2026-11-20 02:59:59", eventually)
        await night.seen_at("2026-11-20 03:00:30", eventually)
    assert await night.states() == ["done"]


async def test_a_worker_that_is_killed_leaves_a_command_that_nobody_begins_again_before_it_ends(
    night: Night, eventually: Eventually
) -> None:
    rows = _pipe(night)
    await night.add("submit", "docs", "rows.csv", "-m", "recording")
    night.clock.move_to("2026-11-20 03:00:01")
    killed = start_worker(night.settings, 1, clock_at=night.clock.now)
    await eventually(night.has("running"))
    (attempt,) = await night.attempts()
    pipe = await _opened(rows, eventually)
    os.kill(killed.pid or 0, signal.SIGKILL)
    killed.join()
    async with worker(night.settings, night.options()):
        await night.seen_at("2026-11-20 03:01:01", eventually)
        assert await night.states() == ["running"], "the command is going, though nobody waits for it"
        rows.unlink()
        rows.write_text("id,content\na,one\n")
        os.write(pipe, b"id,content\na,one\n")
        os.close(pipe)

        async def is_lost() -> bool:
            night.clock.move(60)
            return (await night.states())[0] == "lost"

        await eventually(is_lost)

        async def is_made_up_for() -> bool:
            night.clock.move(60)
            return await night.states() == ["lost", "done"]

        await eventually(is_made_up_for)
    lost, done = await night.attempts()
    assert lost.message == f"its worker {attempt.runner} died, or the machine did"
    assert "queued 1 item for docs" in lost.output
    assert len(lost.runs) == 1
    assert (lost.due, lost.runs == done.runs) == (done.due, False)


async def test_a_lost_attempt_that_can_t_be_looked_into_keeps_no_other_schedule_from_running(
    night: Night, without_processes: list[int], eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    broken = await night.add(name="broken")
    await night.add()
    await night.store.schedules.begin(broken, broken.due + 86_400, night.clock.now, "gone:1", missed=0)
    place = Place(night.settings.database, broken.key)
    place.notes.mkdir(parents=True)
    night.clock.move_to("2026-11-20 03:00:01")
    async with worker(night.settings, night.options()):
        await eventually(night.has("done"))
    assert await night.states("broken") == ["running"]
    assert "schedule broken waits: what became of its last run can't be found out: " in caplog.text
    assert len(without_processes) == 1
    place.notes.rmdir()
    async with worker(night.settings, night.options()):
        await eventually(night.has("lost", name="broken"))


async def test_a_worker_that_is_stopped_stops_its_command_which_is_due_again(
    night: Night, eventually: Eventually
) -> None:
    _pipe(night)
    await night.add("submit", "docs", "rows.csv", "-m", "recording")
    night.clock.move_to("2026-11-20 03:00:01")
    async with worker(night.settings, night.options(grace_seconds=0)):
        await eventually(night.has("running"))
    (attempt,) = await night.attempts()
    assert attempt.state == "interrupted"
    assert (await night.store.schedules.get("nightly")).due == attempt.due


async def test_a_command_may_end_within_the_grace(night: Night, eventually: Eventually) -> None:
    rows = _pipe(night)
    await night.add("submit", "docs", "rows.csv", "-m", "recording")
    night.clock.move_to("2026-11-20 03:00:01")
    async with worker(night.settings, night.options(grace_seconds=20)) as stop:
        await eventually(night.has("running"))
        stop.set()
        await asyncio.to_thread(rows.write_text, "id,content\na,one\n")
    assert await night.states() == ["done"]


async def test_a_worker_that_is_drained_does_not_wait_for_a_command_that_waits_for_it(
    night: Night, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(embedq_worker.service, "DRAIN_LOOK_SECONDS", 0.02)
    (night.directory / "rows.csv").write_text("id,content\na,one\n")
    await night.add("submit", "docs", "rows.csv", "-m", "recording", "--wait")
    night.clock.move_to("2026-11-20 03:00:01")
    install(monkeypatch, RecordingModel(), RecordingModel("other"))
    options = night.options(models=("other",), grace_seconds=0)
    serving = asyncio.create_task(serve(night.settings, options, queue, store, asyncio.Event()))

    async def is_queued() -> bool:
        return await queue.length("recording") == 1

    await eventually(is_queued)
    await queue.drains.order(await queue.live_workers())
    async with asyncio.timeout(BOUND_SECONDS):
        await serving
    (attempt,) = await night.attempts()
    assert attempt.state == "interrupted"
    assert (await night.store.schedules.get("nightly")).due == attempt.due


async def test_a_worker_that_ends_by_itself_runs_what_is_owed_and_then_what_that_queued(
    night: Night, queue: Queue, store: Store
) -> None:
    (night.directory / "rows.csv").write_text("id,content\na,one\nb,two\n")
    await night.add("submit", "docs", "rows.csv", "-m", "recording")
    night.clock.move_to("2026-11-20 03:00:01")
    async with asyncio.timeout(BOUND_SECONDS):
        await serve(night.settings, night.options(burst=True), queue, store, asyncio.Event())
    assert await night.states() == ["done"]
    assert await store.count((await store.collection("docs")).id) == 2


async def test_a_worker_that_ends_by_itself_stops_a_command_that_waits_for_a_model_that_has_to_be_mended(
    night: Night, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command would wait for this worker for ever, and the worker for the command."""

    def refuse(_: list[str | bytes]) -> None:
        raise ModelMisconfigured("a wrong key")

    install(monkeypatch, FaultyModel(refuse, "recording"))
    monkeypatch.setattr(embedq_worker.lane, "UNMENDED_SECONDS", 0.05)
    (night.directory / "rows.csv").write_text("id,content\na,one\nb,two\n")
    await night.add("submit", "docs", "rows.csv", "-m", "recording", "--wait")
    night.clock.move_to("2026-11-20 03:00:01")
    with pytest.raises(ModelMisconfigured, match="recording: a wrong key; 1 chunk stays queued until that is mended"):
        async with asyncio.timeout(BOUND_SECONDS):
            await serve(night.settings, night.options(burst=True, grace_seconds=0), queue, store, asyncio.Event())
    assert await night.states() == ["interrupted"]
    assert await queue.length("recording") == 1


@pytest.mark.usefixtures("without_processes")
async def test_a_worker_that_ends_by_itself_does_what_the_last_run_left_before_it_makes_up_for_a_time(
    night: Night, queue: Queue, store: Store
) -> None:
    schedule = await night.add()
    await _note_done(night, schedule, RUN)
    await submit(queue, chunk(items(5)))
    night.clock.move_to("2026-11-22 12:00")
    async with asyncio.timeout(BOUND_SECONDS):
        await serve(night.settings, night.options(burst=True), queue, store, asyncio.Event())
    assert await night.states() == ["done", "done"]


async def test_a_worker_that_is_not_asked_to_runs_no_schedule(night: Night, queue: Queue, store: Store) -> None:
    await night.add()
    night.clock.move_to("2026-11-20 03:00:01")
    await burst(night.settings, queue, store)
    assert await night.states() == []


async def test_a_command_that_fails_says_why_and_the_next_time_comes(
    night: Night, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    await night.add("submit", "docs", "nothing.csv", "-m", "recording")
    nowhere = NewSchedule("gone", "0 3 * * *", "UTC", LITTLE, str(night.directory / "gone"), night.clock.now)
    await night.store.schedules.add(nowhere, night.clock.now, replace=False)
    night.clock.move_to("2026-11-20 03:00:01")
    async with worker(night.settings, night.options()):
        await eventually(night.has("failed"))
        await eventually(night.has("failed", name="gone"))
    (failed,) = await night.attempts()
    assert failed.exit_code == 2
    assert "nothing.csv" in failed.output
    (unbegun,) = await night.attempts("gone")
    assert (unbegun.exit_code, unbegun.message) == (None, f"{night.directory / 'gone'}: No such file or directory")
    assert "schedule nightly: failed (exit code 2)" in caplog.text


@pytest.mark.usefixtures("without_processes")
async def test_what_can_not_be_reckoned_keeps_no_other_from_running(
    night: Night, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    broken = NewSchedule("a", "0 3 * * *", "Europe/Atlantis", LITTLE, str(night.directory), night.clock.now)
    await night.store.schedules.add(broken, night.clock.now, replace=False)
    await night.add()
    night.clock.move_to("2026-11-20 03:00:01")
    async with worker(night.settings, night.options()):
        await eventually(night.has("done"))
    assert "schedule a waits: there is no time zone 'Europe/Atlantis'" in caplog.text


async def test_a_command_that_does_not_stop_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedq_worker.scheduled, "GOODBYE_SECONDS", 0.05)
    file, stop = tmp_path / "output", asyncio.Event()
    os.mkfifo(tmp_path / "fifo")
    with file.open("ab") as printed:
        stubborn = await asyncio.create_subprocess_exec(
            *("sh", "-c", "trap 'echo asked' TERM; echo ready; while :; do read line < fifo; done"),
            cwd=tmp_path,
            stdout=printed,
            start_new_session=True,
        )

    def when_ready(printed: bytes) -> None:
        if b"ready" in printed:
            stop.set()

    assert await _watch(stubborn, _Output(file, when_ready), Stopping(stop))
    assert stubborn.returncode == -signal.SIGKILL
    assert file.read_text() == "ready\nasked\n"


def test_of_what_a_command_prints_the_end_is_kept_and_the_file_stays_small(tmp_path: Path) -> None:
    file = tmp_path / "output"
    echoed: list[bytes] = []
    with file.open("ab", buffering=0) as printed:
        output = _Output(file, echoed.append)
        lines = [b"%06d\n" % number for number in range(FILE_BYTES // 2)]
        for start in range(0, len(lines), 50_000):
            printed.write(b"".join(lines[start : start + 50_000]))
            output.follow()
        printed.write(b"the end\n")
        output.follow()
    assert b"".join(echoed) == b"".join(lines) + b"the end\n"
    assert file.stat().st_size < FILE_BYTES
    kept = output.text()
    assert TAIL_BYTES - 7 <= len(kept) <= TAIL_BYTES
    assert kept.splitlines()[-2:] == [f"{len(lines) - 1:06}", "the end"]
    assert set(map(len, kept.splitlines()[:-1])) == {6}, "no line is cut"
