"""Schedules in the store: who may begin one, what is due again, what is kept."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from embedq_core.errors import DatabaseReadOnly, ScheduleExists, ScheduleMissing
from embedq_store import NewSchedule, Schedule, Store
from embedq_store.schedules import KEPT_ATTEMPTS, LOST_ATTEMPTS

NEW = NewSchedule("nightly", "0 3 * * *", "Europe/Berlin", ("submit", "docs", "a b.csv"), "/data", 100.0)
DAY = 1000.0


@pytest.fixture
async def other(store: Store) -> AsyncIterator[Store]:
    """The same file, opened by another process, as far as SQLite can tell."""
    async with await Store.open(store.path) as opened:
        yield opened


async def added(store: Store, new: NewSchedule = NEW) -> Schedule:
    await store.schedules.add(new, 50.0, replace=False)
    return await store.schedules.get(new.name)


async def test_a_schedule_is_kept_as_it_was_given(store: Store, other: Store) -> None:
    await added(store)
    found = await other.schedules.get("nightly")
    assert found == Schedule(
        found.key, NEW.name, NEW.expression, NEW.timezone, NEW.arguments, NEW.directory, True, 100.0, 50.0
    )


async def test_names_are_unique_and_replacing_keeps_what_was(store: Store) -> None:
    schedule = await added(store)
    changed = replace(NEW, expression="0 4 * * *", arguments=("reembed", "docs"), due=200.0)
    with pytest.raises(ScheduleExists, match="--replace"):
        await store.schedules.add(changed, 60.0, replace=False)
    assert (await store.schedules.get("nightly")).expression == "0 3 * * *"
    number = await store.schedules.begin(schedule, DAY, 100.0, "here:1")
    assert number is not None
    await store.schedules.end(number, "done", 101.0, exit_code=0)
    await store.schedules.disable(schedule.key)
    await store.schedules.add(changed, 60.0, replace=True)
    found = await store.schedules.get("nightly")
    assert (found.arguments, found.due, found.enabled, found.created) == (("reembed", "docs"), 200.0, True, 50.0)
    assert found.last is not None
    await store.schedules.add(replace(changed, name="new"), 60.0, replace=True)
    assert [each.name for each in await store.schedules.all()] == ["new", "nightly"]


async def test_an_unknown_name_is_answered_with_close_ones(store: Store) -> None:
    with pytest.raises(ScheduleMissing, match="it holds none"):
        await store.schedules.get("nightly")
    await added(store)
    with pytest.raises(ScheduleMissing, match="Did you mean 'nightly'"):
        await store.schedules.get("nightl")


async def test_of_two_that_saw_it_due_one_begins_it(store: Store, other: Store) -> None:
    schedule = await added(store)
    assert await store.schedules.begin(schedule, DAY, 100.0, "here:1") is not None
    assert await other.schedules.begin(schedule, DAY, 100.0, "there:2") is None
    begun = await other.schedules.get("nightly")
    assert (begun.due, begun.last and begun.last.runner) == (DAY, "here:1")
    assert await other.schedules.begin(begun, 2 * DAY, DAY, "there:2") is None, "one is going"
    assert begun.last is not None
    assert await store.schedules.end(begun.last.key, "done", 101.0, exit_code=0)
    assert await other.schedules.begin(schedule, DAY, 102.0, "there:2") is None, "its time is taken"


async def test_one_that_was_disabled_or_changed_since_is_not_begun(store: Store, other: Store) -> None:
    schedule = await added(store)
    await other.schedules.disable(schedule.key)
    assert await store.schedules.begin(schedule, DAY, 100.0, "here:1") is None
    assert not await store.schedules.skip(schedule, DAY, 100.0, "why")
    await other.schedules.enable(schedule.key, 300.0)
    assert await store.schedules.begin(schedule, DAY, 100.0, "here:1") is None
    await other.schedules.disable(schedule.key)
    disabled = await store.schedules.get("nightly")
    assert await store.schedules.begin(disabled, 300.0, 100.0, "here:1", by_hand=True) is not None


async def test_one_that_is_begun_by_hand_before_its_time_is_for_no_time(store: Store) -> None:
    schedule = await added(store)
    number = await store.schedules.begin(schedule, schedule.due, 99.0, "here:1", by_hand=True)
    assert number is not None
    assert await store.schedules.end(number, "interrupted", 99.5)
    found = await store.schedules.get("nightly")
    assert (found.due, found.last and found.last.due) == (100.0, None)


async def test_what_was_interrupted_is_due_again_as_often_as_it_is(store: Store) -> None:
    for _ in range(LOST_ATTEMPTS + 2):
        schedule = await store.schedules.get("nightly") if await store.schedules.all() else await added(store)
        number = await store.schedules.begin(schedule, DAY, 100.0, "here:1")
        assert number is not None
        assert await store.schedules.end(number, "interrupted", 101.0, exit_code=130)
        assert (await store.schedules.get("nightly")).due == 100.0


async def test_what_is_lost_time_after_time_waits_for_the_next(store: Store) -> None:
    await added(store)
    for due in (100.0, DAY):
        schedule = await store.schedules.get("nightly")
        number = await store.schedules.begin(schedule, DAY, 100.0, "here:1")
        assert number is not None
        assert await store.schedules.end(number, "lost", 101.0)
        assert (await store.schedules.get("nightly")).due == due


async def test_an_end_is_noted_once(store: Store) -> None:
    schedule = await added(store)
    number = await store.schedules.begin(schedule, DAY, 100.0, "here:1", missed=3)
    assert number is not None
    assert await store.schedules.end(
        number, "failed", 101.0, exit_code=2, runs=["r1", "r2"], message="m", output="the end"
    )
    assert not await store.schedules.end(number, "done", 102.0, exit_code=0)
    (attempt,) = await store.schedules.attempts(schedule.key, 5)
    assert (attempt.state, attempt.exit_code, attempt.runs, attempt.output) == ("failed", 2, ("r1", "r2"), "the end")
    assert (attempt.due, attempt.missed, attempt.begun, attempt.ended) == (100.0, 3, 100.0, 101.0)
    last = (await store.schedules.get("nightly")).last
    assert last == replace(attempt, output=""), "of all schedules, outputs are not read"


async def test_times_that_are_skipped_in_a_row_are_one_attempt(store: Store) -> None:
    schedule = await added(store)
    assert await store.schedules.begin(schedule, 200.0, 100.0, "here:1") is not None
    for due, missed in ((200.0, 0), (300.0, 2), (400.0, 0)):
        found = await store.schedules.get("nightly")
        assert found.due == due
        assert await store.schedules.skip(found, due + 100, due + 1, f"why at {due:.0f}", missed=missed)
    found = await store.schedules.get("nightly")
    assert found.last is not None
    assert found.skipped is not None
    assert (found.last.state, found.skipped.missed, found.skipped.message) == ("running", 4, "why at 400")
    assert len(await store.schedules.attempts(schedule.key, 9)) == 2


async def test_nothing_is_skipped_for_an_attempt_that_has_ended_since(store: Store, other: Store) -> None:
    schedule = await added(store)
    number = await store.schedules.begin(schedule, 200.0, 100.0, "here:1")
    assert number is not None
    seen = await other.schedules.get("nightly")
    await store.schedules.end(number, "lost", 150.0)
    assert not await other.schedules.skip(replace(seen, due=100.0), 300.0, 201.0, "still going")
    assert (await store.schedules.get("nightly")).due == 100.0


async def test_a_schedule_that_is_removed_leaves_nothing_and_its_attempt_ends_unnoted(store: Store) -> None:
    schedule = await added(store)
    number = await store.schedules.begin(schedule, DAY, 100.0, "here:1")
    assert number is not None
    await store.schedules.remove(schedule.key)
    assert await store.schedules.all() == []
    again = await added(store)
    second = await store.schedules.begin(again, DAY, 100.0, "here:1")
    assert not await store.schedules.end(number, "done", 101.0, exit_code=0)
    assert second is not None
    assert [each.state for each in await store.schedules.attempts(again.key, 9)] == ["running"]


async def test_only_the_latest_attempts_are_kept_and_one_that_is_going_always(store: Store) -> None:
    schedule = await added(store)
    assert await store.schedules.begin(schedule, 100.0, 100.0, "here:1") is not None
    going = (await store.schedules.get("nightly")).last
    with closing(sqlite3.connect(store.path)) as db:
        # As if each had come between two attempts.
        for number in range(KEPT_ATTEMPTS + 5):
            found = await store.schedules.get("nightly")
            assert await store.schedules.skip(replace(found, skipped=None), 100.0, 100.0 + number, "why")
        (count,) = db.execute("SELECT count(*) FROM embedq_schedule_runs").fetchone()
    assert count == KEPT_ATTEMPTS + 1
    assert (await store.schedules.get("nightly")).last == going


async def test_a_file_without_the_tables_has_no_schedules(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE diary (day)")
    async with await Store.open(path, read_only=True) as store:
        assert await store.schedules.all() == []
        assert await store.schedules.attempts(1, 9) == []
        with pytest.raises(DatabaseReadOnly):
            await store.schedules.disable(1)
    assert path.stat().st_size > 0
