"""What comes next in a re-embedding, decided from what is known of it."""

from dataclasses import replace

import pytest

from embedq_core.counts import Counts
from embedq_jobs import Run, RunSummary
from embedq_store import Coverage, Reembedding
from embedq_worker.golden import Verdict
from embedq_worker.reembedding_steps import (
    CheckGolden,
    QueueMissing,
    Stop,
    Switch,
    Wait,
    after_check,
    next_step,
)

PETS = Reembedding(
    key=1,
    collection="pets",
    source=1,
    shadow=2,
    old_model="old",
    new_model="new",
    golden=None,
    recall=None,
    drop_old=False,
    run="r",
    state="embedding",
    message=None,
    started=0.0,
    switched=None,
)
COVERED = Coverage(entries=20, covered=20)
HALF = Coverage(entries=20, covered=10, missing=10)


def summary(*, chunks: int = 2, done: int = 2, items: int = 20, outcome: str = "sent", **counts: int) -> RunSummary:
    return RunSummary(
        run=Run("r", "pets@next", "new", "reembed pets", 0.0),
        items=items,
        bytes=1,
        chunks=chunks,
        chunks_done=done,
        skipped=0,
        duplicates=0,
        closed=True,
        outcome=outcome,
        beat=0.0,
        finished=None,
        counts=Counts(**counts),
    )


def test_while_chunks_of_its_run_are_to_be_done_it_waits_whatever_is_missing() -> None:
    assert next_step(PETS, HALF, summary(done=1), passed=False) == Wait()
    assert next_step(PETS, COVERED, summary(done=1), passed=True) == Wait()


@pytest.mark.parametrize(
    "run",
    [None, summary(embedded=20), summary(outcome="interrupted", embedded=3), summary(items=9, unchanged=4, embedded=5)],
    ids=["forgotten", "complete", "interrupted", "partly unchanged"],
)
def test_what_is_missing_when_no_run_is_going_on_is_queued(run: RunSummary | None) -> None:
    assert next_step(PETS, HALF, run, passed=False) == QueueMissing()
    assert next_step(PETS, COVERED, run, passed=False) == Switch()


def test_what_came_while_a_small_collection_was_embedded_is_left_to_the_switch() -> None:
    late = Coverage(entries=50, covered=45, missing=5)
    assert next_step(PETS, late, summary(embedded=45), passed=False) == Switch()
    assert next_step(replace(PETS, golden="{}"), late, summary(embedded=45), passed=False) == CheckGolden()
    # More came than that, or what was there may not be there yet.
    assert next_step(PETS, replace(late, covered=44, missing=6), summary(embedded=44), passed=False) == QueueMissing()
    assert next_step(PETS, late, summary(outcome="interrupted", embedded=45), passed=False) == QueueMissing()
    assert next_step(PETS, late, None, passed=False) == QueueMissing()
    many = Coverage(entries=5000, covered=4872, missing=128)
    assert next_step(PETS, many, summary(embedded=4872), passed=False) == Switch()
    assert next_step(PETS, replace(many, missing=129), summary(embedded=4872), passed=False) == QueueMissing()


def test_what_was_found_stored_and_is_missing_all_the_same_is_not_queued_for_ever() -> None:
    step = next_step(PETS, HALF, summary(items=10, unchanged=10), passed=False)
    assert isinstance(step, Stop)
    assert "10 entries can't be covered" in step.reason
    fewer = replace(HALF, missing=9, covered=11)
    assert next_step(PETS, fewer, summary(items=10, unchanged=10), passed=False) == QueueMissing()


def test_golden_queries_are_checked_when_all_is_there_and_once() -> None:
    golden = replace(PETS, golden="{}")
    assert next_step(golden, HALF, None, passed=False) == QueueMissing()
    assert next_step(golden, COVERED, None, passed=False) == CheckGolden()
    assert next_step(golden, COVERED, None, passed=True) == Switch()
    assert next_step(replace(golden, recall=0.0), COVERED, None, passed=False) == Switch(), "it was accepted"


def test_a_tenth_may_be_dead_and_more_has_to_be_accepted() -> None:
    assert next_step(PETS, Coverage(entries=20, covered=18, dead=2), None, passed=False) == Switch()
    many = Coverage(entries=20, covered=17, dead=3)
    step = next_step(PETS, many, None, passed=False)
    assert isinstance(step, Stop)
    assert "new failed on 3 of 20 entries: see 'embedq dead list --collection pets@next'" in step.reason
    assert "'embedq reembed pets -m new --accept'" in step.reason
    assert next_step(replace(PETS, recall=0.0), many, None, passed=False) == Switch()
    # What is still to come is embedded before anybody is asked.
    assert next_step(PETS, replace(many, covered=16, missing=1), None, passed=False) == QueueMissing()


def test_what_comes_to_a_large_collection_in_the_last_moments_does_not_keep_it_from_the_switch() -> None:
    large = Coverage(entries=200_000, covered=198_000, missing=2000)
    assert next_step(PETS, large, summary(embedded=20), passed=False) == Switch()
    assert next_step(replace(PETS, golden="{}"), large, None, passed=False) == CheckGolden()
    more = replace(large, covered=197_999, missing=2001)
    assert next_step(PETS, more, summary(embedded=20), passed=False) == QueueMissing()
    much_more = Coverage(entries=1_000_000, covered=997_951, missing=2049)
    assert next_step(PETS, much_more, None, passed=False) == QueueMissing()


def test_an_empty_collection_switches() -> None:
    assert next_step(PETS, Coverage(), None, passed=False) == Switch()


def test_contents_that_were_not_stored_stop_it() -> None:
    step = next_step(PETS, Coverage(entries=20, covered=19, without_content=1), None, passed=False)
    assert isinstance(step, Stop)
    assert "the contents of 1 entry were not stored: submit the source again with --store" in step.reason


def test_a_check_that_was_not_passed_says_how_to_switch_all_the_same() -> None:
    assert after_check(PETS, Verdict(1.0, 1.0)) is None
    stop = after_check(PETS, Verdict(0.5, 1.0, "recall is 0.5"))
    assert stop == Stop("recall is 0.5. To switch all the same: 'embedq reembed pets -m new --accept'")
